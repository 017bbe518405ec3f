// One vector of floats of the instruction set being compiled for (DANCE_VECTOR floats wide), and halves.
// GCC's and clang's vector extension: the same source gives AVX-512, AVX2, SSE2 and NEON code. Everything is static,
// and nothing of the C++ library is used, so that no code compiled for one instruction set is linked into another.
#pragma once
#include <cstddef>
#include <cstdint>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dance {
namespace DANCE_ISA {

constexpr int kVector = DANCE_VECTOR;

typedef float Vec __attribute__((vector_size(4 * DANCE_VECTOR)));
typedef int32_t Index __attribute__((vector_size(4 * DANCE_VECTOR)));
typedef int32_t UnalignedIndex __attribute__((vector_size(4 * DANCE_VECTOR), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * DANCE_VECTOR)));
typedef float UnalignedVec __attribute__((vector_size(4 * DANCE_VECTOR), aligned(4), may_alias));
typedef uint32_t UnalignedBits __attribute__((vector_size(4 * DANCE_VECTOR), aligned(4), may_alias));
typedef float Vec4 __attribute__((vector_size(16)));
typedef float UnalignedVec4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t Index4 __attribute__((vector_size(16)));

static inline Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
// Loaded once for all its uses: GCC would rather read memory again in every product, and reading is what bounds some loops.
static inline Vec load_once(const float* p) {
  Vec v = load(p);
#if defined(__AVX512F__)
  __asm__("" : "+v"(v));
#elif defined(__x86_64__)
  __asm__("" : "+x"(v));
#elif defined(__aarch64__) && DANCE_VECTOR == 4
  __asm__("" : "+w"(v));
#endif
  return v;
}
static inline void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
// The first lanes of a vector, where there are fewer floats than it has: nothing past them is read or written.
#if defined(__AVX512F__)
typedef __mmask16 Part;
static inline Part part_of(int count) { return Part((1u << count) - 1); }
static inline Vec load_part(const float* p, Part part) { return (Vec)_mm512_maskz_loadu_ps(part, p); }  // others: 0
static inline void store_part(float* p, Vec v, Part part) { _mm512_mask_storeu_ps(p, part, (__m512)v); }
#else
typedef int Part;
static inline Part part_of(int count) { return count; }
static inline void copy_part(const float* from, float* to, Part part) {
  int i = 0;
  for (; i + 4 <= part; i += 4) __builtin_memcpy(to + i, from + i, 16);
  if (part & 2) __builtin_memcpy(to + i, from + i, 8), i += 2;
  if (part & 1) to[i] = from[i];
}
static inline Vec load_part(const float* p, Part part) {
  float lanes[kVector] = {};
  copy_part(p, lanes, part);
  return load(lanes);
}
static inline void store_part(float* p, Vec v, Part part) {
  float lanes[kVector];
  store(lanes, v);
  copy_part(lanes, p, part);
}
#endif
static inline Vec4 load4(const float* p) { return *reinterpret_cast<const UnalignedVec4*>(p); }
static inline void store4(float* p, Vec4 v) { *reinterpret_cast<UnalignedVec4*>(p) = v; }
// The larger, lane by lane; a NaN of b stays one.
static inline Vec4 larger4(Vec4 a, Vec4 b) {
  const Index4 taken = a > b;
  return (Vec4)(((Index4)a & taken) | ((Index4)b & ~taken));
}
// The larger one; a NaN in value stays one. Not by masks of bits: GCC makes all ones for them out of the register's old
// content, for which the processor waits, from one turn of a loop to the next.
static inline Vec at_least(Vec minimum, Vec value) { return minimum > value ? minimum : value; }
static inline Vec absolute(Vec v) { return (Vec)((Bits)v & 0x7fffffffu); }
// Lane i gets lane index[i] of v, or of low and high one after the other.
static inline Vec picked(Vec v, Index index) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_permutexvar_ps(0xffff, (__m512i)index, (__m512)v);  // GCC warns of the form without a mask
#elif defined(__AVX2__)
  return (Vec)_mm256_permutevar8x32_ps((__m256)v, (__m256i)index);
