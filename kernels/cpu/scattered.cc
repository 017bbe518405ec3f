#include "scattered.h"

#include <algorithm>
#include <cstring>

namespace dance {
namespace {

constexpr int64_t kLineBytes = 24 << 10;  // sums of a row of some frames: they stay in the L1 cache
constexpr int64_t kMostFrames = 16;

}  // namespace

void ScatteredTiles::plan(const Tile* tiles, int64_t count, int size) {
  plan_scattered(g_, kept_.masks.feature, tiles, count, size, plan_);
  const int64_t frames = std::min(g_.out[0], std::min(kMostFrames, kLineBytes / (line() * layout_.columns(0) * 4)));
  plan_frames(g_, kept_.masks.frame, std::max<int64_t>(1, frames), frames_);
}

void ScatteredTiles::prepare(const Shared& shared, int workers) {
  shared_ = shared;
  const std::size_t count = std::size_t(std::max(1, workers)), of_worker = std::size_t(rows());
  sums_ = ws_.sums.of<float>(count * of_worker * std::size_t(isa_.block()));
  row_in_ = ws_.scattered_rows.of<int64_t>(count * of_worker * 2);
  row_out_ = reinterpret_cast<int32_t*>(row_in_ + count * of_worker);
  segments_ = ws_.scattered_segments.of<Segment>(count * std::size_t(g_.kernel[0] * (shared.channel_runs ? kept_.channel_runs : 1)));
}

void ScatteredTiles::compute(int worker, int64_t item, int64_t first_part) const {
  const int64_t bands = parts(), chunks = int64_t(frames_.chunks.size());
  const int64_t number = item % bands, index = item / bands / chunks;
  const ScatteredBand& band = plan_.bands[std::size_t(number)];
  const FrameChunk& chunk = frames_.chunks[std::size_t(item / bands % chunks)];
  const uint8_t* live_kt = &frames_.live_kt[std::size_t(chunk.representative * g_.kernel[0])];
  if (std::memchr(live_kt, 1, std::size_t(g_.kernel[0])) == nullptr) return;
  const int64_t columns = int64_t(layout_.vectors(index)) * isa_.vector;
  float* sums = sums_ + worker * rows() * isa_.block();
  RowsArgs a{};
  a.x = shared_.x.x;
  a.weights = call_.packed->floats + layout_.offset(0, index);
  a.weight_index = shared_.weight_index;
  a.vectors = layout_.vectors(index);
  a.accumulate = true;
  for (int64_t ho = band.row_begin; ho < band.row_end; ++ho) {
    fetch_outputs(band, chunk, ho, index);
    std::memset(sums, 0, std::size_t(chunk.count * line() * columns) * 4);
    for (int64_t kh = 0; kh < g_.kernel[1]; ++kh)
      add_row(a, band, chunk, ho, kh, row_in_ + worker * rows(), row_out_ + worker * rows(),
              segments_ + worker * g_.kernel[0] * (shared_.channel_runs ? kept_.channel_runs : 1), sums);
    store_row(band, chunk, ho, index, first_part + number, sums);
  }
}

// Lines of Y and Z, which will be needed when the row is finished.
void ScatteredTiles::fetch_outputs(const ScatteredBand& band, const FrameChunk& chunk, int64_t ho, int64_t index) const {
  if (!g_.channels_last) return;
  for (int32_t f = 0; f < chunk.count; ++f) {
    const int64_t to = frames_.frames[std::size_t(chunk.first + f)];
    const int64_t row = ((n_ * g_.out[0] + to) * out_pixels() + ho * g_.out[2]) * g_.m + layout_.block_begin(index);
    for (int32_t i = band.span_begin; i < band.span_end; ++i)
      for (int64_t wo = plan_.spans[std::size_t(i)].begin; wo < plan_.spans[std::size_t(i)].end; ++wo)
        for (int64_t column = 0; column < layout_.columns(index); column += 16) {
          __builtin_prefetch(static_cast<const float*>(call_.y) + row + wo * g_.m + column, 1);
          if (call_.z) __builtin_prefetch(static_cast<const float*>(call_.z) + row + wo * g_.m + column);
        }
  }
}

// What kernel row kh adds to output row ho: its inputs are the same for all kernel positions of the row, which lead to
// neighbouring outputs.
void ScatteredTiles::add_row(RowsArgs& a, const ScatteredBand& band, const FrameChunk& chunk, int64_t ho, int64_t kh,
                             int64_t* row_in, int32_t* row_out, Segment* segments, float* sums) const {
  const std::size_t at = std::size_t(band.line + ho - band.row_begin + kh);
  const int32_t *begin = plan_.columns.data() + plan_.lines[at], *end = plan_.columns.data() + plan_.lines[at + 1];
  if (begin == end) return;
  const int64_t h = ho - g_.pads[1] + kh, columns = int64_t(a.vectors) * isa_.vector;
  a.rows = 0;
  for (int32_t f = 0; f < chunk.count; ++f) {
    const int64_t to = frames_.frames[std::size_t(chunk.first + f)], t = to * g_.strides[0] - g_.pads[0];
    const int64_t in = (t * pixels() + h * g_.w) * shared_.x.stride;
    const int32_t out = int32_t(f * line());
    for (const int32_t* w = begin; w != end; ++w) {
      row_in[a.rows] = in + *w * shared_.x.stride;
      row_out[a.rows++] = out + *w;
    }
  }
  a.row_in = row_in, a.row_out = row_out, a.segments = segments;
  const uint8_t* live_kt = &frames_.live_kt[std::size_t(chunk.representative * g_.kernel[0])];
  a.segment_count = find_segments(live_kt, kh, segments);
  a.acc = sums + (margin() + g_.pads[2]) * columns;
  isa_.tap_rows({a, int(g_.kernel[2]), layout_.inputs * columns});
}

// Of the kernel row's first position.
int ScatteredTiles::find_segments(const uint8_t* live_kt, int64_t kh, Segment* out) const {
  const int32_t runs = shared_.channel_runs ? kept_.channel_runs : 1;
  int count = 0;
  for (int64_t kt = 0; kt < g_.kernel[0]; ++kt)
    for (int32_t i = 0; i < runs && live_kt[kt]; ++i) {
      const ChannelRun run = shared_.channel_runs ? shared_.channel_runs[i] : ChannelRun{0, kept_.channels};
      out[count++] = {kt * g_.dilations[0] * pixels() * shared_.x.stride + run.begin,
                      (kt * g_.kernel[1] + kh) * g_.kernel[2] * layout_.inputs + run.begin, run.length, 0};
    }
  return count;
}

void ScatteredTiles::store_row(const ScatteredBand& band, const FrameChunk& chunk, int64_t ho, int64_t index,
                               int64_t part, const float* sums) const {
  StoreArgs a{};
  a.count = layout_.columns(index);
  a.acc_stride = int64_t(layout_.vectors(index)) * isa_.vector;
  a.first_channel = layout_.block_begin(index);
  a.bias = shared_.bias + a.first_channel;
  a.minimum = call_.minimum;
  a.channel_stride = g_.channels_last ? 1 : g_.out[0] * out_pixels();
  a.pixel_stride = g_.channels_last ? g_.m : 1;
  a.type = g_.type;
  for (int32_t f = 0; f < chunk.count; ++f) {
    const int64_t to = frames_.frames[std::size_t(chunk.first + f)];
    for (int32_t i = band.span_begin; i < band.span_end; ++i) {
      const ScatteredSpan& span = plan_.spans[std::size_t(i)];
      const int64_t pixel = ho * g_.out[2] + span.begin;
      const int64_t at = n_ * g_.m * g_.out[0] * out_pixels() + (to * out_pixels() + pixel) * a.pixel_stride;
      a.pixels = span.end - span.begin;
      a.acc = sums + (f * line() + margin() + span.begin) * a.acc_stride;
      a.y = static_cast<float*>(call_.y) + at;
      a.z = call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
      isa_.store(a);
      shared_.magnitudes->add(part, index, to, a.first_channel, a.count, pixel, a.pixels);
    }
  }
}

}  // namespace dance
