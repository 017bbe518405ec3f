#include "by_pixel.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "load.h"
#include "row_store.h"

namespace dance {
namespace {

constexpr int64_t kItems = 8;              // fewer leave threads idle at the end
constexpr int64_t kItemPixels = 640;       // of output
constexpr int64_t kSumBytes = 24 << 10;    // of sums worked on together: half of the L1 cache
// In products of a vector, measured with AVX-512: what surrounds those of an input pixel with a kernel row of one frame;
// clearing a vector of sums; adding up and storing one of outputs.
constexpr double kPixelProducts = 9, kClearProducts = 1.5, kOutputProducts = 13;

class ByPixelClip : ClipCall {
 public:
  ByPixelClip(const ClipCall& clip, const LiveSpans& spans)
      : ClipCall(clip), layout_(g_, isa_), spans_(spans), columns_(g_.out[2] + g_.kernel[2] - 1),
        step_(std::max<int64_t>(1, kSumBytes / 4 / (columns_ * layout_.width))),
        magnitudes_(call_.magnitudes, call_.y, g_.type, g_.channels_last, n_, g_.out[0], g_.m, out_pixels()) {}

  void run() {
    find_inputs();
    find_weights();
    list_pixels();
    const int64_t rows = std::max<int64_t>(1, std::min(kItemPixels, g_.out[0] * out_pixels() / kItems) / g_.out[2]);
    const int64_t item_rows = std::min(rows, g_.out[1]);
    step_ = std::min(step_, item_rows);
    const int64_t parts = (g_.out[1] + item_rows - 1) / item_rows, items = g_.out[0] * parts;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    sums_ = ws_.sums.of<float>(workers * std::size_t(worker_sums()));
    row_in_ = ws_.rows.of<int64_t>(workers * std::size_t(2 * most_rows()));
    segments_ = ws_.segments.of<Segment>(workers * std::size_t(g_.kernel[0]));
    magnitudes_.begin(parts, 1, ws_);
    for_items(parallel_, items, [&](int worker, int64_t item) {
      const int64_t part = item % parts, to = item / parts, begin = part * item_rows;
      const int64_t end = std::min(begin + item_rows, g_.out[1]);
      compute(worker, to, begin, end);
      magnitudes_.add(part, 0, to, 0, g_.m, begin * g_.out[2], (end - begin) * g_.out[2]);
    });
    magnitudes_.end();
  }

 private:
  int64_t most_rows() const { return step_ * columns_; }
  // Of input columns, then of output pixels, which are written in whole vectors.
  int64_t worker_sums() const {
    return most_rows() * layout_.width + 2 * isa_.vector + step_ * g_.out[2] * g_.m + isa_.vector;
  }

  void find_inputs();
  void find_weights();
  void list_pixels();
  void compute(int worker, int64_t to, int64_t begin, int64_t end) const;
  void add_inputs(RowsArgs& a, int64_t begin, int64_t end, int64_t* row_in, int32_t* row_out) const;
  void add_up(int64_t begin, int64_t end, int64_t index, const float* sums, float* out) const;

