// Convolutions outside the implicit matrix product: depthwise (bound by memory), and any geometry at all (slow, rarely met).
// Both keep to one thread an output and sums in float32.
#pragma once
#include "elements.cuh"

namespace dance {
namespace cuda {

struct PlainParams {
  ConvShape shape;
  Masks masks;
  const void* x;
  const void* weights;  // plain: as in the graph, [M][C/group][taps]; depthwise: [taps][C]
  const void* b;
  const void* z;
  void* y;
  int channels_last;
  float minimum;
};

// One output. Neighbouring threads take neighbouring values of Y in memory.
struct Output { int m, t, h, w; };

DANCE_DEVICE Output output_at(const PlainParams& p, int i) {
  const ConvShape& s = p.shape;
  Output o;
  if (p.channels_last) o.m = i % s.m, i /= s.m;
  o.w = i % s.out[2], i /= s.out[2];
  o.h = i % s.out[1], i /= s.out[1];
  o.t = i % s.out[0], i /= s.out[0];
  if (!p.channels_last) o.m = i;
  return o;
}

// One item's row of a mask.
DANCE_DEVICE const void* mask_row(const void* mask, int as_float, long long first) {
  return static_cast<const char*>(mask) + first * (as_float ? 4 : 1);
}

// Calls `add(kernel position, input position t*H*W + h*W + w)` for every live position of an output.
template <class Add>
DANCE_DEVICE void for_live(const PlainParams& p, const void* frames, const void* features, const Output& o,
                          const Add& add) {
  const ConvShape& s = p.shape;
#pragma unroll 1
  for (int kt = 0; kt < s.kernel[0]; ++kt) {
    const int t = o.t * s.strides[0] - s.pads[0] + kt * s.dilations[0];
    if (t < 0 || t >= s.t || !kept(frames, p.masks.as_float, t)) continue;
#pragma unroll 1
    for (int kh = 0; kh < s.kernel[1]; ++kh) {
      const int h = o.h * s.strides[1] - s.pads[1] + kh * s.dilations[1];
      if (h < 0 || h >= s.h) continue;
#pragma unroll 1
      for (int kw = 0; kw < s.kernel[2]; ++kw) {
        const int w = o.w * s.strides[2] - s.pads[2] + kw * s.dilations[2];
        if (w < 0 || w >= s.w) continue;
        if (!kept(features, p.masks.as_float, h * s.w + w)) continue;
        add((kt * s.kernel[1] + kh) * s.kernel[2] + kw, (t * s.h + h) * s.w + w);
      }
    }
  }
}

// Grid: (outputs of an item / threads, N).
template <class T, bool kDepthwise>
DANCE_DEVICE void conv_each_output(const PlainParams& p) {
  const ConvShape& s = p.shape;
  const int volume = s.t * s.h * s.w, outputs = s.m * s.out[0] * s.out[1] * s.out[2], n = blockIdx.y;
  const int taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
  const int inputs = s.c / s.group, outputs_each = s.m / s.group;
  const int pixel_step = p.channels_last ? s.c : 1, channel_step = p.channels_last ? 1 : volume;
  const int weight_step = kDepthwise ? s.c : 1;
  const T* x = static_cast<const T*>(p.x) + static_cast<long long>(n) * volume * s.c;
  const T* z = p.z ? static_cast<const T*>(p.z) + static_cast<long long>(n) * outputs : nullptr;
  T* y = static_cast<T*>(p.y) + static_cast<long long>(n) * outputs;
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= outputs) return;
  const Output o = output_at(p, i);
  const int as_float = p.masks.as_float;
  const void* frames = mask_row(p.masks.frame, as_float, static_cast<long long>(n) * s.t);
  const void* channels = mask_row(p.masks.channel, as_float, static_cast<long long>(n) * s.c);
  const void* features = mask_row(p.masks.feature, as_float, static_cast<long long>(n) * s.h * s.w);
  float sum = 0.0f;
#pragma unroll 1
  for (int j = 0; j < inputs; ++j) {
    const int channel = o.m / outputs_each * inputs + j;
    if (!kept(channels, as_float, channel)) continue;
    const T* from = x + channel * channel_step;
    const T* weight = static_cast<const T*>(p.weights) + (kDepthwise ? o.m : (o.m * inputs + j) * taps);
    for_live(p, frames, features, o, [&](int tap, int position) {
      sum += to_float(from[position * pixel_step]) * to_float(weight[tap * weight_step]);
    });
  }
  sum += to_float(static_cast<const T*>(p.b)[o.m]);
  if (z) sum += to_float(z[i]);
  from_float(clamp_below(sum, p.minimum), &y[i]);
}

// Weights [rows][columns] -> [columns][rows]; a copy where one of them is 1.
template <class T>
DANCE_DEVICE void transpose_weights_body(const T* w, T* packed, int rows, int columns) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < rows * columns) packed[i] = w[i % rows * columns + i / rows];
}

}  // namespace cuda
}  // namespace dance
