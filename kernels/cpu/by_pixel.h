// Convolutions of few kept pixels beside narrow layers, from the inputs' side: what an input pixel adds to its neighbours
// along W is one product with their weights side by side. Pixels need have nothing in common, and of few outputs the
// neighbours fill the lanes that one of them would leave empty.
#pragma once
#include <cstdint>

#include "clip_call.h"
#include "live_spans.h"

namespace dance {

// Vectors of products of one n for each, along W; infinite where it cannot be computed this way. Of the kept pixels alone.
double by_pixel_products(const ConvCall& call, const Kept& kept, const IsaKernels& isa);

// One n for which those are finite; spans: with any gap. Throws std::bad_alloc.
void by_pixel_conv3d(const ClipCall& clip, const LiveSpans& spans);

}  // namespace dance