#else
  Vec result;
  for (int i = 0; i < kVector; ++i) result[i] = v[index[i]];
  return result;
#endif
}
static inline Vec picked(Vec low, Vec high, Index index) {
#if defined(__AVX512F__)
  return (Vec)_mm512_permutex2var_ps((__m512)low, (__m512i)index, (__m512)high);
#elif defined(__AVX2__)
  const Bits from_high = (Bits)(index >= kVector);
  return (Vec)(((Bits)picked(high, index) & from_high) | ((Bits)picked(low, index) & ~from_high));
#else
  Vec result;
  for (int i = 0; i < kVector; ++i) result[i] = index[i] < kVector ? low[index[i]] : high[index[i] - kVector];
  return result;
#endif
}
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

#if defined(__clang__)
#define DANCE_SHUFFLE4(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#else
#define DANCE_SHUFFLE4(a, b, i, j, k, l) __builtin_shuffle(a, b, (Index4){i, j, k, l})
#endif

// rows[i][j] -> rows[j][i]
static inline void transpose4(Vec4 rows[4]) {
  const Vec4 low01 = DANCE_SHUFFLE4(rows[0], rows[1], 0, 4, 1, 5), high01 = DANCE_SHUFFLE4(rows[0], rows[1], 2, 6, 3, 7);
  const Vec4 low23 = DANCE_SHUFFLE4(rows[2], rows[3], 0, 4, 1, 5), high23 = DANCE_SHUFFLE4(rows[2], rows[3], 2, 6, 3, 7);
  rows[0] = DANCE_SHUFFLE4(low01, low23, 0, 1, 4, 5);
  rows[1] = DANCE_SHUFFLE4(low01, low23, 2, 3, 6, 7);
  rows[2] = DANCE_SHUFFLE4(high01, high23, 0, 1, 4, 5);
  rows[3] = DANCE_SHUFFLE4(high01, high23, 2, 3, 6, 7);
}

static inline float float_from_bits(uint32_t bits) { float f; __builtin_memcpy(&f, &bits, 4); return f; }
static inline uint32_t bits_from_float(float f) { uint32_t bits; __builtin_memcpy(&bits, &f, 4); return bits; }

// Written without branches that a vectoriser cannot turn into selects.
static inline float float_from_half(uint16_t half) {
  const uint32_t magnitude = half & 0x7fffu, sign = uint32_t(half & 0x8000u) << 16;
  const uint32_t small = bits_from_float(float(int32_t(magnitude)) * 5.9604644775390625e-8f);  // subnormal: x 2^-24
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t special = 0x7f800000u | ((magnitude & 0x3ffu) << 13);
  const uint32_t bits = magnitude < 0x400u ? small : (magnitude < 0x7c00u ? normal : special);
  return float_from_bits(bits | sign);
}

// Rounds to nearest, ties to even, as numpy and ONNX Runtime do.
static inline uint16_t half_from_float(float value) {
  const uint32_t bits = bits_from_float(value), magnitude = bits & 0x7fffffffu;
  const uint32_t small = bits_from_float(float_from_bits(magnitude) + 0.5f) - (126u << 23);  // the add rounds
  const uint32_t normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1u)) >> 13;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  const uint32_t half = magnitude < 0x38800000u ? small : (magnitude < 0x47800000u ? normal : special);
  return uint16_t(half | ((bits >> 16) & 0x8000u));
}

// Rounds to nearest, ties to even; a NaN becomes a quiet one.
static inline uint32_t bf16_from_float(float value) {
  const uint32_t bits = bits_from_float(value);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  return (bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded;
}

}  // namespace DANCE_ISA
}  // namespace dance
