// Output tiles that read little, and the kept input pixels around them: what is left to compute where kept pixels lie so
// far apart that no two outputs read the same kernel positions.
#pragma once
#include <cstdint>
#include <vector>

#include "geometry.h"

namespace dance {

struct Tile;

// Output rows of one row of tiles.
struct ScatteredBand {
  int32_t row_begin, row_end;
  int32_t span_begin, span_end;  // into ScatteredPlan::spans: its output columns that are wanted, the same in each row
  int32_t line;                  // into ScatteredPlan::lines: of the input row that kernel row 0 of row_begin reads
};

struct ScatteredSpan {
  int32_t begin, end;
};

struct ScatteredPlan {
  std::vector<ScatteredBand> bands;
  std::vector<ScatteredSpan> spans;
  std::vector<int32_t> lines;    // of every input row that a band reads: begin in columns; then the end of the last
  std::vector<int32_t> columns;  // kept ones that a wanted output reads
};

// tiles: `count` of them of size x size outputs, in the map's order. Strides and dilations along H and W must be 1.
void plan_scattered(const ConvGeometry& g, const uint8_t* feature, const Tile* tiles, int64_t count, int size,
                    ScatteredPlan& plan);

}  // namespace dance
