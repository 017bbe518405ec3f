#include "host_device.h"

#include <cstdlib>

#include "../packed_weights.h"

extern "C" __attribute__((visibility("default"))) HostDevice* dance_host_device() {
  static HostDevice device = {0, 0, -1, false, false, 0, 0, 0, 3};
  return &device;
}

namespace dance {
namespace trt {
namespace {
constexpr std::size_t kMemory = std::size_t(1) << 26;
}

void* device_allocate(std::size_t bytes) {
  HostDevice& device = *dance_host_device();
  if (device.allowed == 0 || bytes > kMemory) return nullptr;
  if (device.allowed > 0) --device.allowed;
  ++device.allocations, ++device.live;
  return std::aligned_alloc(256, (bytes + 255) / 256 * 256);
}

void device_free(void* memory) {
  --dance_host_device()->live;
  std::free(memory);
}

bool is_capturing(cuda::Stream) { return dance_host_device()->capturing; }

}  // namespace trt
}  // namespace dance
