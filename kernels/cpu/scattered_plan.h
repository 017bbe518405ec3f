// Output tiles that read little, and the kept input pixels around them: what is left to compute where kept pixels lie so
// far apart that hardly two outputs read the same kernel positions.
#pragma once
#include <cstdint>
#include <vector>

#include "geometry.h"

namespace dance {

struct Tile;

// Wanted outputs of one row of tiles: the same columns in each of its rows.
struct ScatteredBand {
  int32_t row_begin, row_end;
  int32_t span_begin, span_end;  // into ScatteredPlan::spans
  int32_t line;                  // into ScatteredPlan::lines: of the input row that kernel row 0 of row_begin reads
};

struct ScatteredSpan {
  int32_t begin, end;            // output columns
  int32_t place;                 // of the first of them in a row of sums
};

struct ScatteredInput {
  int32_t column;
  int32_t place;                 // in a row of sums, of the output that it reaches by the kernel row's first position
};

struct ScatteredPlan {
  std::vector<ScatteredBand> bands;
  std::vector<ScatteredSpan> spans;
  std::vector<int32_t> lines;            // of every input row that a band reads: begin in inputs; then the end of the last
  std::vector<ScatteredInput> inputs;    // kept ones that a wanted output reads
  int32_t rows, width;                   // most output rows of a band; sums in a row, with room for outputs beside the spans
};

// tiles: `count` of them of size x size outputs, in the map's order. Kernels of 3 along H and W with stride and dilation 1,
// so that no input reaches two spans.
void plan_scattered(const ConvGeometry& g, const uint8_t* feature, const Tile* tiles, int64_t count, int size,
                    ScatteredPlan& plan);

}  // namespace dance
