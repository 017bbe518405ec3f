// dance_cuda.h by C calls, for benchmarks and checks through ctypes. Not a stable interface; plugins use dance_cuda.h.
#include <cstdio>

#include "dance_cuda.h"
#include "device.h"

#define DANCE_EXPORT extern "C" __attribute__((visibility("default")))

struct DanceCudaConv {
  int64_t x_shape[5], w_shape[5];  // N, C, T, H, W, whatever the layout; M, C/group, kT, kH, kW
  int64_t strides[3], pads[6], dilations[3], group;
  int32_t channels_last, type, mask_type;  // type: 0 float32, 1 float16; mask_type: 0 bytes, 1 float32
  int32_t algorithm, multiprocessors;      // algorithm: dance::cuda::Algorithm; multiprocessors: 0 asks the device
  float minimum;
};

namespace {

using namespace dance::cuda;

Status setup_of(const DanceCudaConv& c, ConvSetup* setup) {
  dance::ConvGeometry& g = setup->geometry;
  g.n = c.x_shape[0], g.c = c.x_shape[1], g.t = c.x_shape[2], g.h = c.x_shape[3], g.w = c.x_shape[4];
  g.m = c.w_shape[0];
  for (int i = 0; i < 3; ++i) g.kernel[i] = c.w_shape[2 + i], g.strides[i] = c.strides[i], g.dilations[i] = c.dilations[i];
  for (int i = 0; i < 6; ++i) g.pads[i] = c.pads[i];
  g.group = c.group, g.channels_last = c.channels_last != 0, g.type = dance::Type(c.type);
  setup->mask_type = MaskType(c.mask_type), setup->algorithm = Algorithm(c.algorithm), setup->minimum = c.minimum;
  setup->multiprocessors = c.multiprocessors ? c.multiprocessors : multiprocessor_count();
  return conv_init(setup);
}

GateSetup gate_setup(const int64_t* shape, const int32_t* kinds) {
  GateSetup setup;
  setup.n = shape[0], setup.c = shape[1], setup.t = shape[2], setup.h = shape[3], setup.w = shape[4];
  setup.channels_last = kinds[0] != 0, setup.type = dance::Type(kinds[1]), setup.mask_type = MaskType(kinds[2]);
  return setup;
}

}  // namespace

DANCE_EXPORT const char* dance_cuda_status(int status) { return status_text(Status(status)); }
DANCE_EXPORT int dance_cuda_last_error() { return last_cuda_error(); }

// Bytes of packed weights and of the workspace, the algorithm taken, and the variant's name.
DANCE_EXPORT int dance_cuda_conv_sizes(const DanceCudaConv* conv, int64_t* packed, int64_t* workspace, int32_t* algorithm,
                                       char* variant, int32_t variant_bytes) {
  ConvSetup setup;
  Status status = setup_of(*conv, &setup);
  std::size_t packed_size = 0, workspace_size = 0;
  if (status == Status::ok) status = packed_weights_bytes(setup, &packed_size);
  if (status == Status::ok) status = workspace_bytes(setup, &workspace_size);
  *packed = int64_t(packed_size), *workspace = int64_t(workspace_size), *algorithm = int32_t(setup.algorithm);
  std::snprintf(variant, std::size_t(variant_bytes), "%s", conv_variant(setup));
  return int(status);
}

DANCE_EXPORT int dance_cuda_pack_weights(const DanceCudaConv* conv, const void* w, void* packed, Stream stream) {
  ConvSetup setup;
  const Status status = setup_of(*conv, &setup);
  return int(status == Status::ok ? pack_weights(setup, w, packed, stream) : status);
}

// tensors: x, packed weights, b, the three masks, z or null, y, workspace.
DANCE_EXPORT int dance_cuda_conv(const DanceCudaConv* conv, void* const* tensors, int64_t bytes, Stream stream) {
  ConvSetup setup;
  const Status status = setup_of(*conv, &setup);
  if (status != Status::ok) return int(status);
  const ConvTensors all = {tensors[0], tensors[1], tensors[2], tensors[3], tensors[4],
                           tensors[5], tensors[6], tensors[7], tensors[8], std::size_t(bytes)};
  return int(gated_conv3d(setup, all, stream));
}

// kinds: channels_last, type, mask_type.
DANCE_EXPORT int dance_cuda_gate_workspace(const int64_t* shape, const int32_t* kinds, int64_t* bytes) {
  std::size_t size = 0;
  const Status status = gate_workspace_bytes(gate_setup(shape, kinds), &size);
  *bytes = int64_t(size);
  return int(status);
}

// tensors: x, tau, the three masks, workspace.
DANCE_EXPORT int dance_cuda_gate(const int64_t* shape, const int32_t* kinds, void* const* tensors, int64_t bytes,
                                 Stream stream) {
  const GateTensors all = {tensors[0], static_cast<const float*>(tensors[1]), tensors[2], tensors[3], tensors[4],
                           tensors[5], std::size_t(bytes)};
  return int(gate(gate_setup(shape, kinds), all, stream));
}

// ---- what the arithmetic units give at most: nothing but FMAs in registers ----

constexpr int kPeakSteps = 1024, kPeakChains = 16;

extern "C" __global__ void fma_peak(float* out, float factor) {
  float chains[kPeakChains];
  for (int i = 0; i < kPeakChains; ++i) chains[i] = static_cast<float>(threadIdx.x + i);
#pragma unroll 4
  for (int step = 0; step < kPeakSteps; ++step)
#pragma unroll
    for (int i = 0; i < kPeakChains; ++i) chains[i] = chains[i] * factor + factor;
  float sum = 0.0f;
  for (int i = 0; i < kPeakChains; ++i) sum += chains[i];
  if (sum == 1.25f) out[blockIdx.x] = sum;  // never, but the compiler cannot know
}

// Launches it; returns how many FMAs that are. out: one float a block.
DANCE_EXPORT int64_t dance_cuda_fma_peak(float* out, int32_t blocks, Stream stream) {
  DANCE_LAUNCH(fma_peak, dim3(unsigned(blocks)), dim3(256), 0, stream, out, 0.5f);
  return int64_t(blocks) * 256 * kPeakSteps * kPeakChains;
}
