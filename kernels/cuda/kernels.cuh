// The kernels of variants.inc, under the names they have there. Compiles with nvcc, NVRTC and the host shim.
#pragma once
#include "conv.cuh"
#include "gate.cuh"
#include "pack.cuh"
#include "plain.cuh"
#include "plan.cuh"
#include "winograd.cuh"

namespace dance {
namespace cuda {

#define DANCE_CONV_TILE(name, element, warps, blocks) \
  extern "C" __global__ void __launch_bounds__(32 * warps, blocks) name(ConvParams p) { conv_tile<element, warps>(p); }
#define DANCE_KERNEL(name, blocks, params, body) \
  extern "C" __global__ void __launch_bounds__(kThreads, blocks) name(params p) { body(p); }
#define DANCE_PACK_KERNEL(name, parameters, arguments, body) \
  extern "C" __global__ void __launch_bounds__(kThreads) name parameters { body arguments; }
#include "variants.inc"

}  // namespace cuda
}  // namespace dance
