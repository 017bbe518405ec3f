// Runs of output pixels that read anything kept, row by row of the map: what is left to compute where pixels are dropped.
// For kernels that read zeros for single dropped pixels and go round larger regions.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "kept.h"
#include "workspace.h"

namespace dance {

struct Span {
  int32_t begin, end;    // output pixels of the row
  uint64_t kernel_rows;  // bit kh: one of them reads something kept by this row of the kernel
};

constexpr int64_t kSpanKernelRows = 64;  // most that a Span can tell apart

struct LiveSpans {
  const Span* spans;
  const int32_t* first;  // [H' + 1] into spans
  const int32_t* read;   // [H][2] the input pixels of each row that spans read lie between these two; equal where none do

  const Span* begin(int64_t row) const { return spans + first[row]; }
  const Span* end(int64_t row) const { return spans + first[row + 1]; }
  int32_t read_begin(int64_t h) const { return read[2 * h]; }
  int32_t read_end(int64_t h) const { return read[2 * h + 1]; }
};

// Runs with no more than `gap` dead pixels between them are one. Throws std::bad_alloc.
LiveSpans find_spans(const ConvGeometry& g, const Kept& kept, int32_t gap, Workspace& workspace);

}  // namespace dance
