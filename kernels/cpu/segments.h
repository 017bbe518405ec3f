// Live kernel positions -> runs of the reduction. Neighbours along W lie side by side in the activation and in the
// packed weights, so adjacent live ones make one run (short runs cost 3 to 8 % where few channels are kept).
#pragma once
#include <cstdint>

#include "geometry.h"
#include "isa.h"
#include "plan.h"

namespace dance {

// Runs of kept channels of an activation that is read where it lies.
struct ChannelRun {
  int32_t begin, length;
};

struct SegmentBuilder {
  const ConvGeometry& g;
  int64_t width;   // floats from pixel to pixel of the activation
  int64_t kept;    // channels a position reads
  bool indexed;    // weight rows are found through an index of (kw, kept channel)
  bool apart;      // other channels lie between those of two positions, and the index is of kept channels, for both
  const ChannelRun* channel_runs = nullptr;  // where given, all channels are there and these are read
  int channel_run_count = 0;

  // out: room for kT * kH * kW, times the runs of channels. live_kt: [kT]. Returns how many.
  int build(const PixelGroup& pixels, const uint8_t* live_kt, Segment* out) const {
    const int64_t kh_count = g.kernel[1], kw_count = g.kernel[2];
    int count = 0;
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      if (!live_kt[kt]) continue;
      if (pixels.single) {
        count += add(run(kt, pixels.kernel_row, int64_t(pixels.live), 1), 1, out + count);
      } else if (pixels.kernel_row >= 0) {
        count += runs(pixels.live, kt, pixels.kernel_row, out + count);
      } else {
        for (int64_t kh = 0; kh < kh_count; ++kh) count += runs(pixels.live >> (kh * kw_count), kt, kh, out + count);
      }
    }
    return count;
  }

 private:
  Segment run(int64_t kt, int64_t kh, int64_t kw, int64_t length) const {
    const int64_t in = (kt * g.dilations[0] * g.h + kh * g.dilations[1]) * g.w + kw * g.dilations[2];
    const int64_t row = (kt * g.kernel[1] + kh) * g.kernel[2];
    const int64_t inputs = g.channels_per_group();
    if (apart) return {in * width, (row + kw) * inputs, int32_t(kept), 0};
    return {in * width, (indexed ? row : row + kw) * inputs, int32_t(length * kept), int32_t(kw * kept)};
  }

  // A run over so many neighbours along W, whole or taken apart by the channels' runs.
  int add(const Segment& whole, int64_t neighbours, Segment* out) const {
    if (!channel_runs) {
      *out = whole;
      return 1;
    }
    int count = 0;
    for (int64_t i = 0; i < neighbours; ++i)
      for (int r = 0; r < channel_run_count; ++r) {
        const int64_t at = i * width + channel_runs[r].begin;
        Segment* last = out + count - 1;
        if (count && last->in + last->length == whole.in + at) last->length += channel_runs[r].length;
        else out[count++] = {whole.in + at, whole.weight + at, channel_runs[r].length, 0};
      }
    return count;
  }

  // live: bit kw; bits from kW on belong to the next kernel row.
  int runs(uint64_t live, int64_t kt, int64_t kh, Segment* out) const {
    const bool joined = g.dilations[2] == 1 && !apart;
    int count = 0;
    for (int64_t kw = 0; kw < g.kernel[2];) {
      if (!(live >> kw & 1)) {
        ++kw;
        continue;
      }
      int64_t end = kw + 1;
      while (joined && end < g.kernel[2] && (live >> end & 1)) ++end;
      count += add(run(kt, kh, kw, end - kw), end - kw, out + count);
      kw = end;
    }
    return count;
  }
};

}  // namespace dance
