// What a body of channels-last ops needs besides gates and convolutions.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "magnitudes.h"
#include "parallel.h"
#include "workspace.h"

namespace dance {

struct ToChannelsLastCall {
  const void* x;            // [N,C,T,H,W]
  void* y;                  // [N,T,H,W,C]
  Type type;
  int64_t n, c, t, h, w;    // all at least 1
  MagnitudeOutputs magnitudes{};  // of y, where wanted
};

// Throws std::bad_alloc where the workspace cannot grow.
void to_channels_last(const ToChannelsLastCall& call, Workspace& workspace, const Parallel& parallel);

struct MaxPoolCall {
  const void* x;            // [N,T,H,W,C]
  void* y;                  // [N,T',H',W',C]
  ConvGeometry geometry;    // checked, with its output size: m = c, dilations 1, and less padding than kernel on each side
  MagnitudeOutputs magnitudes{};  // of y, where wanted
};

struct ScaledSwishCall {
  const void* x;            // [N,T,H,W,C]
  const void* scale;        // [N,1,1,1,C], of the same type
  void* y;                  // like x
  Type type;
  int64_t n, pixels, c;     // pixels: T x H x W
};

// y = swish(x * scale), swish(a) = a * sigmoid(a). Throws std::bad_alloc.
void scaled_swish(const ScaledSwishCall& call, Workspace& workspace, const Parallel& parallel);

// A NaN in a window is its result.
void max_pool3d(const MaxPoolCall& call, Workspace& workspace, const Parallel& parallel);

}  // namespace dance
