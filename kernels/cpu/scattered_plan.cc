#include "scattered_plan.h"

#include <algorithm>

#include "winograd_tiles.h"

namespace dance {
namespace {

constexpr int32_t kBeside = 2;  // outputs left and right of a span that its inputs reach too

// Kept pixels of input row h that a span reads.
void add_inputs(const ConvGeometry& g, const uint8_t* row, const ScatteredSpan& span, std::vector<ScatteredInput>& inputs) {
  const int64_t begin = std::max<int64_t>(0, span.begin - g.pads[2]), end = std::min(g.w, span.end - g.pads[2] + kBeside);
  const int64_t place = span.place + g.pads[2] - span.begin;
  for (int64_t w = begin; w < end; ++w)
    if (row[w]) inputs.push_back({int32_t(w), int32_t(w + place)});
}

}  // namespace

void plan_scattered(const ConvGeometry& g, const uint8_t* feature, const Tile* tiles, int64_t count, int size,
                    ScatteredPlan& plan) {
  plan.bands.clear(), plan.spans.clear(), plan.lines.clear(), plan.inputs.clear();
  plan.rows = size, plan.width = 0;
  const Tile* const end = tiles + count;
  while (tiles != end) {
    const int32_t row = tiles->row;
    ScatteredBand band{row * size, int32_t(std::min<int64_t>(g.out[1], int64_t(row + 1) * size)),
                       int32_t(plan.spans.size()), 0, int32_t(plan.lines.size())};
    int32_t place = kBeside;
    for (; tiles != end && tiles->row == row; ++tiles) {
      const int32_t first = tiles->column * size, last = int32_t(std::min<int64_t>(g.out[2], first + size));
      const bool joined = int32_t(plan.spans.size()) > band.span_begin && plan.spans.back().end == first;
      if (joined) plan.spans.back().end = last;
      else plan.spans.push_back({first, last, place});
      place = plan.spans.back().place + last - plan.spans.back().begin + 2 * kBeside;
    }
    band.span_end = int32_t(plan.spans.size());
    plan.width = std::max(plan.width, place - kBeside);
    for (int64_t h = band.row_begin - g.pads[1]; h < band.row_end - g.pads[1] + 2; ++h) {
      plan.lines.push_back(int32_t(plan.inputs.size()));
      for (int32_t i = band.span_begin; i < band.span_end && h >= 0 && h < g.h; ++i)
        add_inputs(g, feature + h * g.w, plan.spans[std::size_t(i)], plan.inputs);
    }
    plan.lines.push_back(int32_t(plan.inputs.size()));
    plan.bands.push_back(band);
  }
}

}  // namespace dance
