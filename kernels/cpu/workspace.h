// Memory that calls work in. It only grows, so that a steady state allocates nothing; calls that run at once each
// take one from the pool, so a session needs as many as it runs threads, not as many as it has layers.
#pragma once
#include <cstddef>
#include <memory>
#include <mutex>
#include <vector>

#include "plan.h"
#include "scattered_plan.h"

namespace dance {

class Buffer {
 public:
  Buffer() = default;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer();
  // At least `bytes`, aligned to 64; the old content is lost where it has to grow. Throws std::bad_alloc.
  void* reserve(std::size_t bytes);
  template <class T>
  T* of(std::size_t count) {
    if (count > SIZE_MAX / sizeof(T) / 2) throw std::bad_alloc();
    return static_cast<T*>(reserve(count * sizeof(T)));
  }
  std::size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

struct Workspace {
  Buffer activation;   // kept channels, channels-last
  Buffer masks;        // one byte an entry
  Buffer float_mask;   // all ones or 0 for each float of a frame
  Buffer bias;         // as floats, in column order
  Buffer weights;      // packed per call where they are no constants, or gathered (depthwise)
  Buffer weight_index;
  Buffer channels;     // int32 lists
  Buffer sums;         // accumulators of every worker
  Buffer rows;         // row positions of every worker
  Buffer segments;     // of every worker
  Buffer statistics;   // gate
  Buffer magnitudes;   // sums of |y| of every part of it
  Buffer tiles;        // Winograd: output tiles, which pixels they read
  Buffer spans;        // live runs of output pixels
  Buffer expanded;     // between a 1x1x1 convolution and the depthwise one behind it, of every worker
  Buffer components;   // Winograd: transformed input, sums, and finished pixels of every worker
  Buffer scattered_rows, scattered_segments;  // of every worker
  Plan plan, plan_unmasked;
  ScatteredPlan scattered;
};

// Gives whole pages inside [data, data + bytes) back to the system; what was there is lost.
void discard_pages(void* data, std::size_t bytes);

class WorkspacePool {
 public:
  std::unique_ptr<Workspace> take();
  void give_back(std::unique_ptr<Workspace> workspace);
  void clear();

 private:
  std::mutex mutex_;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

}  // namespace dance
