#include "kept.h"

#include <algorithm>
#include <cstring>

#include "gated_conv3d.h"
#include "segments.h"

namespace dance {
namespace {

uint8_t* mask_bytes(const void* mask, MaskType type, int64_t n, int64_t count, uint8_t* out) {
  for (int64_t i = 0; i < count; ++i)
    out[i] = type == MaskType::byte ? static_cast<const uint8_t*>(mask)[n * count + i] != 0
                                    : static_cast<const float*>(mask)[n * count + i] != 0.0f;
  return out + count;
}

// Which positions along an axis any output reads: with a stride above the kernel's reach not all are.
void mark_read(const ConvGeometry& g, int axis, int64_t extent, uint8_t* read) {
  std::memset(read, 0, std::size_t(extent));
  for (int64_t out = 0; out < g.out[axis]; ++out)
    for (int64_t k = 0; k < g.kernel[axis]; ++k) {
      const int64_t in = out * g.strides[axis] - g.pads[axis] + k * g.dilations[axis];
      if (in >= 0 && in < extent) read[in] = 1;
    }
}

void list_channels(const ConvGeometry& g, int64_t groups, Workspace& ws, Kept& kept) {
  const int64_t per_group = g.c / groups;
  int32_t* channel = ws.channels.of<int32_t>(std::size_t(2 * g.c + groups + 1));
  int32_t* first = channel + g.c;
  kept.channels = kept.channel_runs = 0;
  for (int64_t c = 0; c < g.c; ++c) {
    if (c % per_group == 0) first[c / per_group] = kept.channels;
    if (!kept.masks.channel[c]) continue;
    kept.channel_runs += kept.channels == 0 || channel[kept.channels - 1] != c - 1;
    channel[kept.channels++] = int32_t(c);
  }
  first[groups] = kept.channels;
  kept.all_channels = kept.channels == g.c;
  kept.channel = channel;
  kept.first = first;
  kept.outputs = nullptr;
  if (!g.depthwise()) return;
  int32_t* outputs = std::copy(channel, channel + kept.channels, first + groups + 1);
  for (int64_t c = 0; c < g.c; ++c)
    if (!kept.masks.channel[c]) *outputs++ = int32_t(c);
  kept.outputs = first + groups + 1;
}

}  // namespace

const ChannelRun* list_channel_runs(const Kept& kept, Workspace& ws) {
  ChannelRun* const runs = ws.weight_index.of<ChannelRun>(std::size_t(kept.channel_runs));
  int32_t count = 0;
  for (int32_t i = 0; i < kept.channels; ++i) {
    if (i > 0 && kept.channel[i] == kept.channel[i - 1] + 1) ++runs[count - 1].length;
    else runs[count++] = {kept.channel[i], 1};
  }
  return runs;
}

Kept find_kept(const ConvCall& call, int64_t n, int64_t groups, Workspace& ws) {
  const ConvGeometry& g = call.geometry;
  const int64_t pixels = g.h * g.w;
  Kept kept{};
  uint8_t* frame = ws.masks.of<uint8_t>(std::size_t(2 * (g.t + pixels) + g.c + g.h + g.w));
  uint8_t* channel = mask_bytes(call.frame_keep, call.mask_type, n, g.t, frame);
  uint8_t* feature = mask_bytes(call.channel_keep, call.mask_type, n, g.c, channel);
  uint8_t* read_frame = mask_bytes(call.feature_keep, call.mask_type, n, pixels, feature);
  kept.masks = {frame, channel, feature};
  kept.pixels = kept.runs = feature[0];
  for (int64_t i = 1; i < pixels; ++i) {  // a run may go on in the next row
    kept.pixels += feature[i];
    kept.runs += feature[i] & (feature[i - 1] ^ 1);
  }
  kept.all_pixels = kept.pixels == pixels;
  list_channels(g, groups, ws, kept);
  uint8_t* read_pixel = read_frame + g.t;
  uint8_t *row = read_pixel + pixels, *column = row + g.h;
  mark_read(g, 0, g.t, read_frame);
  mark_read(g, 1, g.h, row);
  mark_read(g, 2, g.w, column);
  for (int64_t t = 0; t < g.t; ++t) read_frame[t] &= frame[t];
  for (int64_t h = 0; h < g.h; ++h)
    for (int64_t w = 0; w < g.w; ++w) read_pixel[h * g.w + w] = row[h] & column[w] & feature[h * g.w + w];
  kept.read_frame = read_frame;
  kept.read_pixel = read_pixel;
  return kept;
}

}  // namespace dance
