// Device memory by the CUDA runtime.
#include <cuda_runtime_api.h>

#include "packed_weights.h"

namespace dance {
namespace trt {

void* device_allocate(std::size_t bytes) {
  void* memory = nullptr;
  if (cudaMalloc(&memory, bytes) == cudaSuccess) return memory;
  cudaGetLastError();  // or the next launch would be blamed
  return nullptr;
}

void device_free(void* memory) {
  if (cudaFree(memory) != cudaSuccess) cudaGetLastError();  // at exit the driver may be gone already
}

bool is_capturing(cuda::Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  if (cudaStreamIsCapturing(stream, &status) != cudaSuccess) cudaGetLastError();
  return status != cudaStreamCaptureStatusNone;
}

}  // namespace trt
}  // namespace dance
