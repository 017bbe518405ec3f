#include "live_spans.h"

#include <algorithm>

namespace dance {
namespace {

// kept[h * (W + 1) + w]: how many of the first w pixels of input row h are kept.
void count_kept(const ConvGeometry& g, const uint8_t* feature, int32_t* kept) {
  for (int64_t h = 0; h < g.h; ++h) {
    *kept++ = 0;
    for (int64_t w = 0; w < g.w; ++w, ++kept) *kept = kept[-1] + feature[h * g.w + w];
  }
}

int64_t input_row(const ConvGeometry& g, int64_t ho, int64_t kh) {
  return ho * g.strides[1] - g.pads[1] + kh * g.dilations[1];
}

uint64_t rows_in_range(const ConvGeometry& g, int64_t ho) {
  uint64_t rows = 0;
  for (int64_t kh = 0; kh < g.kernel[1]; ++kh) {
    const int64_t h = input_row(g, ho, kh);
    if (h >= 0 && h < g.h) rows |= uint64_t(1) << kh;
  }
  return rows;
}

// Columns of the input between the first and the last that output columns [begin, end) read: none where all of these lie
// in the padding.
struct Columns { int64_t from, to; };

Columns columns_of(const ConvGeometry& g, int64_t begin, int64_t end) {
  const int64_t reach = (g.kernel[2] - 1) * g.dilations[2] + 1;
  return {std::max<int64_t>(0, begin * g.strides[2] - g.pads[2]),
          std::min(g.w, (end - 1) * g.strides[2] - g.pads[2] + reach)};
}

// What of the input rows the spans of row ho read.
void widen(const ConvGeometry& g, int64_t ho, const Span* begin, const Span* end, int32_t* read) {
  for (const Span* span = begin; span != end; ++span) {
    const Columns columns = columns_of(g, span->begin, span->end);
    for (int64_t kh = 0; kh < g.kernel[1]; ++kh) {
      if (!(span->kernel_rows >> kh & 1)) continue;
      int32_t* const row = read + 2 * input_row(g, ho, kh);
      const bool any = row[0] < row[1];
      row[0] = int32_t(any ? std::min<int64_t>(row[0], columns.from) : columns.from);
      row[1] = int32_t(any ? std::max<int64_t>(row[1], columns.to) : columns.to);
    }
  }
}

}  // namespace

LiveSpans find_spans(const ConvGeometry& g, const Kept& kept, int32_t gap, Workspace& ws) {
  const int64_t most = g.out[1] * (g.out[2] / 2 + 1), counts = kept.all_pixels ? 0 : g.h * (g.w + 1);
  Span* const spans = ws.spans.of<Span>(std::size_t(most) + std::size_t(g.out[1] + 1 + 2 * g.h + counts) / 4 + 1);
  int32_t* const first = reinterpret_cast<int32_t*>(spans + most);
  int32_t* const read = first + g.out[1] + 1;
  int32_t* const so_far = read + 2 * g.h;
  std::fill(read, so_far, 0);
  if (counts) count_kept(g, kept.masks.feature, so_far);
  const int64_t reach = (g.kernel[2] - 1) * g.dilations[2] + 1;
  const Columns whole = columns_of(g, 0, g.out[2]);
  Span* next = spans;
  for (int64_t ho = 0; ho < g.out[1]; ++ho) {
    first[ho] = int32_t(next - spans);
    const uint64_t in_range = rows_in_range(g, ho);
    if (!counts) {
      if (in_range && whole.from < whole.to) *next++ = {0, int32_t(g.out[2]), in_range};
      continue;
    }
    const Span* const row_begin = next;
    for (int64_t wo = 0; wo < g.out[2]; ++wo) {
      const int64_t w = wo * g.strides[2] - g.pads[2];
      const int64_t from = std::min(g.w, std::max<int64_t>(0, w)), to = std::max(from, std::min(g.w, w + reach));
      uint64_t live = 0;
      for (int64_t kh = 0; kh < g.kernel[1]; ++kh) {
        if (!(in_range >> kh & 1)) continue;
        const int32_t* row = so_far + input_row(g, ho, kh) * (g.w + 1);
        live |= uint64_t(row[to] != row[from]) << kh;
      }
      if (!live) continue;
      if (next > row_begin && wo - next[-1].end <= gap) next[-1].end = int32_t(wo + 1), next[-1].kernel_rows |= live;
      else *next++ = {int32_t(wo), int32_t(wo + 1), live};
    }
  }
  first[g.out[1]] = int32_t(next - spans);
  for (int64_t ho = 0; ho < g.out[1]; ++ho) widen(g, ho, spans + first[ho], spans + first[ho + 1], read);
  return {spans, first, read};
}

}  // namespace dance
