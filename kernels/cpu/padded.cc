#include "padded.h"

#include <algorithm>
#include <cstring>

#include "by_pixel.h"
#include "live_spans.h"
#include "pack.h"
#include "row_store.h"

namespace dance {
namespace {

constexpr int64_t kFewInputs = 8;      // along outputs: a copy of more costs too much beside so few products
// Along inputs: products must be below this share of those along outputs; with strides, inputs serve fewer of them.
constexpr double kFewProducts = 0.8, kFewStridedProducts = 0.45;
constexpr int64_t kItems = 8;          // fewer leave threads idle at the end
constexpr int64_t kItemPixels = 640;   // of output
constexpr double kSpanProducts = 150;  // in products of a vector: beginning and ending a span
constexpr double kOutputProducts = 6;  // a vector of outputs, with its store
// What a product of by_pixel.cc takes beside one of the spans, along inputs and along outputs.
constexpr double kByPixelInputs = 0.65, kByPixelOutputs = 1.45;
constexpr int32_t kGap = 3;            // dead pixels that are computed all the same: a tile of few takes as long

// Rows of the map are copied, with zeros left and right of them and at dropped pixels: then all pixels of a span read the
// same positions at even distances, and no plan of who reads what is needed.
class PaddedClip : ClipCall {
 public:
  PaddedClip(const ClipCall& clip, const LiveSpans& spans)
      : ClipCall(clip), layout_(g_, isa_),
        along_inputs_(padded_way(call_, kept_.channels, isa_) == PaddedWay::inputs),
        // whole vectors are multiplied anyway: by zeros for what is dropped of them
        masked_(along_inputs_ && g_.channels_last && g_.type == Type::f32 && vectors(g_.c) == vectors(kept_.channels)),
        channels_(masked_ ? g_.c : kept_.channels), by_output_(layout_, channels_),
        stride_(along_inputs_ ? by_output_.vectors * isa_.vector : channels_),
        magnitudes_(call_.magnitudes, call_.y, g_.type, g_.channels_last, n_, g_.out[0], g_.m, out_pixels()),
        spans_(spans) {}

  void run() {
    bias_ = repeated_bias(*this, along_inputs_ && g_.channels_last ? g_.out[2] : 1);
    find_weights();
    if (kept_.channels > 0) load();
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
  int64_t vectors(int64_t channels) const { return (channels + isa_.vector - 1) / isa_.vector; }
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

  void find_weights();
  void find_masks(bool as_it_lies);
  void load();
  void load_row(int64_t t, int64_t h, int64_t begin, int64_t pixels, bool as_it_lies, float* out) const;
  void load_channels(int64_t t, int64_t first, int64_t count, float* out) const;
  struct Listed;
  int find_segments(int64_t to, uint64_t kernel_rows, Segment* out) const;
  void compute(int worker, int64_t to, int64_t begin, int64_t end) const;
  void row_along_outputs(RowsArgs& a, int64_t to, int64_t ho, int64_t index, Listed& segments) const;
  void row_along_inputs(FewOutputsArgs& a, int64_t to, int64_t ho, float* sums, Listed& segments) const;
  void store_columns(int64_t to, int64_t ho, int64_t begin, int64_t end, int64_t index, const float* sums) const;

  const PackedLayout layout_;
  const bool along_inputs_, masked_;
  const int64_t channels_;          // of a position: kept ones, or all, with zeros for the others
  const ByOutputLayout by_output_;  // of these
  const int64_t stride_;            // floats from position to position
  Magnitudes magnitudes_;           // parts: those of the rows
  const LiveSpans spans_;           // of kept pixels; not looked at where no channel is kept
  const float* x_ = nullptr;        // [T][H][width_][stride_]; the first pad_ pixels of a row and those past W are zeros
  int64_t width_ = 0, pad_ = 0;
  const float* weights_ = nullptr;
  const int32_t* weight_index_ = nullptr;
  const float* bias_ = nullptr;     // [M]; along inputs, channels last: for every pixel of a row
  const uint32_t* select_ = nullptr;  // see WholeVectorsArgs, or null
  const uint32_t* keep_ = nullptr;    // of a frame's floats as they lie, or null
  int64_t rows_ = 0;                // of output, of an item
  float* sums_ = nullptr;           // of a row of output, and of a tile
  int64_t* row_y_ = nullptr;
  Segment* segments_ = nullptr;
};

// Segments of an output frame: the same for all rows that read these rows of the kernel.
struct PaddedClip::Listed {
  Segment* out;
  uint64_t kernel_rows = 0;
  int count = 0;

