// Convolutions in bfloat16: kept channels two by two, as 32-bit units of which the inner loops multiply both halves at
// once. The packed weights have the pairs (0, 1), (2, 3), ...; where one of two is dropped, the even one that is left is
// put beside an odd one that is left of another pair, whose weights the inner loop merges. So a unit with an empty half
// remains only where more even than odd ones are single, or the other way round.
#pragma once
#include <cstdint>

#include "gated_conv3d.h"
#include "kept.h"
#include "load.h"

namespace dance {

// Whether a convolution of constant weights can be computed in bfloat16: one group, not pointwise, float32 tensors, and a
// machine that has it.
bool pairs_possible(const ConvGeometry& g, const IsaKernels& isa);

// One n, seen as a convolution of units.
struct Pairs {
  const ConvCall& channels;      // the call as it came, and what it keeps
  const Kept& kept_channels;
  const PairKernels& kernels;
  ConvCall call;                 // of units: C is the number of pairs that the packed weights have
  Kept kept;                     // of units; `channel` is the pair of every even half
  const int32_t* odd;            // the pair of every odd half
  const int32_t* halves;         // [2 * units] the channel of each half; any kept one where it is empty
  const int32_t* empty;          // [empty_count] halves that hold zeros
  int32_t empty_count;

  // kept: with at least one channel. `workspace` holds the lists. Throws std::bad_alloc.
  Pairs(const ConvCall& call, const Kept& kept, const IsaKernels& isa, Workspace& workspace);
  Pairs(const Pairs&) = delete;

  // Units of the pixels and frames that are read, in [T][H][W][units]. Throws std::bad_alloc.
  Loaded load(int64_t n, const IsaKernels& isa, bool zero_dropped, Workspace& workspace, const Parallel& parallel) const;
  // As floats, every half in its place, `stride` floats from pixel to pixel, zeros past the last half.
  Loaded load_floats(int64_t n, const IsaKernels& isa, int64_t stride, Workspace& workspace,
                     const Parallel& parallel) const;

 private:
  void load_halves(int64_t n, const IsaKernels& isa, int64_t t, int64_t begin, int64_t end, int64_t stride,
                   float* out) const;
};

// Weights as units: PackedLayout's, or for a size above 0 WinogradLayout's order, of a geometry of units.
// w: [M, C, kT, kH, kW] floats. Throws std::bad_alloc.
void pack_pairs(const ConvGeometry& g, const IsaKernels& isa, int size, const void* w, float* out);
int64_t pair_floats(const ConvGeometry& g, const IsaKernels& isa, int size);

}  // namespace dance
