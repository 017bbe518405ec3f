// 1x1x1 convolutions of one group over channels-last floats: an output pixel reads one input pixel where it lies, and
// dropped channels are stepped over, so neither plan nor copy is needed.
#pragma once
#include "clip_call.h"

namespace dance {

bool is_pointwise(const ConvGeometry& g);
// One n of a call whose geometry is pointwise. Throws std::bad_alloc.
void pointwise_conv3d(const ClipCall& clip);

}  // namespace dance
