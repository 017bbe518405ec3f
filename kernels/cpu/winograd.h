// Winograd's minimal filtering for 3x3 kernels over H and W with stride 1, direct over the kernel's frames.
#pragma once
#include <cstdint>

#include "clip_call.h"

namespace dance {

// What to compute one n with: call.variant where the convolution allows it, or the one with the least estimated cost.
Variant choose_variant(const ConvCall& call, const Kept& kept, const IsaKernels& isa);

// Whether dropped channels are transformed like the others, and stepped over by the products: whole vectors of channels are
// transformed anyway.
bool winograd_in_place(const ConvCall& call, const Kept& kept, const IsaKernels& isa);

// One n, with output tiles of size x size; choose_variant must have returned it. Throws std::bad_alloc.
void winograd_conv3d(const ClipCall& clip, int size);

}  // namespace dance
