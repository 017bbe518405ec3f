// Kept channels of the kept frames and features of X -> [T][H][W][pitch], zeros after the last kept channel. What a mask
// drops is not read, and the convolution never looks there. Does nothing where X can be read in place.
#pragma once
#include "elements.cuh"

namespace dance {
namespace cuda {

constexpr int kPackPixels = 32;

// Grid: (blocks of 32 pixels, T, N).
template <class T>
DANCE_DEVICE void pack_activation_body(const PackParams& p) {
  constexpr int kRows = kThreads / 32;
  DANCE_SHARED(float, tile, [32][33]);
  const int n = blockIdx.z, t = blockIdx.y, first = blockIdx.x * kPackPixels;
  const int* plan = p.plan + static_cast<long long>(n) * p.layout.ints;
  if (!plan[kHeadPacked] || !kept(p.masks.frame, p.masks.as_float, static_cast<long long>(n) * p.shape.t + t)) return;
  const unsigned short* list = reinterpret_cast<const unsigned short*>(plan + p.layout.kept);
  const int count = plan[kHeadKept], pitch = plan[kHeadGroups] * p.group_channels;
  const int pixels = p.shape.h * p.shape.w, lane = threadIdx.x % 32, row = threadIdx.x / 32;
  const T* x = static_cast<const T*>(p.x) + n * p.x_stride;
  T* packed = static_cast<T*>(p.packed) + n * p.packed_stride;
  const int frame = t * pixels;
  const long long first_feature = static_cast<long long>(n) * pixels;
  for (int channel = 0; channel < pitch; channel += 32) {
    if (p.channels_last) {
      const int c = channel + lane;
      for (int i = row; i < kPackPixels; i += kRows) {
        const int pixel = first + i;
        if (c >= pitch || pixel >= pixels || !kept(p.masks.feature, p.masks.as_float, first_feature + pixel))
          continue;
        T value;
        from_float(0.0f, &value);
        if (c < count) value = x[(frame + pixel) * p.shape.c + list[c]];
        packed[(frame + pixel) * pitch + c] = value;
      }
    } else {  // through shared memory, so that reads run along pixels and writes along channels
      const int pixel = first + lane;
      const bool alive = pixel < pixels && kept(p.masks.feature, p.masks.as_float, first_feature + pixel);
      for (int i = row; i < 32; i += kRows) {
        const int c = channel + i;
        tile[i][lane] = alive && c < count
                            ? to_float(x[(list[c] * p.shape.t + t) * pixels + pixel]) : 0.0f;
      }
      __syncthreads();
      for (int i = row; i < kPackPixels; i += kRows) {
        if (first + i >= pixels || channel + lane >= pitch) continue;
        from_float(tile[lane][i], &packed[(frame + first + i) * pitch + channel + lane]);
      }
      __syncthreads();
    }
  }
}

// Weights [M, C, taps] -> [M/64][taps][C][64], zeros after the last output channel. A thread a value.
template <class T>
DANCE_DEVICE void pack_weights_body(const T* w, T* packed, int m, int c, int taps) {
  const int count = (m + kTileColumns - 1) / kTileColumns * taps * c * kTileColumns;
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const int rest = i / kTileColumns, channel = rest % c, tap = rest / c % taps;
  const int out = rest / c / taps * kTileColumns + i % kTileColumns;
  if (out < m) packed[i] = w[(out * c + channel) * taps + tap];
  else from_float(0.0f, &packed[i]);
}

}  // namespace cuda
}  // namespace dance
