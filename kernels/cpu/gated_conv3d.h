// dance::GatedConv3d and GatedConv3dAdd on a CPU, all layouts and types.
#pragma once
#include <cstdint>
#include <vector>

#include "geometry.h"
#include "isa.h"
#include "parallel.h"
#include "workspace.h"

namespace dance {

enum class MaskType : int { byte = 0, f32 = 1 };  // byte: bool

// Weights packed ahead for one instruction set; kept where W is a constant of the graph.
struct PackedWeights {
  const IsaKernels* isa = nullptr;
  Buffer data;
  const float* floats = nullptr;
  // g: only group, m, c and kernel are looked at. Throws std::bad_alloc.
  void pack(const ConvGeometry& g, const IsaKernels& isa, const void* w);
};

struct ConvCall {
  ConvGeometry geometry;         // checked, with its output size
  const void* x;
  const void* w;                 // [M, C/group, kT, kH, kW]; not read where `packed` is given, except depthwise
  const PackedWeights* packed;   // or null
  const void* b;                 // [M]
  const void* frame_keep;        // [N, T]
  const void* channel_keep;      // [N, C]
  const void* feature_keep;      // [N, H, W]
  MaskType mask_type;
  const void* z;                 // shaped like y, or null
  void* y;
  float minimum;
};

// Nothing but y is written. Throws std::bad_alloc where the workspace cannot grow.
void gated_conv3d(const ConvCall& call, Workspace& workspace, const Parallel& parallel);

}  // namespace dance
