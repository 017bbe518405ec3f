// Depthwise convolutions: one input channel to one output channel, with a kernel of their own. See depthwise.inc.
#pragma once
#include "clip_call.h"

namespace dance {

// One n of a call whose geometry is depthwise. Throws std::bad_alloc.
void depthwise_conv3d(const ClipCall& clip);

}  // namespace dance
