// What the masks of one n keep, as lists and byte masks that the loops can use.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "workspace.h"

namespace dance {

struct ConvCall;

struct Kept {
  Masks masks;                   // one byte an entry, whatever the caller's type
  bool all_channels, all_pixels;
  int64_t pixels, runs;          // how many pixels are kept, in how many runs of neighbours along W
  int32_t channels;              // how many are kept
  const int32_t* channel;        // which, ascending
  const int32_t* first;          // [groups + 1] into `channel`
  int32_t channel_runs;          // of neighbours among them
  const int32_t* outputs;        // depthwise: output channel of every column, kept ones first; else null
  const uint8_t* read_frame;     // [T] kept, and read by some output
  const uint8_t* read_pixel;     // [H, W] likewise

  int32_t in_group(int64_t group) const { return first[group + 1] - first[group]; }
  // 0 for large regions, 1 where no kept pixel has a kept neighbour.
  double scattered() const { return all_pixels || pixels == 0 ? 0 : double(runs) / double(pixels); }
};

struct ChannelRun;
// [kept.channel_runs], in the workspace. Throws std::bad_alloc.
const ChannelRun* list_channel_runs(const Kept& kept, Workspace& workspace);

// groups: of the kernels' layout, where a depthwise convolution counts as one. Throws std::bad_alloc.
Kept find_kept(const ConvCall& call, int64_t n, int64_t groups, Workspace& workspace);

}  // namespace dance
