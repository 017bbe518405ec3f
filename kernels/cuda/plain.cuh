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
  int n;
  int channels_last;
  float minimum;
};

// One output of the grid-stride loop. Neighbouring threads take neighbouring values of Y in memory.
struct Output {
  long long index;  // in Y
  int n, m, t, h, w;
};

DANCE_DEVICE Output output_at(const PlainParams& p, long long i) {
  const ConvShape& s = p.shape;
  Output o;
  o.index = i;
  if (p.channels_last) o.m = static_cast<int>(i % s.m), i /= s.m;
  o.w = static_cast<int>(i % s.out[2]), i /= s.out[2];
  o.h = static_cast<int>(i % s.out[1]), i /= s.out[1];
  o.t = static_cast<int>(i % s.out[0]), i /= s.out[0];
  if (!p.channels_last) o.m = static_cast<int>(i % s.m), i /= s.m;
  o.n = static_cast<int>(i);
  return o;
}

// Calls `add(kernel position, input position t*H*W + h*W + w)` for every live position of an output.
template <class Add>
DANCE_DEVICE void for_live(const PlainParams& p, const Output& o, const Add& add) {
  const ConvShape& s = p.shape;
  for (int kt = 0; kt < s.kernel[0]; ++kt) {
    const int t = o.t * s.strides[0] - s.pads[0] + kt * s.dilations[0];
    if (t < 0 || t >= s.t || !kept(p.masks.frame, p.masks.as_float, static_cast<long long>(o.n) * s.t + t)) continue;
    for (int kh = 0; kh < s.kernel[1]; ++kh) {
      const int h = o.h * s.strides[1] - s.pads[1] + kh * s.dilations[1];
      if (h < 0 || h >= s.h) continue;
      for (int kw = 0; kw < s.kernel[2]; ++kw) {
        const int w = o.w * s.strides[2] - s.pads[2] + kw * s.dilations[2];
        if (w < 0 || w >= s.w) continue;
        if (!kept(p.masks.feature, p.masks.as_float, (static_cast<long long>(o.n) * s.h + h) * s.w + w)) continue;
        add((kt * s.kernel[1] + kh) * s.kernel[2] + kw, (static_cast<long long>(t) * s.h + h) * s.w + w);
      }
    }
  }
}

template <class T, bool kDepthwise>
DANCE_DEVICE void conv_each_output(const PlainParams& p) {
  const ConvShape& s = p.shape;
  const long long volume = static_cast<long long>(s.t) * s.h * s.w;
  const long long outputs = static_cast<long long>(p.n) * s.m * s.out[0] * s.out[1] * s.out[2];
  const int taps = s.kernel[0] * s.kernel[1] * s.kernel[2];
  const int inputs = s.c / s.group, outputs_each = s.m / s.group;
  const T* weights = static_cast<const T*>(p.weights);
  for (long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; i < outputs;
       i += static_cast<long long>(gridDim.x) * kThreads) {
    const Output o = output_at(p, i);
    const T* x = static_cast<const T*>(p.x) + o.n * volume * s.c;
    const long long pixel_step = p.channels_last ? s.c : 1, channel_step = p.channels_last ? 1 : volume;
    const int first = o.m / outputs_each * inputs;
    float sum = 0.0f;
    const auto add_channel = [&](int j, const auto& weight) {
      if (!kept(p.masks.channel, p.masks.as_float, static_cast<long long>(o.n) * s.c + first + j)) return;
      const T* from = x + (first + j) * channel_step;
      for_live(p, o, [&](int tap, long long position) {
        sum += to_float(from[position * pixel_step]) * to_float(weight(tap));
      });
    };
    if (kDepthwise)
      add_channel(0, [&](int tap) { return weights[static_cast<long long>(tap) * s.c + o.m]; });
    else
      for (int j = 0; j < inputs; ++j)
        add_channel(j, [&](int tap) { return weights[(static_cast<long long>(o.m) * inputs + j) * taps + tap]; });
    sum += to_float(static_cast<const T*>(p.b)[o.m]);
    if (p.z) sum += to_float(static_cast<const T*>(p.z)[o.index]);
    from_float(clamp_below(sum, p.minimum), &static_cast<T*>(p.y)[o.index]);
  }
}

// Weights [rows][columns] -> [columns][rows]; a copy where one of them is 1.
template <class T>
DANCE_DEVICE void transpose_weights_body(const T* w, T* packed, long long rows, long long columns) {
  const long long count = rows * columns, step = static_cast<long long>(gridDim.x) * kThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step)
    packed[i] = w[i % rows * columns + i / rows];
}

}  // namespace cuda
}  // namespace dance
