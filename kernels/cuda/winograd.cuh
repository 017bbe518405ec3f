// Winograd's minimal filtering F(size x size, 3x3) over H and W, direct over kernel frames: X -> (size + 2)^2 components of
// tiles; a product of each by the convolution tiles of conv.cuh, as a (kT,1,1) convolution whose pixels are tiles; components
// -> Y. Frames and channels that are dropped are not transformed; a tile whose whole patch is dropped is no row of
// the products; dropped pixels of other tiles are zeros that are not read.
//
// Interpolation points 0, +-1, infinity for size 2; 0, +-1/sqrt(2), +-sqrt(2), infinity for size 4 (points p and 1/p lose a
// third of what 0, +-1, +-2 lose to rounding). The same as the CPU kernels' (../cpu/winograd.inc, ../cpu/pack.cc).
#pragma once
#include "plan.cuh"

namespace dance {
namespace cuda {

struct WinogradParams {
  ConvShape shape;          // of the convolution itself
  Masks masks;              // from this item on
  PlanLayout layout;
  const int* plan;          // of the tiles
  void* live_tiles;         // as a feature mask of the tiles
  const void* x;            // one item
  const void* packed;       // the same, kept channels only, channels last
  void* components;         // [(size + 2)^2][T][tiles][pitch]
  const float* products;    // [(size + 2)^2][T'][tiles][M rounded up to 64]
  const void* b;
  const void* z;
  void* y;
  long long component_stride, product_stride;  // elements
  int tiles_h, tiles_w;
  int channels_last;
  float minimum;
};

constexpr float kRoot2 = 1.41421356237309504880f, kHalfRoot2 = 0.70710678118654752440f;

template <int kSize>
struct Points;

template <>
struct Points<2> {
  DANCE_DEVICE void in(const float* d, float* out) {
    out[0] = d[2] - d[0];
    out[1] = d[1] + d[2];
    out[2] = d[2] - d[1];
    out[3] = d[3] - d[1];
  }
  DANCE_DEVICE void out(const float* m, float* y) {
    y[0] = m[0] + (m[1] + m[2]);
    y[1] = (m[1] - m[2]) + m[3];
  }
  DANCE_DEVICE void weights(const float* w, float* out) {
    out[0] = -w[0];
    out[1] = 0.5f * (w[0] + w[1] + w[2]);
    out[2] = 0.5f * (w[0] - w[1] + w[2]);
    out[3] = w[2];
  }
};

template <>
struct Points<4> {
  DANCE_DEVICE void in(const float* d, float* out) {
    const float even1 = d[4] - 2.0f * d[2], odd1 = kHalfRoot2 * d[3] - kRoot2 * d[1];
    const float even2 = d[4] - 0.5f * d[2], odd2 = kRoot2 * d[3] - kHalfRoot2 * d[1];
    out[0] = (d[0] + d[4]) - 2.5f * d[2];
    out[1] = even1 + odd1;
    out[2] = even1 - odd1;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = (d[1] + d[5]) - 2.5f * d[3];
  }
  DANCE_DEVICE void out(const float* m, float* y) {
    const float sum1 = m[1] + m[2], difference1 = m[1] - m[2];
    const float sum2 = m[3] + m[4], difference2 = m[3] - m[4];
    y[0] = m[0] + (sum1 + sum2);
    y[1] = kHalfRoot2 * difference1 + kRoot2 * difference2;
    y[2] = 0.5f * sum1 + 2.0f * sum2;
    y[3] = (0.5f * kHalfRoot2) * difference1 + (2.0f * kRoot2) * difference2 + m[5];
  }
  DANCE_DEVICE void weights(const float* w, float* out) {
    const float even1 = (-2.0f / 3.0f) * w[0] - (1.0f / 3.0f) * w[2], odd1 = (-2.0f / 3.0f * kHalfRoot2) * w[1];
    const float even2 = (1.0f / 6.0f) * w[0] + (1.0f / 3.0f) * w[2], odd2 = (kRoot2 / 6.0f) * w[1];
    out[0] = w[0];
    out[1] = even1 + odd1;
    out[2] = even1 - odd1;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = w[2];
  }
};

// Whether a pixel of a tile's patch lies in the input and is kept.
DANCE_DEVICE bool patch_kept(const WinogradParams& p, int h, int w) {
  return h >= 0 && h < p.shape.h && w >= 0 && w < p.shape.w && kept(p.masks.feature, p.masks.as_float, h * p.shape.w + w);
}

// A thread a tile.
template <int kSize>
DANCE_DEVICE void winograd_live_tiles(const WinogradParams& p) {
  const int tile = blockIdx.x * kThreads + threadIdx.x;
  if (tile >= p.tiles_h * p.tiles_w) return;
  const int h = tile / p.tiles_w * kSize - p.shape.pads[1], w = tile % p.tiles_w * kSize - p.shape.pads[2];
  bool live = false;
#pragma unroll 1
  for (int i = 0; i < (kSize + 2) * (kSize + 2) && !live; ++i)
    live = patch_kept(p, h + i / (kSize + 2), w + i % (kSize + 2));
  if (p.masks.as_float) static_cast<float*>(p.live_tiles)[tile] = live ? 1.0f : 0.0f;
  else static_cast<unsigned char*>(p.live_tiles)[tile] = live;
}

// A thread one channel of one tile of one frame. Grid: (tiles x pitch / threads, T).
template <class T, int kSize>
DANCE_DEVICE void winograd_input(const WinogradParams& p) {
  constexpr int n = kSize + 2;
  const int pitch = p.plan[kHeadGroups] * Element<T>::kGroupChannels, t = blockIdx.y;
  const int i = blockIdx.x * kThreads + threadIdx.x, tiles = p.tiles_h * p.tiles_w;
  if (i >= tiles * pitch || !kept(p.masks.frame, p.masks.as_float, t)) return;
  const int tile = i / pitch, c = i % pitch;
  if (!kept(p.live_tiles, p.masks.as_float, tile)) return;
  const int h = tile / p.tiles_w * kSize - p.shape.pads[1], w = tile % p.tiles_w * kSize - p.shape.pads[2];
  const T* x = static_cast<const T*>(p.plan[kHeadPacked] ? p.packed : p.x) + t * p.shape.h * p.shape.w * pitch + c;
  float half[n][n];  // [column][component along H]
#pragma unroll
  for (int column = 0; column < n; ++column) {
    float d[n];
#pragma unroll
    for (int row = 0; row < n; ++row)
      d[row] = patch_kept(p, h + row, w + column) ? to_float(x[((h + row) * p.shape.w + w + column) * pitch]) : 0.0f;
    Points<kSize>::in(d, half[column]);
  }
  T* to = static_cast<T*>(p.components) + t * tiles * pitch + i;
#pragma unroll
  for (int row = 0; row < n; ++row) {
    float d[n], out[n];
#pragma unroll
    for (int column = 0; column < n; ++column) d[column] = half[column][row];
    Points<kSize>::in(d, out);
#pragma unroll
    for (int column = 0; column < n; ++column) from_float(out[column], to + (row * n + column) * p.component_stride);
  }
}

// Warps take neighbouring tiles of a row of tiles, lanes output channels. Grid: (T' x tile rows x tile columns / warps, M / 32).
template <class T, int kSize>
DANCE_DEVICE void winograd_output(const WinogradParams& p) {
  constexpr int n = kSize + 2, kTiles = kThreads / 32, kWide = kTiles * kSize;
  DANCE_SHARED(float, stage, [32][kSize * kWide + 1]);
  const int groups = (p.tiles_w + kTiles - 1) / kTiles;
  const int group = blockIdx.x % groups, tile_h = blockIdx.x / groups % p.tiles_h, t = blockIdx.x / groups / p.tiles_h;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, tile_w = group * kTiles + warp;
  const int m0 = blockIdx.y * 32, m = m0 + lane;
  const int padded = (p.shape.m + kTileColumns - 1) / kTileColumns * kTileColumns;
  const T* b = static_cast<const T*>(p.b);
  const T* z = static_cast<const T*>(p.z);
  T* y = static_cast<T*>(p.y);
  float out[kSize][kSize];  // [column][row]
  if (tile_w < p.tiles_w && m < p.shape.m) {
    const long long at = static_cast<long long>((t * p.tiles_h + tile_h) * p.tiles_w + tile_w) * padded + m;
    float half[n][kSize];  // [component along H][pixel along W]
#pragma unroll
    for (int row = 0; row < n; ++row) {
      float d[n];
#pragma unroll
      for (int column = 0; column < n; ++column) d[column] = p.products[(row * n + column) * p.product_stride + at];
      Points<kSize>::out(d, half[row]);
    }
#pragma unroll
    for (int column = 0; column < kSize; ++column) {
      float d[n];
#pragma unroll
      for (int row = 0; row < n; ++row) d[row] = half[row][column];
      Points<kSize>::out(d, out[column]);
    }
  }
  const int h0 = tile_h * kSize, w0 = group * kWide, frame = t * p.shape.out[1];
  if (p.channels_last) {
    if (tile_w >= p.tiles_w || m >= p.shape.m) return;
#pragma unroll
    for (int row = 0; row < kSize; ++row)
#pragma unroll
      for (int column = 0; column < kSize; ++column) {
        const int h = h0 + row, w = tile_w * kSize + column;
        if (h < p.shape.out[1] && w < p.shape.out[2])
          finish(b, z, y, p.minimum, out[column][row], m,
                 static_cast<long long>((frame + h) * p.shape.out[2] + w) * p.shape.m + m);
      }
    return;
  }
  // NCTHW: through shared memory, so that neighbouring threads write neighbouring pixels
#pragma unroll
  for (int row = 0; row < kSize; ++row)
#pragma unroll
    for (int column = 0; column < kSize; ++column) stage[lane][row * kWide + warp * kSize + column] = out[column][row];
  __syncthreads();
  for (int i = threadIdx.x; i < 32 * kSize * kWide; i += kThreads) {
    const int w = w0 + i % kWide, h = h0 + i / kWide % kSize, channel = i / (kWide * kSize);
    if (w >= p.shape.out[2] || h >= p.shape.out[1] || m0 + channel >= p.shape.m) continue;
    finish(b, z, y, p.minimum, stage[channel][i % (kWide * kSize)], m0 + channel,
           static_cast<long long>((m0 + channel) * p.shape.out[0] * p.shape.out[1] + frame + h) * p.shape.out[2] + w);
  }
}

// Weights [M, C, kT, 3, 3] -> [components][M/64][kT][C][64]. A thread all components of one (output, input, kernel frame).
template <class T, int kSize>
DANCE_DEVICE void winograd_weights(const T* w, T* packed, int m, int c, int kernel_frames) {
  constexpr int n = kSize + 2;
  const int count = (m + kTileColumns - 1) / kTileColumns * kernel_frames * c * kTileColumns;
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= count) return;
  const int rest = i / kTileColumns, channel = rest % c, frame = rest / c % kernel_frames;
  const int out = rest / c / kernel_frames * kTileColumns + i % kTileColumns;
  const T* from = w + ((static_cast<long long>(out) * c + channel) * kernel_frames + frame) * 9;
  float half[3][n];  // [column][component along H]
#pragma unroll
  for (int column = 0; column < 3; ++column) {
    float d[3];
#pragma unroll
    for (int row = 0; row < 3; ++row) d[row] = out < m ? to_float(from[row * 3 + column]) : 0.0f;
    Points<kSize>::weights(d, half[column]);
  }
#pragma unroll
  for (int row = 0; row < n; ++row) {
    float d[3], values[n];
#pragma unroll
    for (int column = 0; column < 3; ++column) d[column] = half[column][row];
    Points<kSize>::weights(d, values);
#pragma unroll
    for (int column = 0; column < n; ++column)
      from_float(values[column], packed + static_cast<long long>(row * n + column) * count + i);
  }
}

}  // namespace cuda
}  // namespace dance
