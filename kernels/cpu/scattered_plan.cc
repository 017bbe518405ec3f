#include "scattered_plan.h"

#include <algorithm>

#include "winograd_tiles.h"

namespace dance {

void plan_scattered(const ConvGeometry& g, const uint8_t* feature, const Tile* tiles, int64_t count, int size,
                    ScatteredPlan& plan) {
  plan.bands.clear(), plan.spans.clear(), plan.lines.clear(), plan.columns.clear();
  const Tile* const end = tiles + count;
  while (tiles != end) {
    const int32_t row = tiles->row;
    ScatteredBand band{row * size, int32_t(std::min<int64_t>(g.out[1], int64_t(row + 1) * size)),
                       int32_t(plan.spans.size()), 0, int32_t(plan.lines.size())};
    for (; tiles != end && tiles->row == row; ++tiles) {
      const int32_t first = tiles->column * size, last = int32_t(std::min<int64_t>(g.out[2], first + size));
      if (int32_t(plan.spans.size()) > band.span_begin && plan.spans.back().end == first) plan.spans.back().end = last;
      else plan.spans.push_back({first, last});
    }
    band.span_end = int32_t(plan.spans.size());
    for (int64_t h = band.row_begin - g.pads[1]; h < band.row_end - g.pads[1] + g.kernel[1] - 1; ++h) {
      plan.lines.push_back(int32_t(plan.columns.size()));
      if (h < 0 || h >= g.h) continue;
      int64_t next = 0;  // spans may lie so close that they read the same inputs
      for (int32_t i = band.span_begin; i < band.span_end; ++i) {
        const int64_t stop = std::min(g.w, plan.spans[std::size_t(i)].end - g.pads[2] + g.kernel[2] - 1);
        for (int64_t w = std::max(next, plan.spans[std::size_t(i)].begin - g.pads[2]); w < stop; ++w)
          if (feature[h * g.w + w]) plan.columns.push_back(int32_t(w));
        next = std::max(next, stop);
      }
    }
    plan.lines.push_back(int32_t(plan.columns.size()));
    plan.bands.push_back(band);
  }
}

}  // namespace dance
