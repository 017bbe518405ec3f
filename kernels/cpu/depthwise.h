// Depthwise convolutions: one input channel to one output channel, with a kernel of their own. See depthwise.inc.
#pragma once
#include "gated_conv3d.h"
#include "kept.h"

namespace dance {

// One n of a call whose geometry is depthwise. Throws std::bad_alloc.
void depthwise_conv3d(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, Workspace& workspace,
                      const Parallel& parallel);

}  // namespace dance
