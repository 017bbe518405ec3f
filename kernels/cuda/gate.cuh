// ActivationGate: two reductions and two decisions. Frames and channels are decided from sums of |X| per (frame, channel), one
// read of X; features from a second read, of kept slices only, and from none where their threshold is 0.
//
// Every sum has a fixed order. A float chain has at most kChain terms before it goes on in double, so a magnitude is good
// to a few parts in 1e6 at worst; decisions are taken in double.
#pragma once
#include "elements.cuh"

namespace dance {
namespace cuda {

constexpr int kChain = 64;
constexpr int kChannelsEach = 32;  // channels of a block that sums a channels-last X: one a lane

struct GateParams {
  int n, c, t, h, w;
  int channels_last, as_float;
  int slices;            // blocks that share a frame's (or the channels', for features in NCTHW) sums
  const void* x;
  const float* tau;
  void* frame_keep;
  void* channel_keep;
  void* feature_keep;
  float* sums;           // [N][slices][T][C], then [N][feature_slices][H W]
  float* feature_sums;
  int feature_slices;
  double* magnitudes;    // [N][max(T, C, HW)]
};

DANCE_DEVICE void set_mask(void* mask, int as_float, long long index, bool keep) {
  if (as_float) static_cast<float*>(mask)[index] = keep ? 1.0f : 0.0f;
  else static_cast<unsigned char*>(mask)[index] = keep ? 1 : 0;
}

DANCE_DEVICE float magnitude(float value) { return value < 0.0f ? -value : value; }

template <class S>
DANCE_DEVICE S warp_sum(S value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(DANCE_ALL_LANES, value, mask);
  return value;
}

// A sum of many floats: short float chains, added up in double.
struct LongSum {
  float part;
  double whole;
  int count;
  DANCE_DEVICE_MEMBER void clear() { part = 0.0f, whole = 0.0, count = 0; }
  DANCE_DEVICE_MEMBER void add(float value) {
    part += value;
    if (++count == kChain) flush();
  }
  DANCE_DEVICE_MEMBER void flush() { whole += part, part = 0.0f, count = 0; }
};

// Channels first: a warp sums runs of pixels of (channel, frame). Grid: (C*T / warps, slices, N).
template <class T>
DANCE_DEVICE void gate_sum_rows(const GateParams& p) {
  const int warp = blockIdx.x * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32, n = blockIdx.z;
  if (warp >= p.c * p.t) return;
  const int pixels = p.h * p.w, slice = blockIdx.y, each = (pixels + p.slices - 1) / p.slices;
  const int end = min(pixels, (slice + 1) * each);
  const T* x = static_cast<const T*>(p.x) + (static_cast<long long>(n) * p.c * p.t + warp) * pixels;
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  int i = slice * each + lane;
  for (; i + 96 < end; i += 128) {
#pragma unroll
    for (int j = 0; j < 4; ++j) sum[j] += magnitude(to_float(x[i + 32 * j]));
  }
  for (; i < end; i += 32) sum[0] += magnitude(to_float(x[i]));
  const float all = warp_sum((sum[0] + sum[1]) + (sum[2] + sum[3]));
  const int c = warp / p.t, t = warp % p.t;
  if (lane == 0) p.sums[((static_cast<long long>(n) * p.slices + slice) * p.t + t) * p.c + c] = all;
}

// Channels last: lanes take channels, warps take pixels. Grid: (C / 32, slices x T, N).
template <class T>
DANCE_DEVICE void gate_sum_columns(const GateParams& p) {
  constexpr int kWarps = kThreads / 32;
  DANCE_SHARED(float, by_warp, [kWarps][kChannelsEach]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = blockIdx.z;
  const int slice = blockIdx.y / p.t, t = blockIdx.y % p.t, c = blockIdx.x * kChannelsEach + lane;
  const int pixels = p.h * p.w, each = (pixels + p.slices - 1) / p.slices, end = min(pixels, (slice + 1) * each);
  const T* x = static_cast<const T*>(p.x) + (static_cast<long long>(n) * p.t + t) * pixels * p.c;
  float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (c < p.c) {
    int i = slice * each + warp;
    for (; i + 3 * kWarps < end; i += 4 * kWarps) {
#pragma unroll
      for (int j = 0; j < 4; ++j) sum[j] += magnitude(to_float(x[static_cast<long long>(i + j * kWarps) * p.c + c]));
    }
    for (; i < end; i += kWarps) sum[0] += magnitude(to_float(x[static_cast<long long>(i) * p.c + c]));
  }
  by_warp[warp][lane] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  __syncthreads();
  if (warp == 0 && c < p.c) {
    float all = by_warp[0][lane];
#pragma unroll
    for (int i = 1; i < kWarps; ++i) all += by_warp[i][lane];
    p.sums[((static_cast<long long>(n) * p.slices + slice) * p.t + t) * p.c + c] = all;
  }
}

struct Extremes { double sum, largest; };

// Over magnitudes [count], by the whole block, in a fixed order.
DANCE_DEVICE Extremes block_extremes(const double* magnitudes, int count) {
  constexpr int kWarps = kThreads / 32;
  DANCE_SHARED(double, sums, [kWarps]);
  DANCE_SHARED(double, maxima, [kWarps]);
  double sum = 0.0, largest = 0.0;
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const double value = magnitudes[i];
    sum += value;
    largest = value > largest ? value : largest;
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    sum += __shfl_xor_sync(DANCE_ALL_LANES, sum, mask);
    const double other = __shfl_xor_sync(DANCE_ALL_LANES, largest, mask);
    largest = other > largest ? other : largest;
  }
  __syncthreads();  // whoever still reads the last call's results
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum, maxima[threadIdx.x / 32] = largest;
  __syncthreads();
  Extremes all = {sums[0], maxima[0]};
#pragma unroll
  for (int i = 1; i < kWarps; ++i) {
    all.sum += sums[i];
    all.largest = maxima[i] > all.largest ? maxima[i] : all.largest;
  }
  return all;
}

constexpr double kTie = 64.0 / (1 << 24);  // as on the CPU

// Keep unless less than tau x the mean, and keep what is largest. A NaN anywhere makes the mean NaN, and nothing is less.
DANCE_DEVICE void decide(const double* magnitudes, int count, float tau, void* mask, int as_float, long long first) {
  const Extremes all = block_extremes(magnitudes, count);
  const double threshold = static_cast<double>(tau) * (all.sum / count), tied = all.largest * (1.0 - kTie);
  for (int i = threadIdx.x; i < count; i += kThreads) {
    const double value = magnitudes[i];
    set_mask(mask, as_float, first + i, !(value < threshold && value < tied));
  }
  __syncthreads();
}

DANCE_DEVICE double* magnitudes_of(const GateParams& p, int n) {
  return p.magnitudes + static_cast<long long>(n) * max(max(p.t, p.c), p.h * p.w);
}

// Sum over the slices of one (frame, channel).
DANCE_DEVICE double sum_of(const GateParams& p, int n, int t, int c) {
  double sum = 0.0;
  for (int slice = 0; slice < p.slices; ++slice)
    sum += p.sums[((static_cast<long long>(n) * p.slices + slice) * p.t + t) * p.c + c];
  return sum;
}

// Grid: N.
DANCE_DEVICE void gate_select_frames_channels_body(const GateParams& p) {
  const int n = blockIdx.x, lane = threadIdx.x % 32;
  double* magnitudes = magnitudes_of(p, n);
  const double pixels = static_cast<double>(p.h) * p.w;
  for (int t = threadIdx.x / 32; t < p.t; t += kThreads / 32) {
    double sum = 0.0;
    for (int c = lane; c < p.c; c += 32) sum += sum_of(p, n, t, c);
    sum = warp_sum(sum);
    if (lane == 0) magnitudes[t] = sum / (pixels * p.c);
  }
  __syncthreads();
  const long long first_frame = static_cast<long long>(n) * p.t;
  decide(magnitudes, p.t, p.tau[3 * n], p.frame_keep, p.as_float, first_frame);
  for (int c = threadIdx.x; c < p.c; c += kThreads) {
    double sum = 0.0;
    int frames = 0;
    for (int t = 0; t < p.t; ++t)
      if (kept(p.frame_keep, p.as_float, first_frame + t)) sum += sum_of(p, n, t, c), ++frames;
    magnitudes[c] = sum / (pixels * frames);
  }
  __syncthreads();
  decide(magnitudes, p.c, p.tau[3 * n + 1], p.channel_keep, p.as_float, static_cast<long long>(n) * p.c);
}

// Channels first: a thread sums one pixel over a share of the channels. Grid: (pixels / threads, slices, N).
template <class T>
DANCE_DEVICE void gate_sum_features_rows(const GateParams& p) {
  const int n = blockIdx.z, pixels = p.h * p.w, pixel = blockIdx.x * kThreads + threadIdx.x, slice = blockIdx.y;
  if (p.tau[3 * n + 2] == 0.0f || pixel >= pixels) return;
  const int each = (p.c + p.feature_slices - 1) / p.feature_slices, end = min(p.c, (slice + 1) * each);
  LongSum sum;
  sum.clear();
  for (int c = slice * each; c < end; ++c) {
    if (!kept(p.channel_keep, p.as_float, static_cast<long long>(n) * p.c + c)) continue;
    for (int t = 0; t < p.t; ++t) {
      if (!kept(p.frame_keep, p.as_float, static_cast<long long>(n) * p.t + t)) continue;
      const long long row = (static_cast<long long>(n) * p.c + c) * p.t + t;
      sum.add(magnitude(to_float(static_cast<const T*>(p.x)[row * pixels + pixel])));
    }
  }
  sum.flush();
  p.feature_sums[(static_cast<long long>(n) * p.feature_slices + slice) * pixels + pixel] = static_cast<float>(sum.whole);
}

// Channels last: a warp sums one pixel. Grid: (pixels / warps, slices of the frames, N).
template <class T>
DANCE_DEVICE void gate_sum_features_columns(const GateParams& p) {
  const int n = blockIdx.z, pixels = p.h * p.w, lane = threadIdx.x % 32, slice = blockIdx.y;
  const int pixel = blockIdx.x * (kThreads / 32) + threadIdx.x / 32;
  if (p.tau[3 * n + 2] == 0.0f || pixel >= pixels) return;
  const int each = (p.t + p.feature_slices - 1) / p.feature_slices, end = min(p.t, (slice + 1) * each);
  LongSum sum;
  sum.clear();
  for (int t = slice * each; t < end; ++t) {
    if (!kept(p.frame_keep, p.as_float, static_cast<long long>(n) * p.t + t)) continue;
    const T* x = static_cast<const T*>(p.x) + ((static_cast<long long>(n) * p.t + t) * pixels + pixel) * p.c;
    for (int c = lane; c < p.c; c += 32)
      if (kept(p.channel_keep, p.as_float, static_cast<long long>(n) * p.c + c)) sum.add(magnitude(to_float(x[c])));
  }
  sum.flush();
  const double all = warp_sum(sum.whole);
  if (lane == 0)
    p.feature_sums[(static_cast<long long>(n) * p.feature_slices + slice) * pixels + pixel] = static_cast<float>(all);
}

// Grid: N.
DANCE_DEVICE void gate_select_features_body(const GateParams& p) {
  const int n = blockIdx.x, pixels = p.h * p.w;
  const float tau = p.tau[3 * n + 2];
  const long long first = static_cast<long long>(n) * pixels;
  if (tau == 0.0f) {
    for (int i = threadIdx.x; i < pixels; i += kThreads) set_mask(p.feature_keep, p.as_float, first + i, true);
    return;
  }
  int frames = 0, channels = 0;
  for (int t = 0; t < p.t; ++t) frames += kept(p.frame_keep, p.as_float, static_cast<long long>(n) * p.t + t);
  for (int c = 0; c < p.c; ++c) channels += kept(p.channel_keep, p.as_float, static_cast<long long>(n) * p.c + c);
  double* magnitudes = magnitudes_of(p, n);
  for (int i = threadIdx.x; i < pixels; i += kThreads) {
    double sum = 0.0;
    for (int slice = 0; slice < p.feature_slices; ++slice)
      sum += p.feature_sums[(static_cast<long long>(n) * p.feature_slices + slice) * pixels + i];
    magnitudes[i] = sum / (static_cast<double>(frames) * channels);
  }
  __syncthreads();
  decide(magnitudes, pixels, tau, p.feature_keep, p.as_float, first);
}

}  // namespace cuda
}  // namespace dance
