// float32 and float16 as the kernels see them: how a value is read and written, and the inner product of a tile.
#pragma once
#include "device.h"
#include "params.h"

namespace dance {
namespace cuda {

DANCE_DEVICE float to_float(float value) { return value; }
DANCE_DEVICE float to_float(__half value) { return __half2float(value); }
DANCE_DEVICE void from_float(float value, float* out) { *out = value; }
DANCE_DEVICE void from_float(float value, __half* out) { *out = __float2half_rn(value); }

// A NaN stays one.
DANCE_DEVICE float clamp_below(float value, float minimum) { return value < minimum ? minimum : value; }

// Adds bias and residual, clamps, writes: the end of every route.
template <class T>
DANCE_DEVICE void finish(const T* b, const T* z, T* y, float minimum, float sum, int m, long long index) {
  sum += to_float(b[m]);
  if (z) sum += to_float(z[index]);
  from_float(clamp_below(sum, minimum), &y[index]);
}

DANCE_DEVICE bool kept(const void* mask, int as_float, long long index) {
  return as_float ? static_cast<const float*>(mask)[index] != 0.0f
                  : static_cast<const unsigned char*>(mask)[index] != 0;
}

// The register stays what it is; only its type changes.
DANCE_DEVICE __half2 as_half2(unsigned bits) { return *reinterpret_cast<__half2*>(&bits); }

DANCE_DEVICE void words_of(const uint4& quad, unsigned* words) {
  words[0] = quad.x;
  words[1] = quad.y;
  words[2] = quad.z;
  words[3] = quad.w;
}

template <class T>
struct Element;

// 8 rows x 8 columns of sums in float32. Columns: 4 lanes' quads apart, so that a warp's loads of B touch every bank once.
template <>
struct Element<float> {
  static constexpr int kGroupChannels = 4;
  static constexpr int kRowQuads = 16;        // loads of 16 bytes in 64 columns of weights
  static constexpr int kPromoteSlabs = 1 << 30;
  DANCE_DEVICE int column(int lane8, int j) { return (j >> 2) * 32 + lane8 * 4 + (j & 3); }

  struct Sums {
    float v[8][8];
    DANCE_DEVICE_MEMBER void clear() {
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 8; ++j) v[i][j] = 0.0f;
    }
    DANCE_DEVICE_MEMBER void promote() {}
    // a: 8 words x rows of this slab, b: 8 channels x 64 columns
    template <int kPitch>
    DANCE_DEVICE_MEMBER void add(const unsigned* a, const unsigned* b, int row4, int lane8) {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        unsigned rows[8], columns[8];
        words_of(*reinterpret_cast<const uint4*>(a + k * kPitch + row4), rows);
        words_of(*reinterpret_cast<const uint4*>(a + k * kPitch + row4 + 16), rows + 4);
        words_of(*reinterpret_cast<const uint4*>(b + k * 64 + lane8 * 4), columns);
        words_of(*reinterpret_cast<const uint4*>(b + k * 64 + 32 + lane8 * 4), columns + 4);
        // four rows at a time, down and up: of the orders tried, the one that leaves the fewest operands to wait for
        // each other's register banks on sm_53
#pragma unroll
        for (int i = 0; i < 8; i += 4)
#pragma unroll
          for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int down = 0; down < 4; ++down) {
              const int row = i + (j % 2 ? 3 - down : down);
              v[row][j] += __uint_as_float(rows[row]) * __uint_as_float(columns[j]);
            }
      }
    }
    DANCE_DEVICE_MEMBER float at(int i, int j) const { return v[i][j]; }
  };
};

// Two neighbouring output channels in the lanes of a half2; one input channel of a word in both lanes. Half sums lose too
// much over long reductions, so they are added to float32 every kPromoteSlabs x 16 = 128 channels.
template <>
struct Element<__half> {
  static constexpr int kGroupChannels = 8;
  static constexpr int kRowQuads = 8;
  static constexpr int kPromoteSlabs = 8;
  DANCE_DEVICE int column(int lane8, int j) { return lane8 * 8 + j; }

  struct Sums {
    __half2 part[8][4];
    float v[8][8];
    DANCE_DEVICE_MEMBER void clear() {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
#pragma unroll
        for (int j = 0; j < 8; ++j) v[i][j] = 0.0f;
#pragma unroll
        for (int j = 0; j < 4; ++j) part[i][j] = __float2half2_rn(0.0f);
      }
    }
    DANCE_DEVICE_MEMBER void promote() {
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float2 two = __half22float2(part[i][j]);
          v[i][2 * j] += two.x;
          v[i][2 * j + 1] += two.y;
          part[i][j] = __float2half2_rn(0.0f);
        }
    }
    template <int kPitch>
    DANCE_DEVICE_MEMBER void add(const unsigned* a, const unsigned* b, int row4, int lane8) {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        unsigned rows[8], columns[8];
        words_of(*reinterpret_cast<const uint4*>(a + k * kPitch + row4), rows);
        words_of(*reinterpret_cast<const uint4*>(a + k * kPitch + row4 + 16), rows + 4);
        words_of(*reinterpret_cast<const uint4*>(b + (2 * k) * 32 + lane8 * 4), columns);
        words_of(*reinterpret_cast<const uint4*>(b + (2 * k + 1) * 32 + lane8 * 4), columns + 4);
        // the order as in float32; columns 0 to 3 belong to a word's lower channel, 4 to 7 to its upper one
#pragma unroll
        for (int i = 0; i < 8; i += 4)
#pragma unroll
          for (int j = 0; j < 8; ++j)
#pragma unroll
            for (int down = 0; down < 4; ++down) {
              const int row = i + (j % 2 ? 3 - down : down);
              const __half2 words = as_half2(rows[row]);
              const __half2 channel = j < 4 ? __low2half2(words) : __high2half2(words);
              part[row][j % 4] = __hfma2(channel, as_half2(columns[j]), part[row][j % 4]);
            }
      }
    }
    DANCE_DEVICE_MEMBER float at(int i, int j) const { return v[i][j]; }
  };
};

}  // namespace cuda
}  // namespace dance
