#include "pointwise.h"

#include <algorithm>
#include <cstring>

#include "pack.h"

namespace dance {
namespace {

constexpr int64_t kItems = 8;         // fewer leave threads idle at the end
constexpr int64_t kItemPixels = 120;  // of output: their sums, 64 columns at a time, stay in the L1 cache

// Work items are runs of rows of the output, from input to finished output: those of live frames first.
class PointwiseClip : ClipCall {
 public:
  explicit PointwiseClip(const ClipCall& clip)
      : ClipCall(clip), layout_(g_, isa_),
        magnitudes_(call_.magnitudes, call_.y, g_.type, true, n_, g_.out[0], g_.m, out_pixels()) {}

  void run() {
    find_weights();
    const int64_t all = g_.out[0] * g_.out[1], live = order_frames() * out_pixels();
    rows_ = std::max<int64_t>(1, std::min(kItemPixels, live / kItems) / g_.out[2]);
    const int64_t items = (all + rows_ - 1) / rows_;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    const std::size_t item_pixels = std::size_t(rows_ * g_.out[2]);
    sums_ = ws_.sums.of<float>(workers * item_pixels * std::size_t(isa_.block()));
    row_in_ = ws_.rows.of<int64_t>(workers * item_pixels * 2);
    row_out_ = reinterpret_cast<int32_t*>(row_in_ + workers * item_pixels);
    magnitudes_.begin((g_.out[1] + rows_ - 1) / rows_ + 1, 1, ws_);
    for_items(parallel_, items, [&](int worker, int64_t item) {
      const int64_t end = std::min((item + 1) * rows_, all);
      compute(worker, item * rows_, end);
      if (magnitudes_.wanted()) add_magnitudes(item * rows_, end);
    });
    magnitudes_.end();
  }

 private:

  // Output frames whose input is kept, then the others; returns how many the former are.
  int64_t order_frames() {
    int32_t* frames = ws_.segments.of<int32_t>(std::size_t(g_.out[0]));
    frames_ = frames;
    const auto kept = [&](int64_t to) { return kept_.masks.frame[to * g_.strides[0]] != 0; };
    for (int64_t to = 0; to < g_.out[0]; ++to)
      if (kept(to)) *frames++ = int32_t(to);
    const int64_t live = frames - frames_;
    for (int64_t to = 0; to < g_.out[0]; ++to)
      if (!kept(to)) *frames++ = int32_t(to);
    return live;
  }

  void find_weights() {
    if (call_.packed && call_.packed->isa == &isa_) {
      weights_ = call_.packed->floats;
    } else {
      float* out = ws_.weights.of<float>(std::size_t(layout_.floats()));
      if (n_ == 0) pack_weights(layout_, call_.w, g_.type, out);
      weights_ = out;
    }
    float* bias = ws_.bias.of<float>(std::size_t(g_.m));
    to_floats(call_.b, g_.type, g_.m, bias);
    bias_ = bias;
    if (kept_.all_channels) return;
    int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(kept_.channels + kPrefetchRows));
    for (int32_t i = 0; i < kept_.channels; ++i) index[i] = int32_t(kept_.channel[i] % layout_.inputs);
    extend_index(index, kept_.channels, 0);
    index_ = index;
  }

  // Rows [begin, end) of the output, frame after frame in the order of frames_.
  void compute(int worker, int64_t begin, int64_t end) const {
    int64_t* row_in = row_in_ + worker * rows_ * g_.out[2];
    int32_t* row_out = row_out_ + worker * rows_ * g_.out[2];
    RowsArgs a{};
    const float* x = static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c;
    a.x = x;
    a.row_in = row_in, a.row_out = row_out;
    for (int64_t row = begin; row < end; ++row) list_row(row, begin, a, row_in, row_out);
    const int rows = a.rows;
    a.index_inputs = true;
    a.acc = sums_ + worker * rows_ * g_.out[2] * isa_.block();
    for (int64_t group = 0; group < layout_.groups; ++group) {
      const Segment segment{0, 0, kept_.in_group(group), 0};
      a.segments = &segment, a.segment_count = 1;
      a.weight_index = index_ ? index_ + kept_.first[group] : nullptr;
      a.x = x + group * layout_.inputs;
      a.rows = segment.length ? rows : 0;
      for (int64_t index = 0; index < layout_.blocks(); ++index) compute_block(a, group, index, begin, end);
    }
  }

