#include "padded.h"

#include <algorithm>
#include <cstring>

#include "live_spans.h"
#include "pack.h"

namespace dance {
namespace {

constexpr int64_t kFewInputs = 8;      // along outputs: a copy of more costs too much beside so few products
// Along inputs: products must be below this share of those along outputs; with strides, inputs serve fewer of them.
constexpr double kFewProducts = 0.8, kFewStridedProducts = 0.45;
constexpr int64_t kItems = 8;          // fewer leave threads idle at the end
constexpr int64_t kItemPixels = 640;   // of output
constexpr int32_t kGap = 3;            // dead pixels that are computed all the same: a tile of few takes as long

// Rows of the map are copied, with zeros left and right of them and at dropped pixels: then all pixels of a span read the
// same positions at even distances, and no plan of who reads what is needed.
class PaddedClip : ClipCall {
 public:
  explicit PaddedClip(const ClipCall& clip)
      : ClipCall(clip), layout_(g_, isa_),
        along_inputs_(padded_way(call_, kept_.channels, isa_) == PaddedWay::inputs),
        // whole vectors are multiplied anyway: by zeros for what is dropped of them
        masked_(along_inputs_ && !kept_.all_channels && g_.channels_last && g_.type == Type::f32 &&
                g_.c % isa_.vector == 0 && g_.c - kept_.channels < isa_.vector),
        channels_(masked_ ? g_.c : kept_.channels), by_output_(layout_, channels_),
        stride_(along_inputs_ ? by_output_.vectors * isa_.vector : channels_),
        magnitudes_(call_.magnitudes, call_.y, g_.type, g_.channels_last, n_, g_.out[0], g_.m, out_pixels()) {}

  void run() {
    find_bias();
    find_weights();
    if (kept_.channels > 0) {
      spans_ = find_spans(g_, kept_, kGap, ws_);
      load();
    }
    const int64_t rows = std::max<int64_t>(1, std::min(kItemPixels, g_.out[0] * out_pixels() / kItems) / g_.out[2]);
    rows_ = std::min(rows, g_.out[1]);
    const int64_t parts = (g_.out[1] + rows_ - 1) / rows_, items = g_.out[0] * parts;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    sums_ = ws_.sums.of<float>(workers * std::size_t(worker_sums()));
    row_y_ = ws_.rows.of<int64_t>(workers * std::size_t(2 * g_.out[2]));
    segments_ = ws_.segments.of<Segment>(workers * std::size_t(layout_.taps));
    magnitudes_.begin(parts, 1, ws_);
    for_items(parallel_, items, [&](int worker, int64_t item) {
      const int64_t part = item % parts, to = item / parts, begin = part * rows_, end = std::min(begin + rows_, g_.out[1]);
      compute(worker, to, begin, end);
      magnitudes_.add(part, 0, to, 0, g_.m, begin * g_.out[2], (end - begin) * g_.out[2]);
    });
    magnitudes_.end();
  }

 private:
  int64_t element_bytes() const { return g_.type == Type::f32 ? 4 : 2; }
  int64_t worker_sums() const { return std::max((g_.out[2] + kTileRows) * isa_.block(), g_.out[2] * g_.m); }
  int64_t frame_floats() const { return g_.h * width_ * stride_; }
  bool live(int64_t to, int64_t kt) const {
    const int64_t t = to * g_.strides[0] - g_.pads[0] + kt * g_.dilations[0];
    return t >= 0 && t < g_.t && kept_.masks.frame[t];
  }
  const float* inputs_of(int64_t ho, int64_t wo) const {  // of output pixel (ho, wo), frame 0, kernel position 0
    return x_ + ((ho * g_.strides[1] - g_.pads[1]) * width_ + wo * g_.strides[2]) * stride_;
  }