  int of(const PaddedClip& clip, int64_t to, uint64_t rows) {
    if (rows != kernel_rows) count = clip.find_segments(to, rows, out);
    kernel_rows = rows;
    return count;
  }
};

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

// Channels and pixels of channels-last floats that are kept: of each channel, of each float of the map, or nothing where
// rows are copied as they lie.
void PaddedClip::find_masks(bool as_it_lies) {
  if (masked_ && !(as_it_lies && kept_.all_channels && kept_.all_pixels)) {
    uint32_t* select = ws_.float_mask.of<uint32_t>(std::size_t(stride_));
    for (int64_t c = 0; c < stride_; ++c) select[c] = 0u - uint32_t(c < g_.c && kept_.masks.channel[c]);
    select_ = select;
  } else if (as_it_lies && !kept_.all_pixels) {
    uint32_t* keep = ws_.float_mask.of<uint32_t>(std::size_t(g_.h * g_.w * g_.c));
    keep_ = keep;
    for (int64_t h = 0; h < g_.h; ++h)
      for (int64_t p = h * g_.w + spans_.read_begin(h); p < h * g_.w + spans_.read_end(h); ++p)
        std::fill(keep + p * g_.c, keep + (p + 1) * g_.c, 0u - uint32_t(kept_.masks.feature[p]));
  }
}

void PaddedClip::load() {
  // positions of a row that are read, from -pad on
  const int64_t read = (g_.out[2] - 1) * g_.strides[2] + (g_.kernel[2] - 1) * g_.dilations[2] + 1;
  const bool as_it_lies = g_.channels_last && g_.type == Type::f32 && channels_ == g_.c && stride_ == g_.c;
  if (as_it_lies && kept_.all_pixels && kept_.all_channels && g_.pads[2] == 0 && read <= g_.w) {
    x_ = static_cast<const float*>(call_.x) + n_ * g_.t * g_.h * g_.w * g_.c;
    width_ = g_.w;
    return;
  }
  pad_ = g_.pads[2];
  width_ = std::max(read, pad_ + g_.w);
  float* x = ws_.activation.of<float>(std::size_t(g_.t * frame_floats()));
  x_ = x;
  find_masks(as_it_lies);
  for_items(parallel_, g_.t, [&](int, int64_t t) {
    if (!kept_.read_frame[t]) return;
    for (int64_t h = 0; h < g_.h; ++h) {
      const int64_t begin = spans_.read_begin(h), pixels = spans_.read_end(h) - begin;
      if (pixels == 0) continue;
      float* const row = x + (t * g_.h + h) * width_ * stride_;
      std::memset(row, 0, std::size_t(pad_ * stride_) * 4);
      load_row(t, h, begin, pixels, as_it_lies, row + (pad_ + begin) * stride_);
      std::memset(row + (pad_ + g_.w) * stride_, 0, std::size_t((width_ - pad_ - g_.w) * stride_) * 4);
    }
  });
}

// Pixels [begin, begin + pixels) of row h of frame t.
void PaddedClip::load_row(int64_t t, int64_t h, int64_t begin, int64_t pixels, bool as_it_lies, float* out) const {
  const int64_t pixel = h * g_.w + begin, first = (n_ * g_.t + t) * g_.h * g_.w + pixel;
  const float* from = static_cast<const float*>(call_.x) + first * g_.c;  // where channels last, of floats
  if (select_) isa_.whole_vectors({from, g_.c, pixels, kept_.masks.feature + pixel, select_, out});
  else if (keep_) isa_.select(from, keep_ + pixel * g_.c, pixels * g_.c, out);
  else if (as_it_lies) std::memcpy(out, from, std::size_t(pixels * g_.c) * 4);
  else load_channels(t, pixel, pixels, out);
}

void PaddedClip::load_channels(int64_t t, int64_t first, int64_t count, float* out) const {
  const int64_t pixels = g_.h * g_.w;
  const int64_t at = g_.channels_last ? (t * pixels + first) * g_.c : t * pixels + first;
  LoadArgs a{};
  a.x = static_cast<const char*>(call_.x) + (n_ * g_.c * g_.t * pixels + at) * element_bytes();
  a.type = g_.type;
  a.channels_last = g_.channels_last;
  a.channel_stride = g_.channels_last ? g_.c : g_.t * pixels;
  a.channels = kept_.channel;
  a.count = kept_.channels;
  a.keep = kept_.masks.feature + first;
  a.zero_dropped = true;
  a.end = count;
  a.out = out;
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
  Listed segments{segments_ + worker * layout_.taps};
  bool any = false;
  for (int64_t kt = 0; kt < g_.kernel[0]; ++kt) any |= live(to, kt);
  if (!any || kept_.channels == 0) {
    for (int64_t ho = begin; ho < end; ++ho)
      for (int64_t index = 0; index < layout_.blocks(); ++index) {
        if (along_inputs_) store_row(*this, bias_, to, ho, nullptr);
        else store_columns(to, ho, 0, g_.out[2], index, nullptr);
      }
    return;
  }
  if (along_inputs_) {
    FewOutputsArgs a{};
    a.step = g_.strides[2] * stride_;
    a.segments = segments.out;
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
void PaddedClip::row_along_outputs(RowsArgs& a, int64_t to, int64_t ho, int64_t index, Listed& segments) const {
  const int64_t columns = int64_t(layout_.vectors(index)) * isa_.vector, first = layout_.block_begin(index);
  const bool in_place = g_.channels_last && g_.type == Type::f32;
  const int64_t y = ((n_ * g_.out[0] + to) * out_pixels() + ho * g_.out[2]) * g_.m + first;  // where channels last
  float* const sums = a.acc;
  a.vectors = layout_.vectors(index);
  a.weights = weights_ + layout_.offset(0, index);
  a.segments = segments.out;
  a.bias = bias_ + first;
  a.count = layout_.columns(index);
  int64_t done = 0;
  for (const Span* span = spans_.begin(ho); span != spans_.end(ho); ++span) {
    a.segment_count = segments.of(*this, to, span->kernel_rows);
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

void PaddedClip::row_along_inputs(FewOutputsArgs& a, int64_t to, int64_t ho, float* sums, Listed& segments) const {
  int64_t done = 0;
  for (const Span* span = spans_.begin(ho); span != spans_.end(ho); ++span) {
    a.segment_count = segments.of(*this, to, span->kernel_rows);
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
  if (done == 0) return store_row(*this, bias_, to, ho, nullptr);
  std::memset(sums + done * g_.m, 0, std::size_t((g_.out[2] - done) * g_.m) * 4);
  store_row(*this, bias_, to, ho, sums);
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
  store_in_row(*this, a, to, ho, begin);
}

// Vectors of products of the spans, and what beginning and storing them takes, as by_pixel_products counts.
double span_products(const ClipCall& clip, const LiveSpans& spans, PaddedWay way) {
  const ConvGeometry& g = clip.g_;
  const int64_t channels = clip.kept_.channels, vector = clip.isa_.vector;
  int64_t positions = 0, frames = 0;  // pairs of output pixel and kernel row; of output and kernel frame
  if (channels == 0) return 0;
  for (const Span* span = spans.begin(0); span != spans.end(g.out[1] - 1); ++span)
    positions += (span->end - span->begin) * __builtin_popcountll(span->kernel_rows);
  for (int64_t to = 0; to < g.out[0]; ++to)
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      const int64_t t = to * g.strides[0] - g.pads[0] + kt * g.dilations[0];
      frames += t >= 0 && t < g.t && clip.kept_.masks.frame[t];
    }
  const double products = way == PaddedWay::inputs ? double(g.m * ((channels + vector - 1) / vector))
                                                   : double((g.m + vector - 1) / vector * channels);
  const int64_t count = spans.end(g.out[1] - 1) - spans.begin(0);
  const double outputs = double(g.out[0] * g.out[1] * g.out[2] * g.m) / double(vector);
  return double(positions * frames * g.kernel[2]) * products + kSpanProducts * double(count * g.out[0]) +
         kOutputProducts * outputs;
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
  const LiveSpans spans = clip.kept_.channels > 0 ? find_spans(clip.g_, clip.kept_, kGap, clip.ws_) : LiveSpans{};
  const PaddedWay way = padded_way(clip.call_, clip.kept_.channels, clip.isa_);
  const double product = way == PaddedWay::inputs ? kByPixelInputs : kByPixelOutputs;
  const double by_pixel = product * by_pixel_products(clip.call_, clip.kept_, clip.isa_);
  const bool direct = clip.call_.variant == Variant::direct;
  if (!direct && by_pixel < span_products(clip, spans, way)) by_pixel_conv3d(clip);
  else PaddedClip(clip, spans).run();
}

}  // namespace dance
