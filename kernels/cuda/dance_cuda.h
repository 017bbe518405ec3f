// The dance ops on an NVIDIA GPU, as plain C++14 calls: what the TensorRT plugins (and any other host) are written against.
//
// Rules of every call. Nothing throws. Sizes come from shapes alone. Calls that take a stream only launch kernels on it: they
// allocate nothing, copy nothing to or from the host, never synchronise, and launch the same kernels with the same grids
// whatever the masks hold (worst case; surplus blocks leave early), so they can be captured in a CUDA graph. Pointers are
// device pointers, aligned to 16 bytes (cudaMalloc gives 256). Inputs are never written. Several calls may run at once on
// different streams if their workspaces and outputs differ. Needs no CUDA header.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../cpu/geometry.h"  // dance::ConvGeometry, dance::Type, conv_out_size, conv_fits

struct CUstream_st;  // cudaStream_t is a pointer to it

namespace dance {
namespace cuda {

typedef CUstream_st* Stream;

enum class Status : int {
  ok = 0,
  bad_shape = 1,            // an extent, stride, pad, dilation or group out of range, or a kernel that does not fit
  too_large = 2,            // sizes beyond the kernels' index arithmetic or a grid's limits
  unsupported = 3,          // the algorithm asked for does not do this geometry or type
  null_pointer = 4,         // a tensor that the call needs is null
  misaligned = 5,           // a pointer is not aligned to 16 bytes
  workspace_too_small = 6,  // fewer bytes than the size function says
  launch_failed = 7         // CUDA refused a launch; last_cuda_error() has its number
};
// One line, never null.
const char* status_text(Status status);
// cudaError_t of the last failed launch of this thread, 0 where none failed.
int last_cuda_error();

// How masks lie in memory: bool as one byte, or float32; nonzero means keep. The gate writes 0 and 1.
enum class MaskType : int { byte = 0, f32 = 1 };

// automatic: what `chosen_algorithm` says. The others fail with `unsupported` where the geometry or type does not allow them.
enum class Algorithm : int {
  automatic = 0,
  direct = 1,      // implicit GEMM over live kernel positions and kept channels: group 1, at most 64 positions a frame
  winograd = 2,    // F(4x4) in float32, F(2x2) in float16, over H and W: 3x3 there, stride and dilation 1, group 1
  depthwise = 3,   // group = C = M
  plain = 4        // any geometry, one thread an output; slow
};

// ---- GatedConv3d, GatedConv3dAdd and their channels-last forms ----

// Everything about a convolution that is known before its tensors. Fill geometry (all fields but `out`), then conv_init.
struct ConvSetup {
  ConvGeometry geometry;   // geometry.type: of X, W, B, Y, Z; geometry.channels_last: of X, Y, Z
  MaskType mask_type;
  float minimum;           // attribute `min`
  Algorithm algorithm;     // automatic, or forced
  int multiprocessors;     // of the device; more blocks are made (split reductions) where there are many. At least 1
  ConvSetup();
};

// Checks the geometry, fills in geometry.out, turns `automatic` into the algorithm taken. To be called once on a setup before
// any other call with it; fails with bad_shape, too_large or unsupported.
Status conv_init(ConvSetup* setup);

// Multiprocessors of the current device; 1 where there is none to ask.
int multiprocessor_count();

// Name of the kernel variant that serves this setup, as in the table of kernels/cuda/variants.inc; for logs and benchmarks.
const char* conv_variant(const ConvSetup& setup);

// Bytes of device memory that a call needs for itself, from the shapes alone; at least 1.
Status workspace_bytes(const ConvSetup& setup, std::size_t* bytes);

// Weights are packed once per set of values, into memory of this size that the caller keeps.
Status packed_weights_bytes(const ConvSetup& setup, std::size_t* bytes);
// w: [M, C/group, kT, kH, kW] of geometry.type, on the device; packed: written whole.
Status pack_weights(const ConvSetup& setup, const void* w, void* packed, Stream stream);

struct ConvTensors {
  const void* x;             // [N,C,T,H,W], or [N,T,H,W,C] where channels_last
  const void* packed;        // what pack_weights wrote for the same setup
  const void* b;             // [M]
  const void* frame_keep;    // [N, T]
  const void* channel_keep;  // [N, C]
  const void* feature_keep;  // [N, H, W]
  const void* z;             // shaped like y, or null: no residual. May be y itself
  void* y;                   // [N,M,T',H',W'], or [N,T',H',W',M] where channels_last
  void* workspace;
  std::size_t workspace_bytes;
};
// Y = max(conv(X kept, W) + B (+ Z), minimum). Meaning and tolerance: docs/ops.md.
Status gated_conv3d(const ConvSetup& setup, const ConvTensors& tensors, Stream stream);

// ---- ActivationGate and its channels-last form ----

struct GateSetup {
  int64_t n, c, t, h, w;  // all at least 1
  bool channels_last;
  Type type;              // of X
  MaskType mask_type;
};
Status gate_workspace_bytes(const GateSetup& setup, std::size_t* bytes);

struct GateTensors {
  const void* x;          // [N,C,T,H,W], or [N,T,H,W,C] where channels_last
  const float* tau;       // [N, 3]
  void* frame_keep;       // [N, T]
  void* channel_keep;     // [N, C]
  void* feature_keep;     // [N, H, W]
  void* workspace;
  std::size_t workspace_bytes;
};
Status gate(const GateSetup& setup, const GateTensors& tensors, Stream stream);

}  // namespace cuda
}  // namespace dance