  void find_bias();
  void find_weights();
  void load();
  void load_row(int64_t t, int64_t h, float* row) const;
  int find_segments(int64_t to, uint64_t kernel_rows, Segment* out) const;
  void compute(int worker, int64_t to, int64_t begin, int64_t end) const;
  void row_along_outputs(RowsArgs& a, int64_t to, int64_t ho, int64_t index, Segment* segments) const;
  void row_along_inputs(FewOutputsArgs& a, int64_t to, int64_t ho, float* sums, Segment* segments) const;
  void store_columns(int64_t to, int64_t ho, int64_t begin, int64_t end, int64_t index, const float* sums) const;
  void store_row(int64_t to, int64_t ho, const float* sums) const;
  void store(StoreArgs& a, int64_t to, int64_t ho, int64_t begin) const;

  const PackedLayout layout_;
  const bool along_inputs_, masked_;
  const int64_t channels_;          // of a position: kept ones, or all, with zeros for the others
  const ByOutputLayout by_output_;  // of these
  const int64_t stride_;            // floats from position to position
  Magnitudes magnitudes_;           // parts: those of the rows
  LiveSpans spans_{};
  const float* x_ = nullptr;        // [T][H][width_][stride_]; the first pad_ pixels of a row and those past W are zeros
  int64_t width_ = 0, pad_ = 0;
  const float* weights_ = nullptr;
  const int32_t* weight_index_ = nullptr;
  const float* bias_ = nullptr;     // [M]; along inputs, channels last: for every pixel of a row
  const uint32_t* keep_ = nullptr;  // of a frame's floats as they lie, where some pixels are dropped
  int64_t rows_ = 0;                // of output, of an item
  float* sums_ = nullptr;           // of a row of output, and of a tile
  int64_t* row_y_ = nullptr;
  Segment* segments_ = nullptr;
};

void PaddedClip::find_bias() {
  const int64_t pixels = along_inputs_ && g_.channels_last ? g_.out[2] : 1;
  float* bias = ws_.bias.of<float>(std::size_t(pixels * g_.m));
  to_floats(call_.b, g_.type, g_.m, bias);
  for (int64_t i = 1; i < pixels; ++i) std::memcpy(bias + i * g_.m, bias, std::size_t(g_.m) * 4);
  bias_ = bias;
}

void PaddedClip::find_weights() {
  if (along_inputs_) {
    weights_ = channels_ == g_.c ? call_.packed->by_output(g_) : nullptr;
    if (weights_) return;
    float* out = ws_.weights.of<float>(std::size_t(by_output_.floats()));
    pack_by_output(layout_, call_.packed->floats, kept_.channel, kept_.channels, out);
    weights_ = out;
    return;
  }
  weights_ = packed_weights(layout_);
  if (kept_.all_channels) return;
  const int64_t entries = kept_.channels * g_.kernel[2];
  int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(entries + kPrefetchRows));
  for (int64_t kw = 0, i = 0; kw < g_.kernel[2]; ++kw)
    for (int32_t c = 0; c < kept_.channels; ++c) index[i++] = int32_t(kw * g_.c) + kept_.channel[c];
  extend_index(index, entries, g_.c * g_.kernel[2]);
  weight_index_ = index;
}

void PaddedClip::load() {
  const int64_t past = along_inputs_ ? kFewOutputsPast : 0;
  // positions of a row that are read, from -pad on
  const int64_t read = (g_.out[2] + past - 1) * g_.strides[2] + (g_.kernel[2] - 1) * g_.dilations[2] + 1;
  const bool as_it_lies = g_.channels_last && g_.type == Type::f32 && channels_ == g_.c && stride_ == g_.c;
  if (as_it_lies && kept_.all_pixels && !masked_ && g_.pads[2] == 0 && read <= g_.w) {
    x_ = static_cast<const float*>(call_.x) + n_ * g_.t * g_.h * g_.w * g_.c;
    width_ = g_.w;
    return;
  }
  pad_ = g_.pads[2];
  width_ = std::max(read, pad_ + g_.w);
  float* x = ws_.activation.of<float>(std::size_t(g_.t * frame_floats()));
  x_ = x;
  if (as_it_lies && (masked_ || !kept_.all_pixels)) {
    uint32_t* keep = ws_.float_mask.of<uint32_t>(std::size_t((g_.h * g_.w + 1) * g_.c));
    uint32_t* const pixel = keep + g_.h * g_.w * g_.c;
    for (int64_t c = 0; c < g_.c; ++c) pixel[c] = 0u - uint32_t(kept_.masks.channel[c]);
    keep_ = keep;
    for (int64_t p = 0; p < g_.h * g_.w; ++p, keep += g_.c) {
      if (kept_.masks.feature[p]) std::memcpy(keep, pixel, std::size_t(g_.c) * 4);
      else std::memset(keep, 0, std::size_t(g_.c) * 4);
    }
  }
  for_items(parallel_, g_.t, [&](int, int64_t t) {
    if (!kept_.read_frame[t]) return;
    for (int64_t h = 0; h < g_.h; ++h) {
      float* row = x + t * frame_floats() + h * width_ * stride_;
      std::memset(row, 0, std::size_t(pad_ * stride_) * 4);
      if (as_it_lies) {
        const int64_t at = h * g_.w * g_.c, count = g_.w * g_.c;
        const float* from = static_cast<const float*>(call_.x) + (n_ * g_.t + t) * g_.h * g_.w * g_.c + at;
        if (keep_) isa_.select(from, keep_ + at, count, row + pad_ * stride_);
        else std::memcpy(row + pad_ * stride_, from, std::size_t(count) * 4);
      } else {
        load_row(t, h, row + pad_ * stride_);
      }
      std::memset(row + (pad_ + g_.w) * stride_, 0, std::size_t((width_ - pad_ - g_.w) * stride_) * 4);
    }
  });
}

void PaddedClip::load_row(int64_t t, int64_t h, float* row) const {
  const int64_t pixels = g_.h * g_.w;
  const int64_t at = g_.channels_last ? (t * pixels + h * g_.w) * g_.c : t * pixels + h * g_.w;
  LoadArgs a{};
  a.x = static_cast<const char*>(call_.x) + (n_ * g_.c * g_.t * pixels + at) * element_bytes();
  a.type = g_.type;
  a.channels_last = g_.channels_last;
  a.channel_stride = g_.channels_last ? g_.c : g_.t * pixels;
  a.channels = kept_.channel;
  a.count = kept_.channels;
  a.keep = kept_.masks.feature + h * g_.w;
  a.zero_dropped = true;
  a.end = g_.w;
  a.out = row;
  a.out_stride = stride_;
  isa_.load(a);
}

// What output frame `to` and these rows of the kernel read; along inputs in vectors of them.
int PaddedClip::find_segments(int64_t to, uint64_t kernel_rows, Segment* out) const {
  const bool joined = g_.dilations[2] == 1;  // neighbours along W lie side by side, in the weights too
  const int64_t runs = joined ? 1 : g_.kernel[2], taps = joined ? g_.kernel[2] : 1;
  const int64_t length = along_inputs_ ? by_output_.vectors : kept_.channels;
  const int64_t tap_rows = along_inputs_ ? by_output_.vectors : g_.c;
  int count = 0;
  for (int64_t kt = 0; kt < g_.kernel[0]; ++kt) {
    if (!live(to, kt)) continue;
    const int64_t t = to * g_.strides[0] - g_.pads[0] + kt * g_.dilations[0];
    for (int64_t kh = 0; kh < g_.kernel[1]; ++kh) {
      if (!(kernel_rows >> kh & 1)) continue;
      const int64_t at = t * frame_floats() + kh * g_.dilations[1] * width_ * stride_;
      const int64_t weight = (kt * g_.kernel[1] + kh) * g_.kernel[2] * tap_rows;
      for (int64_t kw = 0; kw < runs; ++kw)
        out[count++] = {at + kw * g_.dilations[2] * stride_, weight + (weight_index_ ? 0 : kw * tap_rows),
                        int32_t(taps * length), int32_t(kw * kept_.channels)};
    }
  }
  return count;
}

void PaddedClip::compute(int worker, int64_t to, int64_t begin, int64_t end) const {
  float* sums = sums_ + worker * worker_sums();
  Segment* segments = segments_ + worker * layout_.taps;
  bool any = false;
  for (int64_t kt = 0; kt < g_.kernel[0]; ++kt) any |= live(to, kt);
  if (!any || kept_.channels == 0) {
    for (int64_t ho = begin; ho < end; ++ho)
      for (int64_t index = 0; index < layout_.blocks(); ++index) {
        if (along_inputs_) store_row(to, ho, nullptr);
        else store_columns(to, ho, 0, g_.out[2], index, nullptr);
      }
    return;
  }
  if (along_inputs_) {
    FewOutputsArgs a{};
    a.step = g_.strides[2] * stride_;
    a.segments = segments;
    a.out_step = g_.m;
    for (int64_t ho = begin; ho < end; ++ho) row_along_inputs(a, to, ho, sums, segments);
    return;
  }
  int64_t* row_y = row_y_ + worker * 2 * g_.out[2];
  int32_t* row_out = reinterpret_cast<int32_t*>(row_y + g_.out[2]);
  for (int64_t wo = 0; wo < g_.out[2]; ++wo) row_y[wo] = wo * g_.m, row_out[wo] = int32_t(wo);
  RowsArgs a{};
  a.step = g_.strides[2] * stride_;
  a.weight_index = weight_index_;
  a.acc = sums;
  a.scratch = sums + g_.out[2] * isa_.block();
  a.row_y = row_y, a.row_out = row_out;
  a.minimum = call_.minimum;
  for (int64_t index = 0; index < layout_.blocks(); ++index)
    for (int64_t ho = begin; ho < end; ++ho) row_along_outputs(a, to, ho, index, segments);
}

// One block of columns of one row of output.
void PaddedClip::row_along_outputs(RowsArgs& a, int64_t to, int64_t ho, int64_t index, Segment* segments) const {
  const int64_t columns = int64_t(layout_.vectors(index)) * isa_.vector, first = layout_.block_begin(index);
  const bool in_place = g_.channels_last && g_.type == Type::f32;
  const int64_t y = ((n_ * g_.out[0] + to) * out_pixels() + ho * g_.out[2]) * g_.m + first;  // where channels last
  float* const sums = a.acc;
  a.vectors = layout_.vectors(index);
  a.weights = weights_ + layout_.offset(0, index);
  a.segments = segments;
  a.bias = bias_ + first;
  a.count = layout_.columns(index);
  int64_t done = 0;
  uint64_t kernel_rows = 0;
  for (const Span* span = spans_.begin(ho); span != spans_.end(ho); ++span) {
    if (span->kernel_rows != kernel_rows) a.segment_count = find_segments(to, span->kernel_rows, segments);
    kernel_rows = span->kernel_rows;
    if (in_place) store_columns(to, ho, done, span->begin, index, nullptr);
    else std::memset(sums + done * columns, 0, std::size_t((span->begin - done) * columns) * 4);
    a.x = inputs_of(ho, span->begin);
    a.rows = span->end - span->begin;
    a.acc = sums + span->begin * columns;
    const int64_t at = y + span->begin * g_.m;
    a.y = in_place ? static_cast<float*>(call_.y) + at : nullptr;
    a.z = in_place && call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
    isa_.rows(a);
    done = span->end;
  }
  a.acc = sums;
  if (in_place || done == 0) return store_columns(to, ho, done, g_.out[2], index, nullptr);
  std::memset(sums + done * columns, 0, std::size_t((g_.out[2] - done) * columns) * 4);
  store_columns(to, ho, 0, g_.out[2], index, sums);
}

void PaddedClip::row_along_inputs(FewOutputsArgs& a, int64_t to, int64_t ho, float* sums, Segment* segments) const {
  int64_t done = 0;
  uint64_t kernel_rows = 0;
  for (const Span* span = spans_.begin(ho); span != spans_.end(ho); ++span) {
    if (span->kernel_rows != kernel_rows) a.segment_count = find_segments(to, span->kernel_rows, segments);
    kernel_rows = span->kernel_rows;
    std::memset(sums + done * g_.m, 0, std::size_t((span->begin - done) * g_.m) * 4);
    a.x = inputs_of(ho, span->begin);
    a.pixels = span->end - span->begin;
    for (int64_t index = 0; index < by_output_.blocks(); ++index) {
      a.outputs = by_output_.columns(index);
      a.weights = weights_ + by_output_.offset(index);
      a.out = sums + span->begin * g_.m + by_output_.block_begin(index);
      isa_.few_outputs(a);
    }
    done = span->end;
  }
  if (done == 0) return store_row(to, ho, nullptr);
  std::memset(sums + done * g_.m, 0, std::size_t((g_.out[2] - done) * g_.m) * 4);
  store_row(to, ho, sums);
}

// Output pixels [begin, end) of a row, one block of columns; sums: of the first of them, or null where they read nothing.
void PaddedClip::store_columns(int64_t to, int64_t ho, int64_t begin, int64_t end, int64_t index,
                               const float* sums) const {
  if (begin >= end) return;
  StoreArgs a{};
  a.acc = sums;
  a.acc_stride = int64_t(layout_.vectors(index)) * isa_.vector;
  a.pixels = int(end - begin);
  a.count = layout_.columns(index);
  a.first_channel = layout_.block_begin(index);
  a.bias = bias_ + a.first_channel;
  a.channel_stride = g_.channels_last ? 1 : g_.out[0] * out_pixels();
  a.pixel_stride = g_.channels_last ? g_.m : 1;
  store(a, to, ho, begin);
}

// A whole row, sums [W'][M]; channels last it is stored as if it were one pixel.
void PaddedClip::store_row(int64_t to, int64_t ho, const float* sums) const {
  StoreArgs a{};
  a.acc = sums;
  a.acc_stride = g_.m;
  a.pixels = g_.channels_last ? 1 : int(g_.out[2]);
  a.count = int(g_.channels_last ? g_.out[2] * g_.m : g_.m);
  a.bias = bias_;
  a.channel_stride = g_.channels_last ? 1 : g_.out[0] * out_pixels();
  a.pixel_stride = g_.channels_last ? a.count : 1;
  store(a, to, ho, 0);
}

void PaddedClip::store(StoreArgs& a, int64_t to, int64_t ho, int64_t begin) const {
  a.minimum = call_.minimum;
  a.type = g_.type;
  const int64_t pixel = to * out_pixels() + ho * g_.out[2] + begin;
  const int64_t at = (n_ * g_.m * g_.out[0] * out_pixels() + pixel * (g_.channels_last ? g_.m : 1)) * element_bytes();
  a.y = static_cast<char*>(call_.y) + at;
  a.z = call_.z ? static_cast<const char*>(call_.z) + at : nullptr;
  isa_.store(a);
}

}  // namespace

PaddedWay padded_way(const ConvCall& call, int64_t kept_channels, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  if (call.pairs || g.group != 1 || g.kernel[1] > kSpanKernelRows) return PaddedWay::none;
  const int64_t vectors = (kept_channels + isa.vector - 1) / isa.vector;
  const int64_t along_outputs = (g.m + isa.vector - 1) / isa.vector * kept_channels;
  const bool by_output = call.packed && call.packed->isa == &isa && kept_channels > 0;
  const double share = g.strides[2] == 1 ? kFewProducts : kFewStridedProducts;
  if (by_output && double(g.m * vectors) < share * double(along_outputs)) return PaddedWay::inputs;
  return kept_channels <= kFewInputs ? PaddedWay::outputs : PaddedWay::none;
}

void padded_conv3d(const ClipCall& clip) {
  PaddedClip(clip).run();
}

}  // namespace dance
