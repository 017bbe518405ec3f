// Convolutions in bfloat16: kept channels two by two, as 32-bit units of which the inner loops multiply both halves at
// once. The packed weights hold the pairs (0, 1), (2, 3), ...; where channels are dropped, the kept ones are paired in order,
// and the halves of two rows of weights are put together: by the inner loop, or once a call where many rows share them.
#pragma once
#include <cstdint>

#include "gated_conv3d.h"
#include "kept.h"
#include "load.h"

namespace dance {

// Whether a convolution of constant weights can be computed in bfloat16: one group, not pointwise, float32 tensors, and a
// machine that has it.
bool pairs_possible(const ConvGeometry& g, const IsaKernels& isa);

// One n of a call, seen as a convolution of units.
struct Pairs {
  const ConvCall& channels;      // the call as it came, and what it keeps
  const Kept& kept_channels;
  const PairKernels& kernels;
  ConvGeometry all_units;        // C is the number of pairs that the packed weights have
  bool gathered = false;         // weights are put together first: call and kept are as if there were kept units only
  bool zero_channels = false;    // dropped channels are read as zeros: call and kept are as if all were kept
  ConvCall call;
  Kept kept;
  int32_t first[2];              // that of `kept`

  // kept: with at least one channel.
  Pairs(const ConvCall& call, const Kept& kept, const IsaKernels& isa);
  Pairs(const Pairs&) = delete;

  bool by_tiles() const { return kernels.tile_product != nullptr; }
  // Whether dropped channels are multiplied too, as zeros: picking the kept ones would take longer. size: as below.
  bool multiplies_all(int size) const;
  // What becomes of dropped channels. To be called once it is known how `call` will be computed, size 0: directly, else by
  // Winograd tiles of that size.
  void decide_channels(int size);
  // For that size. Throws std::bad_alloc.
  const float* weights(int size, const IsaKernels& isa, Workspace& workspace, const Parallel& parallel) const;
  // Units of the pixels and frames that are read, in [T][H][W][units]. Throws std::bad_alloc.
  Loaded load(int64_t n, const IsaKernels& isa, bool zero_dropped, Workspace& workspace, const Parallel& parallel) const;
  // For Winograd, which rounds components: floats of the channels of all units, `stride` a pixel. Throws std::bad_alloc.
  Loaded load_floats(int64_t n, int64_t stride, const IsaKernels& isa, Workspace& workspace, const Parallel& parallel) const;

 private:
  // So many that weights are put together once for all.
  bool many_rows(int size) const;
};

// Weights as units: PackedLayout's, or for a size above 0 WinogradLayout's order, of a geometry of units.
// w: [M, C, kT, kH, kW] floats. Throws std::bad_alloc.
void pack_pairs(const ConvGeometry& g, const IsaKernels& isa, int size, const void* w, float* out);
int64_t pair_floats(const ConvGeometry& g, const IsaKernels& isa, int size);

}  // namespace dance
