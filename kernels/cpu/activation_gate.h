// dance::ActivationGate on a CPU, both layouts.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "magnitudes.h"
#include "parallel.h"
#include "workspace.h"

namespace dance {

struct GateCall {
  const void* x;            // [N,C,T,H,W], or [N,T,H,W,C] where channels_last
  Type type;
  bool channels_last;
  int64_t n, c, t, h, w;    // all at least 1
  const float* tau;         // [N, 3]
  uint8_t* frame_keep;      // [N, T], bool
  uint8_t* channel_keep;    // [N, C]
  uint8_t* feature_keep;    // [N, H, W]
  // Of x, where the op that made it has taken them; else null, and a pass over x takes them. Channels-last only.
  const float* channel_magnitude = nullptr;  // [N, T, C]
  const float* pixel_magnitude = nullptr;    // [N, T, H, W]
  int64_t* kept = nullptr;              // or [N, 3]: how many frames, channels and features are kept
};

// Throws std::bad_alloc where the workspace cannot grow.
void activation_gate(const GateCall& call, Workspace& workspace, const Parallel& parallel);

}  // namespace dance
