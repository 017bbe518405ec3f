// What one call has to compute, found once from the masks and shared by all output channels: which output frames
// and pixels read which kernel positions. Padding is no special case: a position out of range is one that is not live.
#pragma once
#include <cstdint>
#include <vector>

#include "geometry.h"

namespace dance {

// Output frames that read the same live kernel frames.
struct FrameChunk {
  int32_t first, count;  // into Plan::frames
  int32_t representative;  // an output frame; Plan::live_kt has the row of its live kernel frames
};

// Output pixels of a block that share live kernel positions.
struct PixelGroup {
  uint64_t live;      // over (kh, kw) where kernel_row < 0; else over kw of that kernel row, or, where kW > 64, column
  int32_t kernel_row;
  bool single;        // live is a column of kernel_row, not a bit set
  bool accumulate;    // the pixels' sums are begun elsewhere (cleared first)
  int64_t first;      // into Plan::entries
  int32_t count;
};

struct PixelEntry {
  int32_t pixel;      // in the block: its row of sums for the chunk's first frame
  int64_t in;         // pixel index of its first input in the frame; may be negative (is then never read unshifted)
};

// Rows of the output map that are worked on together.
struct PixelBlock {
  int32_t row_begin, row_end;
  int32_t group_begin, group_end;
  int32_t clear_begin, clear_end;  // into Plan::clear: pixels whose sums start from zero
  bool empty;                      // no pixel of it reads anything
};

struct Plan {
  std::vector<uint8_t> live_kt;      // [T'][kT]
  std::vector<int32_t> frames;       // output frames, chunk by chunk
  std::vector<FrameChunk> chunks;
  std::vector<PixelBlock> blocks;
  std::vector<PixelGroup> groups;
  std::vector<PixelEntry> entries;
  std::vector<int32_t> clear;
  int64_t live_frames = 0;           // pairs (output frame, kernel frame) that are live
  int frames_per_chunk = 1;
  double cost = 0;                   // of the pixel side, in row x input channel steps a kernel frame

  // What make_plan works in; here so that a steady state allocates nothing.
  struct Scratch {
    std::vector<uint64_t> row_patterns;         // [H][W'] live kw bits
    std::vector<uint64_t> keys;                 // of the table, in order of appearance
    std::vector<int32_t> slots;                 // of the table
    std::vector<int32_t> numbers, counts, renumbered, items, rare, rarest;
  } scratch;
};

// Plan::live_kt, frames, chunks, live_frames and frames_per_chunk alone.
void plan_frames(const ConvGeometry& g, const uint8_t* frame_keep, int64_t frames_per_chunk, Plan& plan);

// channels: kept input channels a kernel position reads (for the cost). feature: [H, W], null = all kept.
void make_plan(const ConvGeometry& g, const uint8_t* frame_keep, const uint8_t* feature_keep, int64_t channels,
               int64_t column_blocks, Plan& plan);

}  // namespace dance
