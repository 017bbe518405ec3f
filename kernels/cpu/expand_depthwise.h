// A 1x1x1 convolution and the depthwise one that alone reads what it makes, as in inverted bottlenecks, in one op: the wide map
// between them never goes to memory.
#pragma once
#include "gated_conv3d.h"

namespace dance {

struct ExpandDepthwiseCall {
  ConvCall expand;     // channels-last floats, kernel and strides 1, no padding, group 1; y, z and magnitudes are not looked at
  ConvCall depthwise;  // of what that makes; x, z, masks and magnitudes are not looked at: everything is kept
  bool swish;          // y = swish(max(..., depthwise.minimum))
};

// Throws std::bad_alloc where the workspace cannot grow.
void expand_depthwise(const ExpandDepthwiseCall& call, Workspace& workspace, const Parallel& parallel);

}  // namespace dance
