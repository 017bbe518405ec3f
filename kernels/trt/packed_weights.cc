#include "packed_weights.h"

namespace dance {
namespace trt {

Pool::~Pool() {
  for (const Buffer& buffer : spare_) device_free(buffer.memory);
}

bool Pool::add_spare(std::size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  spare_.reserve(spare_.size() + 1);  // may throw, and must not after the allocation
  Buffer buffer;
  buffer.memory = device_allocate(bytes);
  buffer.bytes = bytes;
  if (buffer.memory) spare_.push_back(buffer);
  return buffer.memory != nullptr;
}

void Pool::drop_spare() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (spare_.empty()) return;
  device_free(spare_.back().memory);
  spare_.pop_back();
}

Buffer Pool::take_spare(std::size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex_);
  for (std::size_t i = 0; i < spare_.size(); ++i) {
    if (spare_[i].bytes < bytes) continue;
    const Buffer buffer = spare_[i];
    spare_.erase(spare_.begin() + std::ptrdiff_t(i));
    return buffer;
  }
  return {};
}

void Pool::give_back(Buffer buffer) {
  if (!buffer.memory) return;
  std::lock_guard<std::mutex> lock(mutex_);
  try {
    spare_.push_back(buffer);
  } catch (...) {  // no memory to remember it
    device_free(buffer.memory);
  }
}

}  // namespace trt
}  // namespace dance
