// What the kernels need of their compiler, and nothing else: nvcc, NVRTC, or g++ with the shim that runs them on the host.
// Shared arrays are declared by the macros below, so that the shim can poison them before every block; it also counts
// the multiply-adds of the inner loops, to show that what a mask drops is not computed.
#pragma once

#ifdef DANCE_CUDA_SHIM
#include "shim/cuda_shim.h"
#else
#include <cuda_fp16.h>
#define DANCE_SHARED(type, name, extent) __shared__ __align__(16) type name extent
#define DANCE_DYNAMIC_SHARED(type, name) extern __shared__ __align__(16) type name[]
#define DANCE_COUNT_FMAS(count)
#define DANCE_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#endif

#define DANCE_DEVICE static __device__ __forceinline__
#define DANCE_DEVICE_MEMBER __device__ __forceinline__
#define DANCE_ALL_LANES 0xffffffffu
