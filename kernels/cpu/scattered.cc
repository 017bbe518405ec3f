#include "scattered.h"

#include <algorithm>
#include <cstring>

namespace dance {
namespace {

constexpr int64_t kSumBytes = 1536;       // of sums worked on together, a channel: the more channels, the longer
constexpr int64_t kMostSumBytes = 192 << 10;  // until they are added to again
constexpr int64_t kMostFrames = 16;

}  // namespace

void ScatteredTiles::plan(const Tile* tiles, int64_t count, int size) {
  plan_scattered(g_, kept_.masks.feature, tiles, count, size, plan_);
  const int64_t bytes = std::max<int64_t>(1, plan_.rows * plan_.width * int64_t(layout_.vectors(0)) * isa_.vector * 4);
  const int64_t frames = std::min(kMostFrames, std::min(kMostSumBytes, kSumBytes * std::max<int64_t>(16, kept_.channels)) / bytes);
  plan_frames(g_, kept_.masks.frame, std::max<int64_t>(1, std::min(frames, g_.out[0])), frames_);
}

void ScatteredTiles::prepare(const Shared& shared, int workers) {
  shared_ = shared;
  const std::size_t count = std::size_t(std::max(1, workers)), rows = std::size_t(sums());
  sums_ = ws_.sums.of<float>(count * rows * std::size_t(isa_.block()));
  row_in_ = ws_.scattered_rows.of<int64_t>(count * rows * 2);
  row_out_ = reinterpret_cast<int32_t*>(row_in_ + count * rows);
  const int32_t runs = shared.channel_runs ? kept_.channel_runs : 1;
  segments_ = ws_.scattered_segments.of<Segment>(count * std::size_t(g_.kernel[0] * runs));
}

void ScatteredTiles::compute(int worker, int64_t item, int64_t first_part) const {
  const int64_t bands = parts(), chunks = int64_t(frames_.chunks.size());
  const int64_t number = item % bands, index = item / bands / chunks;
  const ScatteredBand& band = plan_.bands[std::size_t(number)];
  const FrameChunk& chunk = frames_.chunks[std::size_t(item / bands % chunks)];
  const uint8_t* live_kt = &frames_.live_kt[std::size_t(chunk.representative * g_.kernel[0])];
  if (std::memchr(live_kt, 1, std::size_t(g_.kernel[0])) == nullptr) return;
  const int64_t columns = int64_t(layout_.vectors(index)) * isa_.vector;
  float* const sums_begin = sums_ + worker * sums() * isa_.block();
  int64_t* const row_in = row_in_ + worker * sums();
  int32_t* const row_out = row_out_ + worker * sums();
  Segment* const segments = segments_ + worker * g_.kernel[0] * (shared_.channel_runs ? kept_.channel_runs : 1);
  RowsArgs a{};
  a.x = shared_.x.x;
  a.row_in = row_in, a.row_out = row_out, a.segments = segments;
  a.weights = call_.packed->floats + layout_.offset(0, index);
  a.weight_index = shared_.weight_index;
  a.vectors = layout_.vectors(index);
  a.accumulate = true;
  a.acc = sums_begin;
  fetch_outputs(band, chunk, index);
  std::memset(sums_begin, 0, std::size_t(chunk.count * plan_.rows * plan_.width * columns) * 4);
  for (int64_t kh = 0; kh < g_.kernel[1]; ++kh) {
    a.rows = int(list_rows(band, chunk, kh, row_in, row_out));
    a.segment_count = find_segments(live_kt, kh, segments);
    isa_.tap_rows({a, int(g_.kernel[2]), layout_.inputs * columns});
  }
  store(band, chunk, index, first_part + number, sums_begin);
}

// Lines of Y and Z, which will be needed at the end.
void ScatteredTiles::fetch_outputs(const ScatteredBand& band, const FrameChunk& chunk, int64_t index) const {
  if (!g_.channels_last) return;
  const int64_t begin = n_ * g_.m * g_.out[0] * out_pixels() + layout_.block_begin(index);
  for (int32_t f = 0; f < chunk.count; ++f)
    for (int64_t ho = band.row_begin; ho < band.row_end; ++ho) {
      const int64_t row = frames_.frames[std::size_t(chunk.first + f)] * out_pixels() + ho * g_.out[2];
      for (int32_t i = band.span_begin; i < band.span_end; ++i)
        for (int64_t wo = plan_.spans[std::size_t(i)].begin; wo < plan_.spans[std::size_t(i)].end; ++wo)
          for (int64_t column = 0; column < layout_.columns(index); column += 16) {
            const int64_t at = begin + (row + wo) * g_.m + column;
            __builtin_prefetch(static_cast<const float*>(call_.y) + at, 1);
            if (call_.z) __builtin_prefetch(static_cast<const float*>(call_.z) + at);
          }
    }
}

// The inputs that kernel row kh of all outputs of the band reads, and what they are added to by its first position.
int64_t ScatteredTiles::list_rows(const ScatteredBand& band, const FrameChunk& chunk, int64_t kh, int64_t* row_in,
                                  int32_t* row_out) const {
  int64_t count = 0;
  for (int64_t ho = band.row_begin; ho < band.row_end; ++ho) {
    const std::size_t line = std::size_t(band.line + ho - band.row_begin + kh);
    const ScatteredInput *begin = plan_.inputs.data() + plan_.lines[line], *end = plan_.inputs.data() + plan_.lines[line + 1];
    for (int32_t f = 0; f < chunk.count && begin != end; ++f) {
      const int64_t t = frames_.frames[std::size_t(chunk.first + f)] * g_.strides[0] - g_.pads[0];
      const int64_t in = (t * pixels() + (ho - g_.pads[1] + kh) * g_.w) * shared_.x.stride;
      const int32_t out = int32_t((f * plan_.rows + ho - band.row_begin) * plan_.width);
      for (const ScatteredInput* input = begin; input != end; ++input) {
        row_in[count] = in + input->column * shared_.x.stride;
        row_out[count++] = out + input->place;
      }
    }
  }
  return count;
}

// Of the first position of kernel row kh.
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

void ScatteredTiles::store(const ScatteredBand& band, const FrameChunk& chunk, int64_t index, int64_t part,
                           const float* sums) const {
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
    for (int64_t ho = band.row_begin; ho < band.row_end; ++ho)
      for (int32_t i = band.span_begin; i < band.span_end; ++i) {
        const ScatteredSpan& span = plan_.spans[std::size_t(i)];
        const int64_t pixel = ho * g_.out[2] + span.begin;
        const int64_t at = n_ * g_.m * g_.out[0] * out_pixels() + (to * out_pixels() + pixel) * a.pixel_stride;
        a.pixels = span.end - span.begin;
        a.acc = sums + ((f * plan_.rows + ho - band.row_begin) * plan_.width + span.place) * a.acc_stride;
        a.y = static_cast<float*>(call_.y) + at;
        a.z = call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
        isa_.store(a);
        shared_.magnitudes->add(part, index, to, a.first_channel, a.count, pixel, a.pixels);
      }
  }
}

}  // namespace dance
