// One clip of a call: what every way to compute a convolution is given, and the base of the classes that do.
#pragma once
#include "gated_conv3d.h"
#include "kept.h"
#include "pack.h"
#include "workspace.h"

namespace dance {

// Refers to what its maker holds.
struct ClipCall {
  const ConvCall& call_;
  const ConvGeometry& g_;
  const int64_t n_;              // which clip
  const IsaKernels& isa_;
  const Kept& kept_;
  Workspace& ws_;
  const Parallel& parallel_;

  ClipCall(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, Workspace& workspace,
           const Parallel& parallel)
      : call_(call), g_(call.geometry), n_(n), isa_(isa), kept_(kept), ws_(workspace), parallel_(parallel) {}

  // Of the session, or, where W is no constant, packed by the call's first clip. Throws std::bad_alloc.
  const float* packed_weights(const PackedLayout& layout) const {
    if (call_.packed && call_.packed->isa == &isa_) return call_.packed->floats;
    float* out = ws_.weights.of<float>(std::size_t(layout.floats()));
    if (n_ == 0) pack_weights(layout, call_.w, g_.type, out);
    return out;
  }
  int64_t pixels() const { return g_.h * g_.w; }
  int64_t out_pixels() const { return g_.out[1] * g_.out[2]; }
};

}  // namespace dance
