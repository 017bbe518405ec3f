// Weights in the order the tiles read them: [group][block of output channels][kT][kH][kW][C/group][columns], the
// columns of a group's last block rounded up to whole vectors, with zeros or, of pointwise convolutions, with outputs twice.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "isa.h"

namespace dance {

// Vectors of input channels that a vector of outputs reads, 1 or 2, where narrow groups share its lanes; 0 where groups are not
// narrow (half a vector, or a whole one where a kernel slides along W), or too few or too uneven for that.
int narrow_registers(const ConvGeometry& g, int vector);

struct PackedLayout {
  bool strips;                            // depthwise or narrow groups: all outputs count as one group's
  int64_t groups, outputs, inputs, taps;  // per group, except groups
  int vector, block;                      // of the instruction set; of strips a block is one vector
  bool full;                              // pointwise: a group's last vector has its last outputs, shared with the one before

  PackedLayout(const ConvGeometry& g, const IsaKernels& isa)
      : strips(g.depthwise() || narrow_registers(g, isa.vector) > 0), groups(strips ? 1 : g.group),
        outputs(strips ? g.m : g.outputs_per_group()), inputs(g.channels_per_group()),
        taps(g.kernel[0] * g.kernel[1] * g.kernel[2]), vector(isa.vector), block(strips ? isa.vector : isa.block()),
        full(g.pointwise() && !strips && outputs >= isa.vector) {}

  int64_t blocks() const { return (outputs + block - 1) / block; }           // a group
  int64_t padded_outputs() const { return (outputs + vector - 1) / vector * vector; }
  int64_t group_floats() const { return padded_outputs() * taps * inputs; }
  int64_t floats() const { return groups * group_floats(); }
  int64_t block_begin(int64_t index) const { return index * block; }         // first output channel of the group
  int columns(int64_t index) const {                                        // real output channels
    return int(outputs - block_begin(index) < block ? outputs - block_begin(index) : block);
  }
  int vectors(int64_t index) const { return (columns(index) + vector - 1) / vector; }
  // From a block's first output to those of its last vector.
  int last(int64_t index) const { return full ? columns(index) - vector : (vectors(index) - 1) * vector; }
  // The output of column j of a block; none where it is `columns` or more.
  int64_t output(int64_t index, int j) const {
    const int in_last = j - (vectors(index) - 1) * vector;
    return block_begin(index) + (in_last < 0 ? j : last(index) + in_last);
  }
  int64_t offset(int64_t group, int64_t index) const {
    return group * group_floats() + block_begin(index) * taps * inputs;
  }
};

// w: [M, C/group, kT, kH, kW] of `type`; out: layout.floats() floats. discard: w's pages are given back to the system, and
// lost, block by block, so that there is never room needed for both.
void pack_weights(const PackedLayout& layout, const void* w, Type type, float* out, bool discard = false);

// b: [groups * outputs] -> out: [groups][padded outputs], as the columns of packed weights.
void bias_by_column(const PackedLayout& layout, const float* b, float* out);

// Strips: [vector of outputs][taps][inputs][vector length], for outputs chosen by a list (layout.outputs of them), or for all
// where it is null. Vectors are full wherever there are as many: the last one is of the last outputs, some of which the one
// before has too.
void pack_strips(const PackedLayout& layout, const void* w, Type type, const int32_t* channels, float* out);

// For few_outputs.inc: [block of outputs][taps][vectors of inputs][outputs of the block][vector], zeros past the last input.
// Group 1 only.
struct ByOutputLayout {
  int64_t outputs, taps, vectors;
  int vector;

  ByOutputLayout(const PackedLayout& layout, int64_t inputs)
      : outputs(layout.outputs), taps(layout.taps), vectors((inputs + layout.vector - 1) / layout.vector),
        vector(layout.vector) {}

