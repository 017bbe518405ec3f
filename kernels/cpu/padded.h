// Convolutions of few input or few output channels: stems, and layers that pruning has made narrow on one side.
#pragma once
#include <cstdint>

#include "clip_call.h"

namespace dance {

// What the vectors run along: all of the outputs, or, where those would leave most lanes empty, the inputs.
enum class PaddedWay { none, outputs, inputs };

PaddedWay padded_way(const ConvCall& call, int64_t kept_channels, const IsaKernels& isa);

// One n whose padded_way is not `none`. Throws std::bad_alloc.
void padded_conv3d(const ClipCall& clip);

}  // namespace dance
