// Convolution of scattered kept pixels, from the inputs' side: every kept input pixel is multiplied by one kernel position
// after the other and added to the outputs that read it. No two outputs need have anything in common, and what is multiplied is
// what is kept; sums go to the L1 cache and back once a kernel position, which the direct kernel saves.
#pragma once
#include <cstdint>

#include "clip_call.h"
#include "load.h"
#include "pack.h"
#include "segments.h"
#include "winograd_tiles.h"

namespace dance {

// Some tiles of output pixels of one n, by work items, in output frames that read any kept one. Strides and dilations
// along H and W 1, group 1, float32, packed W.
class ScatteredTiles : ClipCall {
 public:
  // What is made for the other tiles as well.
  struct Shared {
    Loaded x;
    const ChannelRun* channel_runs;  // where given, all channels are there and these are read
    const int32_t* weight_index;     // of kept channels, or null: all, or runs of them
    const float* bias;
    const Magnitudes* magnitudes;
  };

  explicit ScatteredTiles(const ClipCall& clip) : ClipCall(clip), layout_(g_, isa_) {}
  // Throws std::bad_alloc.
  void plan(const Tile* tiles, int64_t count, int size);
  int64_t items() const { return int64_t(plan_.bands.size() * frames_.chunks.size()) * layout_.blocks(); }
  int64_t parts() const { return int64_t(plan_.bands.size()); }  // for Magnitudes
  // The last before the items. Throws std::bad_alloc.
  void prepare(const Shared& shared, int workers);
  void compute(int worker, int64_t item, int64_t first_part) const;

 private:
  int64_t sums() const { return int64_t(frames_.frames_per_chunk) * plan_.rows * plan_.width; }  // rows of them
  void fetch_outputs(const ScatteredBand& band, const FrameChunk& chunk, int64_t index) const;
  int64_t list_rows(const ScatteredBand& band, const FrameChunk& chunk, int64_t kh, int64_t* row_in, int32_t* row_out) const;
  int find_segments(const uint8_t* live_kt, int64_t kh, Segment* out) const;
  void store(const ScatteredBand& band, const FrameChunk& chunk, int64_t index, int64_t part, const float* sums) const;

  const PackedLayout layout_;
  ScatteredPlan& plan_ = ws_.scattered;
  Plan& frames_ = ws_.plan;     // its frames alone
  Shared shared_{};
  float* sums_ = nullptr;       // of every worker
  int64_t* row_in_ = nullptr;
  int32_t* row_out_ = nullptr;
  Segment* segments_ = nullptr;
};

}  // namespace dance
