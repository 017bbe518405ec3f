// The part of CUDA C++ that the kernels of this folder use, for g++: the same kernel source runs on the host.
//
// One fiber (ucontext) per CUDA thread, blocks one after the other. A fiber runs until it meets a barrier, a shuffle or its
// end; which fiber runs next is drawn at random (forward, backward or shuffled, per round), so a missing barrier shows as a
// wrong result. Shared arrays are statics, filled with 0xff (NaN) before every block. A barrier that not all threads reach,
// and an unequal exit, end the program with a line. What it cannot see: true races, coalescing, bank conflicts, limits
// of a launch (ptxas shows those), and how the device contracts float arithmetic.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __ldg(pointer) (*(pointer))

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(8) int2 { int x, y; };
struct float2 { float x, y; };
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return uint4{x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return float4{x, y, z, w}; }
inline int2 make_int2(int x, int y) { return int2{x, y}; }
inline float2 make_float2(float x, float y) { return float2{x, y}; }

extern dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {

void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel);
void seed(unsigned value);             // of the order in which fibers run
bool shared_array(void* data, std::size_t bytes);
void* dynamic_shared();
void block_barrier();
void warp_barrier();
uint64_t* warp_slots();                // 32 values, exchanged by the next warp_barrier
int lane();
long launches();                       // since the program began
extern long long fmas;                 // the same

template <class T>
T exchange(T value, int source) {
  static_assert(sizeof(T) <= 8, "shuffles move up to 8 bytes");
  uint64_t* slots = warp_slots();
  std::memcpy(&slots[lane()], &value, sizeof value);
  warp_barrier();
  std::memcpy(&value, &slots[source & 31], sizeof value);
  return value;
}

}  // namespace shim

#define DANCE_SHARED(type, name, extent)                                            \
  alignas(16) static type name extent;                                              \
  static const bool name##_is_known = shim::shared_array(&name, sizeof name);       \
  (void)name##_is_known
#define DANCE_COUNT_FMAS(count) (shim::fmas += (count))
#define DANCE_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(shim::dynamic_shared())
#define DANCE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ((void)(stream), shim::launch((grid), (block), (shared_bytes), [=] { kernel(__VA_ARGS__); }))

inline void __syncthreads() { shim::block_barrier(); }
inline void __syncwarp(unsigned = 0xffffffffu) { shim::warp_slots(); shim::warp_barrier(); }
template <class T>
T __shfl_sync(unsigned, T value, int source) { return shim::exchange(value, source); }
template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) { return shim::exchange(value, shim::lane() ^ mask); }
inline unsigned __ballot_sync(unsigned, int predicate) {
  uint64_t* slots = shim::warp_slots();
  slots[shim::lane()] = predicate != 0;
  shim::warp_barrier();
  unsigned bits = 0;
  for (int i = 0; i < 32; ++i) bits |= unsigned(slots[i] != 0) << i;
  return bits;
}
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int atomicAdd(int* at, int value) { const int before = *at; *at += value; return before; }
inline unsigned atomicOr(unsigned* at, unsigned value) { const unsigned before = *at; *at |= value; return before; }

inline float __uint_as_float(unsigned bits) { float f; std::memcpy(&f, &bits, 4); return f; }
inline unsigned __float_as_uint(float f) { unsigned bits; std::memcpy(&bits, &f, 4); return bits; }
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }

// Halves: one rounding per operation, as on the device.
struct __half { _Float16 value; };
struct alignas(4) __half2 { __half x, y; };
inline __half __float2half_rn(float f) { return __half{_Float16(f)}; }
inline float __half2float(__half h) { return float(h.value); }
inline __half2 __float2half2_rn(float f) { return __half2{__float2half_rn(f), __float2half_rn(f)}; }
inline __half2 __floats2half2_rn(float a, float b) { return __half2{__float2half_rn(a), __float2half_rn(b)}; }
inline float2 __half22float2(__half2 h) { return float2{__half2float(h.x), __half2float(h.y)}; }
inline __half2 __low2half2(__half2 h) { return __half2{h.x, h.x}; }
inline __half2 __high2half2(__half2 h) { return __half2{h.y, h.y}; }
inline __half __hfma(__half a, __half b, __half c) {
  return __half{_Float16(float(a.value) * float(b.value) + float(c.value))};  // the product is exact
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {
  return __half2{__hfma(a.x, b.x, c.x), __hfma(a.y, b.y, c.y)};
}
