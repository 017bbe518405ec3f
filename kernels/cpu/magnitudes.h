// Means of |y| that an op hands on with y, so that a gate which reads y need not read it for them: taken part by part,
// while what was written is in the cache.
#pragma once
#include <cstdint>

#include "isa.h"
#include "workspace.h"

namespace dance {

// What to write, of all N; both null where it is not wanted. Infinite or NaN where y is, or where sums are too large for
// float32.
struct MagnitudeOutputs {
  float* channel = nullptr;  // [N, T, C], means over the pixels of a frame
  float* pixel = nullptr;    // [N, T, H, W], means over channels
};

// One n. Parts of the pixels and blocks of the channels are added up on their own and put together in their order, so
// that results do not depend on who adds what when.
class Magnitudes {
 public:
  // y: all of it; channels_last: [N,T,H,W,C], else [N,C,T,H,W]. Where nothing is wanted every call does nothing.
  Magnitudes(const MagnitudeOutputs& out, const void* y, Type type, bool channels_last, int64_t n, int64_t frames,
             int64_t channels, int64_t pixels);
  bool wanted() const { return channel_ != nullptr; }
  // Every pixel of every frame lies in one of `parts`, every channel in one of `blocks`. Throws std::bad_alloc.
  void begin(int64_t parts, int64_t blocks, Workspace& workspace);
  // Channels [channel, channel + channels) of pixels [pixel, pixel + pixels) of a frame are in y. Calls for different
  // frames, parts or blocks may run at once.
  void add(int64_t part, int64_t block, int64_t frame, int64_t channel, int64_t channels, int64_t pixel,
           int64_t pixels) const;
  void end() const;

 private:
  const IsaKernels& isa_;
  const char* y_;
  const Type type_;
  const bool channels_last_;
  const int64_t frames_, channels_, pixels_;
  float *channel_ = nullptr, *pixel_ = nullptr;
  int64_t parts_ = 0, blocks_ = 0;
  double* channel_parts_ = nullptr;  // [parts][T][C]
  float* pixel_blocks_ = nullptr;    // [blocks][T][H, W]; pixel_ itself, and means, where there is one block
};

}  // namespace dance