  int64_t blocks() const { return (outputs + kFewOutputsTile - 1) / kFewOutputsTile; }
  int64_t block_begin(int64_t index) const { return outputs * index / blocks(); }
  int columns(int64_t index) const { return int(block_begin(index + 1) - block_begin(index)); }
  int64_t offset(int64_t index) const { return block_begin(index) * taps * vectors * vector; }
  int64_t floats() const { return outputs * taps * vectors * vector; }
};

// packed: weights as pack_weights leaves them; channels: which inputs, `count` of them, or null: the first.
void pack_by_output(const PackedLayout& from, const float* packed, const int32_t* channels, int64_t count, float* out);

// One pass over the kept pixels that lie alike between the strides (row, column: (h + pad) % stride along H and W), by kernel
// rows [first, first + rows) of those that read them. What such a pixel adds to a row of outputs lies side by side.
struct ByPixelPass {
  int row, column;
  int first, rows;     // of ByPixelLayout::kernel_row
  int lanes;           // of a kernel row: its positions, the last first as outputs lie, times the outputs of the block
  int vectors;         // of all rows
  int64_t weights;     // [kT][C][vectors, all lanes] from here on
};

// For by_pixel.cc: [block of outputs][pass][kT][C][kernel rows of the pass][its positions][outputs of the block], the last three
// rounded up to whole vectors, with zeros. Group 1 only, no dilation along W.
struct ByPixelLayout {
  int64_t outputs, inputs, frames, blocks;
  int kernel[2], strides[2], dilation;  // along H and W; dilation: along H
  int vector, block;

  ByPixelLayout(const ConvGeometry& g, const IsaKernels& isa)
      : outputs(g.m), inputs(g.c), frames(g.kernel[0]), kernel{int(g.kernel[1]), int(g.kernel[2])},
        strides{int(g.strides[1]), int(g.strides[2])}, dilation(int(g.dilations[1])), vector(isa.vector),
        block(isa.block()) {
    const int64_t most = block / positions(0);
    blocks = (outputs + most - 1) / most;
  }

  int64_t block_begin(int64_t index) const { return outputs * index / blocks; }
  int columns(int64_t index) const { return int(block_begin(index + 1) - block_begin(index)); }
  // Kernel positions along W that read pixels of a column; most of them: of column 0.
  int positions(int column) const { return (kernel[1] - column + strides[1] - 1) / strides[1]; }
  // The i-th kernel row that reads pixels of a row; kernel[0] where there are fewer.
  int kernel_row(int row, int i) const {
    int kh = 0;
    for (; kh < kernel[0]; ++kh)
      if (kh * dilation % strides[0] == row && i-- == 0) break;
    return kh;
  }
  template <class Do>
  void for_passes(Do&& with) const {  // with(block of outputs, pass)
    int64_t weights = 0;
    for (int64_t index = 0; index < blocks; ++index)
      for (int row = 0; row < strides[0]; ++row) {
        int rows = 0;
        while (kernel_row(row, rows) < kernel[0]) ++rows;
        for (int column = 0; column < strides[1]; ++column) {
          const int lanes = column < kernel[1] ? positions(column) * columns(index) : 0;
          if (lanes == 0 || rows == 0) continue;
          const int passes = (rows + block / lanes - 1) / (block / lanes);
          for (int i = 0; i < passes; ++i) {
            const int first = rows * i / passes, some = rows * (i + 1) / passes - first;
            const int vectors = (some * lanes + vector - 1) / vector;
            with(index, ByPixelPass{row, column, first, some, lanes, vectors, weights});
            weights += frames * inputs * vectors * vector;
          }
        }
      }
  }
  int64_t floats() const {
    int64_t count = 0;
    for_passes([&](int64_t, const ByPixelPass& pass) { count = pass.weights + frames * inputs * pass.vectors * vector; });
    return count;
  }
};

// packed: weights as pack_weights leaves them.
void pack_by_pixel(const PackedLayout& from, const ByPixelLayout& to, const float* packed, float* out);

// As PackedLayout for Winograd: every kernel position of H and W is replaced by a component, which varies slowest:
// [block of output channels][component][kT][C][columns]. Group 1 only.
struct WinogradLayout : PackedLayout {
  WinogradLayout(const ConvGeometry& g, const IsaKernels& isa, int size) : PackedLayout(g, isa) {
    taps = int64_t(size + 2) * (size + 2) * g.kernel[0];
  }
};

// packed: weights of 3x3 kernels over H and W as pack_weights leaves them (layout); out: WinogradLayout's floats.
void pack_winograd(const PackedLayout& layout, int64_t kernel_frames, const float* packed, int size, float* out);

// Elements of `type` to floats.
void to_floats(const void* source, Type type, int64_t count, float* out);

}  // namespace dance
