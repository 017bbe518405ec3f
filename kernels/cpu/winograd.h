// Winograd's minimal filtering for 3x3 kernels over H and W with stride 1, direct over the kernel's frames.
#pragma once
#include <cstdint>

#include "clip_call.h"

namespace dance {

// How an output map is computed: 0: directly, without tiles. Tiles of fewer live pairs (output pixel, kernel position) are
// done pixel by pixel (scattered.h).
struct Tiling {
  int size;
  int64_t least_pairs;
};

// What to compute one n with: call.variant where the convolution allows it, or the one with the least estimated cost.
Tiling choose_tiling(const ConvCall& call, const Kept& kept, const IsaKernels& isa);

// What the choice is made from, for one n, whatever call.variant says: estimates in steps (costs.h). False where the
// convolution can only be computed directly.
struct VariantSteps {
  double direct, winograd2, winograd4;
};
bool estimate_variants(const ConvCall& call, const Kept& kept, const IsaKernels& isa, VariantSteps& steps);

// Whether dropped channels are transformed like the others, and stepped over by the products: whole vectors of channels are
// transformed anyway.
bool winograd_in_place(const ConvCall& call, const Kept& kept, const IsaKernels& isa);

// One n; choose_tiling must have returned this. Throws std::bad_alloc.
void winograd_conv3d(const ClipCall& clip, const Tiling& tiling);

}  // namespace dance