  const ByPixelLayout layout_;
  const LiveSpans spans_;
  const int64_t columns_;            // of sums: input columns that an output reads, from -pad on
  int64_t step_;                     // rows of output worked on together
  Magnitudes magnitudes_;            // parts: those of the rows
  const float* x_ = nullptr;         // [T][H][W][stride]
  int64_t stride_ = 0;
  bool index_inputs_ = false;
  const float* weights_ = nullptr;
  const int32_t* weight_index_ = nullptr;
  const float* bias_ = nullptr;      // [M]; channels last: for every pixel of a row
  const int32_t* first_ = nullptr;   // [H + 1] into kept_columns_
  const int32_t* kept_columns_ = nullptr;
  float* sums_ = nullptr;
  int64_t* row_in_ = nullptr;
  Segment* segments_ = nullptr;
};

void ByPixelClip::find_inputs() {
  if (g_.channels_last && g_.type == Type::f32) {
    x_ = static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c;
    stride_ = g_.c;
    index_inputs_ = !kept_.all_channels;
    return;
  }
  const Loaded loaded = load_kept(call_, n_, isa_, kept_, {1, kept_.channels, false}, ws_, parallel_);
  x_ = loaded.x, stride_ = loaded.stride;
}

void ByPixelClip::find_weights() {
  weights_ = call_.packed->by_pixel(g_);
  bias_ = repeated_bias(*this, g_.channels_last ? g_.out[2] : 1);
  if (kept_.all_channels) return;
  int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(kept_.channels + kPrefetchRows));
  std::copy(kept_.channel, kept_.channel + kept_.channels, index);
  extend_index(index, kept_.channels, g_.c);
  weight_index_ = index;
}

// Kept pixels that an output reads, row by row.
void ByPixelClip::list_pixels() {
  int32_t* first = ws_.float_mask.of<int32_t>(std::size_t(g_.h + 1 + kept_.pixels));
  int32_t* next = first + g_.h + 1;
  first_ = first, kept_columns_ = next;
  const int64_t end = std::min(g_.w, columns_ - g_.pads[2]);
  for (int64_t h = 0; h < g_.h; ++h) {
    first[h] = int32_t(next - kept_columns_);
    for (int64_t w = 0; w < end; ++w)
      if (kept_.masks.feature[h * g_.w + w]) *next++ = int32_t(w);
  }
  first[g_.h] = int32_t(next - kept_columns_);
}

void ByPixelClip::compute(int worker, int64_t to, int64_t begin, int64_t end) const {
  RowsArgs a{};
  Segment* segments = segments_ + worker * g_.kernel[0];
  a.segments = segments;
  for (int64_t kt = 0; kt < g_.kernel[0]; ++kt) {
    const int64_t t = to * g_.strides[0] - g_.pads[0] + kt * g_.dilations[0];
    if (t < 0 || t >= g_.t || !kept_.masks.frame[t]) continue;
    segments[a.segment_count++] = {t * pixels() * stride_, kt * g_.kernel[1] * g_.c, kept_.channels, 0};
  }
  float* const acc = sums_ + worker * worker_sums();
  float* const out = acc + most_rows() * layout_.width + 2 * isa_.vector;
  int64_t* const row_in = row_in_ + worker * 2 * most_rows();
  a.x = x_;
  a.weight_index = weight_index_;
  a.index_inputs = index_inputs_;
  a.acc = acc;
  a.vectors = layout_.vectors();
  a.accumulate = true;
  for (int64_t first = begin; first < end; first += step_) {
    const int64_t last = std::min(first + step_, end);
    const bool any = a.segment_count > 0 && spans_.begin(first) != spans_.begin(last);
    for (int64_t index = 0; any && index < layout_.blocks; ++index) {
      std::memset(acc, 0, std::size_t((last - first) * columns_ * layout_.width) * 4);
      a.weights = weights_ + layout_.offset(index);
      add_inputs(a, first, last, row_in, reinterpret_cast<int32_t*>(row_in + most_rows()));
      add_up(first, last, index, acc, out);
    }
    for (int64_t ho = first; ho < last; ++ho)
      store_row(*this, bias_, to, ho, any && spans_.begin(ho) != spans_.end(ho) ? out + (ho - first) * g_.out[2] * g_.m : nullptr);
  }
}

// All kept inputs of output rows [begin, end), one row of the kernel after the other.
void ByPixelClip::add_inputs(RowsArgs& a, int64_t begin, int64_t end, int64_t* row_in, int32_t* row_out) const {
  const float* const weights = a.weights;
  a.row_in = row_in, a.row_out = row_out;
  for (int64_t kh = 0; kh < g_.kernel[1]; ++kh) {
    int rows = 0;
    for (int64_t ho = begin; ho < end; ++ho) {
      const int64_t h = ho * g_.strides[1] - g_.pads[1] + kh * g_.dilations[1];
      if (h < 0 || h >= g_.h) continue;
      const int32_t place = int32_t((ho - begin) * columns_ + g_.pads[2]);
      for (int32_t i = first_[h]; i < first_[h + 1]; ++i) {
        row_in[rows] = (h * g_.w + kept_columns_[i]) * stride_;
        row_out[rows++] = place + kept_columns_[i];
      }
    }
    a.rows = rows;
    a.weights = weights + kh * g_.c * layout_.width;
    isa_.rows(a);
  }
  a.weights = weights;
}

void ByPixelClip::add_up(int64_t begin, int64_t end, int64_t index, const float* sums, float* out) const {
  NeighbourSumsArgs a{};
  a.step = layout_.width;
  a.taps = int(g_.kernel[2]);
  a.outputs = layout_.columns(index);
  a.out_step = g_.m;
  for (int64_t ho = begin; ho < end; ++ho, sums += columns_ * layout_.width, out += g_.out[2] * g_.m) {
    float* const row = out + layout_.block_begin(index);
    int64_t done = 0;
    for (const Span* span = spans_.begin(ho); span != spans_.end(ho); ++span) {
      if (index == 0) std::memset(out + done * g_.m, 0, std::size_t((span->begin - done) * g_.m) * 4);
      a.sums = sums + span->begin * layout_.width;
      a.out = row + span->begin * g_.m;
      a.pixels = span->end - span->begin;
      isa_.neighbour_sums(a);
      done = span->end;
    }
    if (index == 0) std::memset(out + done * g_.m, 0, std::size_t((g_.out[2] - done) * g_.m) * 4);
  }
}

}  // namespace

double by_pixel_products(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  if (call.pairs || g.group != 1 || kept.all_pixels || kept.channels == 0 || g.strides[2] != 1 || g.dilations[2] != 1 ||
      g.kernel[1] > kSpanKernelRows || g.kernel[2] > isa.block() || !call.packed || call.packed->isa != &isa)
    return std::numeric_limits<double>::infinity();
  const ByPixelLayout layout(g, isa);
  int64_t pairs = 0;  // of live output and kernel frames
  for (int64_t to = 0; to < g.out[0]; ++to)
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      const int64_t t = to * g.strides[0] - g.pads[0] + kt * g.dilations[0];
      pairs += t >= 0 && t < g.t && kept.masks.frame[t];
    }
  const double vectors = double(layout.blocks * layout.vectors()), outputs = double(g.out[0] * g.out[1] * g.out[2]);
  const double rows = double(g.kernel[1]) / double(g.strides[1]) * double(kept.pixels);  // read by an output frame
  return rows * double(pairs) * (vectors * double(kept.channels) + kPixelProducts * double(layout.blocks)) +
         outputs * (kClearProducts * vectors + kOutputProducts * double((g.m + isa.vector - 1) / isa.vector));
}

void by_pixel_conv3d(const ClipCall& clip, const LiveSpans& spans) {
  ByPixelClip(clip, spans).run();
}

}  // namespace dance
