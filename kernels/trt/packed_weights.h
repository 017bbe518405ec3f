// Device memory for packed weights, shared out among a plugin and its clones.
#pragma once
#include <cstddef>
#include <mutex>
#include <vector>

#include "../cuda/dance_cuda.h"

namespace dance {
namespace trt {

// cudaMalloc and friends; the tests have their own.
void* device_allocate(std::size_t bytes);  // null where there is not so much
void device_free(void* memory);
bool is_capturing(cuda::Stream stream);

struct Buffer {
  void* memory = nullptr;
  std::size_t bytes = 0;
};

// Buffers that belong to no execution context at the moment. The plugin of an engine and its clones share one pool: the
// spare that the engine's plugin asks for goes to the first context, so one context takes one buffer.
class Pool {
 public:
  Pool() = default;
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool();
  // Allocates one more spare buffer; false where there is not so much memory.
  bool add_spare(std::size_t bytes);
  void drop_spare();
  // A spare buffer of at least that size, or an empty one. Allocates nothing.
  Buffer take_spare(std::size_t bytes);
  void give_back(Buffer buffer);

 private:
  std::mutex mutex_;
  std::vector<Buffer> spare_;
};

}  // namespace trt
}  // namespace dance
