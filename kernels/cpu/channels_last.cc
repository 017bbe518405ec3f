#include "channels_last.h"

#include <algorithm>
#include <cstring>

#include "isa.h"
#include "pack.h"

namespace dance {
namespace {

constexpr int64_t kPixels = 512;  // of a frame, as one work item
constexpr int64_t kSwishFloats = 16384;  // of one work item

void halves_to_last(const uint16_t* x, uint16_t* y, int64_t channels, int64_t channel_stride, int64_t begin, int64_t end) {
  for (int64_t p = begin; p < end; ++p)
    for (int64_t c = 0; c < channels; ++c) y[p * channels + c] = x[c * channel_stride + p];
}

}  // namespace

void to_channels_last(const ToChannelsLastCall& call, Workspace& ws, const Parallel& parallel) {
  const int64_t pixels = call.h * call.w, parts = (pixels + kPixels - 1) / kPixels;
  const IsaKernels& isa = isa_current();
  int32_t* channels = ws.channels.of<int32_t>(std::size_t(call.c));
  for (int64_t c = 0; c < call.c; ++c) channels[c] = int32_t(c);
  uint8_t* keep = ws.masks.of<uint8_t>(std::size_t(pixels));
  std::memset(keep, 1, std::size_t(pixels));
  Magnitudes magnitudes(call.magnitudes, call.y, call.type, true, 0, call.n * call.t, call.c, pixels);
  magnitudes.begin(parts, 1, ws);
  for_items(parallel, call.n * call.t * parts, [&](int, int64_t item) {
    const int64_t frame = item / parts, begin = item % parts * kPixels, end = std::min(pixels, begin + kPixels);
    const int64_t n = frame / call.t, t = frame % call.t;
    const int64_t from = (n * call.c * call.t + t) * pixels, to = frame * pixels * call.c;
    if (call.type == Type::f16) {
      halves_to_last(static_cast<const uint16_t*>(call.x) + from, static_cast<uint16_t*>(call.y) + to, call.c,
                     call.t * pixels, begin, end);
      return magnitudes.add(item % parts, 0, frame, 0, call.c, begin, end - begin);
    }
    LoadArgs a{};
    a.x = static_cast<const float*>(call.x) + from;
    a.type = Type::f32;
    a.channel_stride = call.t * pixels;
    a.channels = channels, a.count = int(call.c);
    a.keep = keep;
    a.begin = begin, a.end = end;
    a.out = static_cast<float*>(call.y) + to;
    a.out_stride = call.c;
    isa.load(a);
    magnitudes.add(item % parts, 0, frame, 0, call.c, begin, end - begin);
  });
  magnitudes.end();
}

void scaled_swish(const ScaledSwishCall& call, Workspace& ws, const Parallel& parallel) {
  const IsaKernels& isa = isa_current();
  int64_t period = isa.vector;  // pixels lie side by side: after so many floats vectors and channels are in step again
  while (period % call.c) period += isa.vector;
  float* scale = ws.bias.of<float>(std::size_t(call.n * (period + call.c)));
  to_floats(call.scale, call.type, call.n * call.c, scale + call.n * period);
  for (int64_t i = 0; i < call.n * period; ++i)
    scale[i] = scale[call.n * period + i / period * call.c + i % period % call.c];
  const int64_t count = call.pixels * call.c, bytes = call.type == Type::f32 ? 4 : 2;
  const int64_t part = std::max<int64_t>(1, kSwishFloats / period) * period, parts = (count + part - 1) / part;
  for_items(parallel, call.n * parts, [&](int, int64_t item) {
    const int64_t n = item / parts, first = item % parts * part, at = (n * count + first) * bytes;
    isa.scaled_swish({static_cast<const char*>(call.x) + at, static_cast<char*>(call.y) + at, call.type,
                      scale + n * period, period, std::min(part, count - first)});
  });
}

void max_pool3d(const MaxPoolCall& call, Workspace& ws, const Parallel& parallel) {
  const ConvGeometry& g = call.geometry;
  const IsaKernels& isa = isa_current();
  const int64_t window = g.kernel[0] * g.kernel[1] * g.kernel[2], bytes = g.type == Type::f32 ? 4 : 2;
  const int64_t items = g.n * g.out[0] * g.out[1];
  const int64_t workers = std::min<int64_t>(std::max(1, parallel.workers), items);
  const void** pointers = ws.rows.of<const void*>(std::size_t(workers * window));
  Magnitudes magnitudes(call.magnitudes, call.y, g.type, true, 0, g.n * g.out[0], g.c, g.out[1] * g.out[2]);
  magnitudes.begin(g.out[1], 1, ws);
  for_items(parallel, items, [&](int worker, int64_t item) {
    const int64_t ho = item % g.out[1], to = item / g.out[1] % g.out[0], n = item / g.out[1] / g.out[0];
    const int64_t t0 = to * g.strides[0] - g.pads[0], h0 = ho * g.strides[1] - g.pads[1];
    LargestArgs a{};
    a.x = pointers + worker * window;
    a.type = g.type;
    a.channels = g.c;
    for (int64_t wo = 0; wo < g.out[2]; ++wo) {
      const int64_t w0 = wo * g.strides[2] - g.pads[2];
      a.count = 0;
      for (int64_t t = std::max<int64_t>(0, t0); t < std::min(g.t, t0 + g.kernel[0]); ++t)
        for (int64_t h = std::max<int64_t>(0, h0); h < std::min(g.h, h0 + g.kernel[1]); ++h)
          for (int64_t w = std::max<int64_t>(0, w0); w < std::min(g.w, w0 + g.kernel[2]); ++w)
            pointers[worker * window + a.count++] =
                static_cast<const char*>(call.x) + (((n * g.t + t) * g.h + h) * g.w + w) * g.c * bytes;
      a.y = static_cast<char*>(call.y) + ((item * g.out[2]) + wo) * g.c * bytes;
      isa.largest(a);
    }
    magnitudes.add(ho, 0, item / g.out[1], 0, g.c, ho * g.out[2], g.out[2]);
  });
  magnitudes.end();
}

}  // namespace dance
