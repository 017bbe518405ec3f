#include "workspace.h"

#include <cstdint>
#include <cstdlib>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

namespace dance {

Buffer::~Buffer() { std::free(data_); }

void* Buffer::reserve(std::size_t bytes) {
  if (bytes <= bytes_ && data_) return data_;
  constexpr std::size_t kHuge = std::size_t(2) << 20;
  const std::size_t alignment = bytes >= kHuge ? kHuge : 64;
  const std::size_t rounded = (bytes + alignment) / alignment * alignment;  // never 0
  if (rounded < bytes) throw std::bad_alloc();
  std::free(data_);
  data_ = nullptr;
  bytes_ = 0;
  if (posix_memalign(&data_, alignment, rounded) != 0) {
    data_ = nullptr;
    throw std::bad_alloc();
  }
#if defined(__linux__)
  // scattered reads of a large activation lose a few percent to TLB misses on small pages
  if (alignment == kHuge) madvise(data_, rounded, MADV_HUGEPAGE);
#endif
  bytes_ = rounded;
  return data_;
}

void discard_pages(void* data, std::size_t bytes) {
#if defined(__linux__)
  const std::uintptr_t page = std::uintptr_t(sysconf(_SC_PAGESIZE)), begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = (begin + page - 1) / page * page, end = (begin + bytes) / page * page;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
#else
  (void)data, (void)bytes;
#endif
}

std::unique_ptr<Workspace> WorkspacePool::take() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!idle_.empty()) {
      std::unique_ptr<Workspace> workspace = std::move(idle_.back());
      idle_.pop_back();
      return workspace;
    }
  }
  return std::unique_ptr<Workspace>(new Workspace);
}

void WorkspacePool::give_back(std::unique_ptr<Workspace> workspace) {
  std::lock_guard<std::mutex> lock(mutex_);
  idle_.push_back(std::move(workspace));
}

void WorkspacePool::clear() {
  std::lock_guard<std::mutex> lock(mutex_);
  idle_.clear();
}

}  // namespace dance
