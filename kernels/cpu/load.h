// Kept channels of an activation as channels-last floats, the form that every reduction reads.
#pragma once
#include <cstdint>

#include "gated_conv3d.h"
#include "kept.h"

namespace dance {

struct Loaded {
  const float* x;    // [group][T][H][W][stride]; only kept frames and pixels that some output reads are there
  int64_t stride;    // floats from pixel to pixel; with several groups each has its own, its number of kept channels
};

struct LoadHow {
  int64_t groups;
  int64_t stride;      // wanted where groups is 1: at least the kept channels, columns past them are zeros
  bool zero_dropped;   // zeros at dropped pixels, instead of nothing
};

// A channels-last float32 activation that is in this form already is taken as it lies. Throws std::bad_alloc.
Loaded load_kept(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, const LoadHow& how,
                 Workspace& workspace, const Parallel& parallel);

}  // namespace dance
