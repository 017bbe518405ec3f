#include "row_store.h"

#include <cstring>

#include "pack.h"

namespace dance {

const float* repeated_bias(const ClipCall& clip, int64_t pixels) {
  const ConvGeometry& g = clip.g_;
  float* bias = clip.ws_.bias.of<float>(std::size_t(pixels * g.m));
  to_floats(clip.call_.b, g.type, g.m, bias);
  for (int64_t i = 1; i < pixels; ++i) std::memcpy(bias + i * g.m, bias, std::size_t(g.m) * 4);
  return bias;
}

void store_in_row(const ClipCall& clip, StoreArgs& a, int64_t to, int64_t ho, int64_t begin) {
  const ConvGeometry& g = clip.g_;
  a.minimum = clip.call_.minimum;
  a.type = g.type;
  const int64_t pixel = to * clip.out_pixels() + ho * g.out[2] + begin;
  const int64_t element = clip.n_ * g.m * g.out[0] * clip.out_pixels() + pixel * (g.channels_last ? g.m : 1);
  const int64_t at = element * (g.type == Type::f32 ? 4 : 2);
  a.y = static_cast<char*>(clip.call_.y) + at;
  a.z = clip.call_.z ? static_cast<const char*>(clip.call_.z) + at : nullptr;
  clip.isa_.store(a);
}

void store_row(const ClipCall& clip, const float* bias, int64_t to, int64_t ho, const float* sums) {
  const ConvGeometry& g = clip.g_;
  StoreArgs a{};
  a.acc = sums;
  a.acc_stride = g.m;
  a.pixels = g.channels_last ? 1 : int(g.out[2]);
  a.count = int(g.channels_last ? g.out[2] * g.m : g.m);
  a.bias = bias;
  a.channel_stride = g.channels_last ? 1 : g.out[0] * clip.out_pixels();
  a.pixel_stride = g.channels_last ? a.count : 1;
  store_in_row(clip, a, to, ho, 0);
}

}  // namespace dance
