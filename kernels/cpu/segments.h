// Live kernel positions -> runs of the reduction. Neighbours along W lie side by side in the activation and in the
// packed weights, so adjacent live ones make one run (short runs cost 3 to 8 % where few channels are kept).
#pragma once
#include <cstdint>

#include "geometry.h"
#include "isa.h"
#include "plan.h"

namespace dance {

struct SegmentBuilder {
  const ConvGeometry& g;
  int64_t width;   // floats from pixel to pixel of the activation
  int64_t kept;    // channels a position reads
  bool indexed;    // weight rows are found through an index of (kw, kept channel)
  bool apart;      // other channels lie between those of two positions, and the index is of kept channels, for both

  // out: room for kT * kH * kW. live_kt: [kT]. Returns how many.
  int build(const PixelGroup& pixels, const uint8_t* live_kt, Segment* out) const {
    const int64_t kh_count = g.kernel[1], kw_count = g.kernel[2];
    int count = 0;
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      if (!live_kt[kt]) continue;
      if (pixels.single) {
        out[count++] = run(kt, pixels.kernel_row, int64_t(pixels.live), 1);
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
      out[count++] = run(kt, kh, kw, end - kw);
      kw = end;
    }
    return count;
  }
};

}  // namespace dance
