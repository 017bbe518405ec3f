// Convolutions of few kept pixels beside narrow layers, from the inputs' side: what an input pixel adds to all outputs that
// read it is one product with the weights of all their kernel positions side by side. Pixels need have nothing in common, and of
// few outputs the neighbours fill the lanes that one of them would leave empty.
#pragma once
#include "clip_call.h"

namespace dance {

// Vectors of products of one n for each, along W; infinite where it cannot be computed this way. Of the kept pixels alone.
double by_pixel_products(const ConvCall& call, const Kept& kept, const IsaKernels& isa);

// Whether that is below what the direct kernel is estimated to take, where `padded_way` is none.
bool by_pixel_pays(const ConvCall& call, const Kept& kept, const IsaKernels& isa);

// One n for which those are finite. Throws std::bad_alloc.
void by_pixel_conv3d(const ClipCall& clip);

}  // namespace dance
