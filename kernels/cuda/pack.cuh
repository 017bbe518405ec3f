// Kept channels of the kept frames and features of X -> [T][H][W][pitch], zeros after the last kept channel. What a mask
// drops is neither read nor written: the convolution never looks there. Does nothing where X can be read in place.
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
  const long long frame = static_cast<long long>(t) * pixels;
  for (int channel = 0; channel < pitch; channel += 32) {
    if (p.channels_last) {
      const int c = channel + lane;
      for (int i = row; i < kPackPixels; i += kRows) {
        const int pixel = first + i;
        if (c >= pitch || pixel >= pixels || !kept(p.masks.feature, p.masks.as_float, n * static_cast<long long>(pixels) + pixel))
          continue;
        T value;
        from_float(0.0f, &value);
        if (c < count) value = x[(frame + pixel) * p.shape.c + list[c]];
        packed[(frame + pixel) * pitch + c] = value;
      }
    } else {  // through shared memory, so that reads run along pixels and writes along channels
      const int pixel = first + lane;
      const bool alive = pixel < pixels && kept(p.masks.feature, p.masks.as_float, n * static_cast<long long>(pixels) + pixel);
      for (int i = row; i < 32; i += kRows) {
        const int c = channel + i;
        tile[i][lane] = alive && c < count
                            ? to_float(x[(static_cast<long long>(list[c]) * p.shape.t + t) * pixels + pixel]) : 0.0f;
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

// Weights [M, C, taps] -> [M/64][taps][C][64], zeros after the last output channel. Grid-stride over the result.
template <class T>
DANCE_DEVICE void pack_weights_body(const T* w, T* packed, int m, int c, int taps) {
  const long long count = static_cast<long long>((m + kTileColumns - 1) / kTileColumns) * taps * c * kTileColumns;
  const long long step = static_cast<long long>(gridDim.x) * kThreads;
  for (long long i = static_cast<long long>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    const int column = static_cast<int>(i % kTileColumns);
    const long long rest = i / kTileColumns;
    const int channel = static_cast<int>(rest % c), tap = static_cast<int>(rest / c % taps);
    const long long out = rest / c / taps * kTileColumns + column;
    if (out < m) packed[i] = w[(out * c + channel) * taps + tap];
    else from_float(0.0f, &packed[i]);
  }
}

}  // namespace cuda
}  // namespace dance