  void compute_block(RowsArgs& a, int64_t group, int64_t index, int64_t begin, int64_t end) const {
    a.vectors = layout_.vectors(index);
    a.weights = weights_ + layout_.offset(group, index);
    const int64_t columns = int64_t(a.vectors) * isa_.vector, count = (end - begin) * g_.out[2];
    if (a.rows > 0 && a.rows < count) std::memset(a.acc, 0, std::size_t(count * columns) * 4);  // of dropped pixels
    isa_.rows(a);
    for (int64_t row = begin; row < end;) {
      const int64_t next = std::min(end, (row / g_.out[1] + 1) * g_.out[1]);
      store(group, index, row, next, a.rows ? a.acc + (row - begin) * g_.out[2] * columns : nullptr);
      row = next;
    }
  }

  // Of finished rows [begin, end): what an item has of a frame is a part of its own.
  void add_magnitudes(int64_t begin, int64_t end) const {
    for (int64_t row = begin; row < end;) {
      const int64_t next = std::min(end, (row / g_.out[1] + 1) * g_.out[1]), first = row % g_.out[1];
      magnitudes_.add((first + rows_ - 1) / rows_, 0, frames_[row / g_.out[1]], 0, g_.m, first * g_.out[2],
                      (next - row) * g_.out[2]);
      row = next;
    }
  }

  // Adds the kept pixels of a row to the list.
  void list_row(int64_t row, int64_t begin, RowsArgs& a, int64_t* row_in, int32_t* row_out) const {
    const int64_t t = frames_[row / g_.out[1]] * g_.strides[0], h = row % g_.out[1] * g_.strides[1];
    if (!kept_.masks.frame[t] || kept_.channels == 0) return;
    const int64_t in = (t * pixels() + h * g_.w) * g_.c;
    const uint8_t* keep = kept_.masks.feature + h * g_.w;
    int32_t out = int32_t((row - begin) * g_.out[2]);
    for (int64_t wo = 0; wo < g_.out[2]; ++wo) {
      const int64_t w = wo * g_.strides[2];
      row_in[a.rows] = in + w * g_.c, row_out[a.rows] = out++;
      __builtin_prefetch(a.x + in + w * g_.c);  // scattered pixels are not what the processor fetches ahead by itself
      a.rows += keep[w] != 0;
    }
  }

  // Columns of one block of a group, of rows [begin, end) of one frame.
  void store(int64_t group, int64_t index, int64_t begin, int64_t end, const float* sums) const {
    StoreArgs a{};
    a.acc = sums;
    a.acc_stride = int64_t(layout_.vectors(index)) * isa_.vector;
    a.pixels = int((end - begin) * g_.out[2]);
    a.count = layout_.columns(index);
    a.first_channel = group * layout_.outputs + layout_.block_begin(index);
    a.bias = bias_ + a.first_channel;
    a.minimum = call_.minimum;
    a.channel_stride = 1;
    a.pixel_stride = g_.m;
    a.type = g_.type;
    const int64_t row = (n_ * g_.out[0] + frames_[begin / g_.out[1]]) * g_.out[1] + begin % g_.out[1];
    const int64_t at = row * g_.out[2] * g_.m;
    a.y = static_cast<float*>(call_.y) + at;
    a.z = call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
    isa_.store(a);
  }

  const PackedLayout layout_;
  Magnitudes magnitudes_;
  const float* weights_ = nullptr;
  const float* bias_ = nullptr;
  const int32_t* index_ = nullptr;
  int64_t rows_ = 1;             // of the output, of an item
  const int32_t* frames_ = nullptr;
  float* sums_ = nullptr;
  int64_t* row_in_ = nullptr;
  int32_t* row_out_ = nullptr;
};

}  // namespace

bool is_pointwise(const ConvGeometry& g) {
  const auto zero = [](int64_t pad) { return pad == 0; };
  return g.channels_last && g.type == Type::f32 && g.kernel[0] * g.kernel[1] * g.kernel[2] == 1 && std::all_of(g.pads, g.pads + 6, zero);
}

void pointwise_conv3d(const ClipCall& clip) {
  PointwiseClip(clip).run();
}

}  // namespace dance
