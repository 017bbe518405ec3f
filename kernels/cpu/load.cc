#include "load.h"

#include <algorithm>

namespace dance {
namespace {

constexpr int64_t kLoadPixels = 1024;  // of a frame, converted as one work item
constexpr int64_t kFewChannels = 16;   // a pixel of fewer is too short for a loop of its own

void load_frame(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, const LoadHow& how, int64_t t,
                int64_t begin, int64_t end, float* x) {
  const ConvGeometry& g = call.geometry;
  const int64_t pixels = g.h * g.w, frame = g.channels_last ? t * pixels * g.c : t * pixels;
  LoadArgs a{};
  a.x = static_cast<const char*>(call.x) + (n * g.c * g.t * pixels + frame) * (g.type == Type::f32 ? 4 : 2);
  a.type = g.type;
  a.channels_last = g.channels_last;
  a.channel_stride = g.channels_last ? g.c : g.t * pixels;
  a.keep = kept.read_pixel;
  a.zero_dropped = how.zero_dropped;
  a.begin = begin, a.end = end;
  for (int64_t group = 0; group < how.groups; ++group) {
    a.channels = kept.channel + kept.first[group];
    a.count = kept.in_group(group);
    a.out_stride = how.groups == 1 ? how.stride : a.count;
    a.out = x + (kept.first[group] * g.t + t * a.out_stride) * pixels;
    if (a.count) isa.load(a);
  }
}

// The activation as it lies, with zeros at dropped pixels: by a mask of all floats of a frame, the same for each.
void load_few_channels(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, Workspace& ws,
                       const Parallel& parallel, float* x) {
  const ConvGeometry& g = call.geometry;
  const int64_t pixels = g.h * g.w, floats = pixels * g.c;
  uint32_t* keep = ws.float_mask.of<uint32_t>(std::size_t(floats));
  for (int64_t p = 0, i = 0; p < pixels; ++p)
    for (int64_t c = 0; c < g.c; ++c) keep[i++] = 0u - uint32_t(kept.read_pixel[p]);
  const float* from = static_cast<const float*>(call.x) + n * g.t * floats;
  for_items(parallel, g.t, [&](int, int64_t t) {
    if (kept.read_frame[t]) isa.select(from + t * floats, keep, floats, x + t * floats);
  });
}

}  // namespace

Loaded load_kept(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, const LoadHow& how,
                 Workspace& ws, const Parallel& parallel) {
  const ConvGeometry& g = call.geometry;
  const int64_t pixels = g.h * g.w;
  const bool as_it_lies = g.channels_last && g.type == Type::f32 && kept.all_channels && how.groups == 1 && how.stride == g.c;
  if (as_it_lies && !how.zero_dropped) return {static_cast<const float*>(call.x) + n * g.t * pixels * g.c, g.c};
  float* x = ws.activation.of<float>(std::size_t(g.t * pixels * how.stride));
  if (kept.channels == 0) return {x, how.stride};
  if (as_it_lies && g.c < kFewChannels) {
    load_few_channels(call, n, isa, kept, ws, parallel, x);
    return {x, g.c};
  }
  const int64_t parts = (pixels + kLoadPixels - 1) / kLoadPixels;
  for_items(parallel, g.t * parts, [&](int, int64_t item) {
    const int64_t t = item / parts, begin = item % parts * kLoadPixels;
    if (kept.read_frame[t])
      load_frame(call, n, isa, kept, how, t, begin, std::min(pixels, begin + kLoadPixels), x);
  });
  return {x, how.stride};
}

}  // namespace dance
