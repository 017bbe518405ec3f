#include "pointwise.h"

#include <algorithm>

#include "pack.h"

namespace dance {
namespace {

constexpr int64_t kItems = 8;         // fewer leave threads idle at the end
constexpr int64_t kItemPixels = 120;  // of output: what blocks of output channels all read stays in the caches

// Work items are runs of rows of the output, from input to finished output: those of live frames first.
class PointwiseClip : ClipCall {
 public:
  explicit PointwiseClip(const ClipCall& clip)
      : ClipCall(clip), layout_(g_, isa_),
        magnitudes_(call_.magnitudes, call_.y, g_.type, true, n_, g_.out[0], g_.m, out_pixels()) {}

  void run() {
    find_weights();
    find_bias();
    const int64_t all = g_.out[0] * g_.out[1], live = order_frames() * out_pixels();
    rows_ = std::max<int64_t>(1, std::min(kItemPixels, live / kItems) / g_.out[2]);
    const int64_t items = (all + rows_ - 1) / rows_;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    row_in_ = ws_.rows.of<int64_t>(workers * std::size_t(rows_ * g_.out[2]) * 3);
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
    weights_ = packed_weights(layout_);
    if (kept_.all_channels) return;
    int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(kept_.channels + 1));
    for (int32_t i = 0; i < kept_.channels; ++i) index[i] = int32_t(kept_.channel[i] % layout_.inputs);
    index_ = index;
  }

  void find_bias() {
    float* bias = ws_.bias.of<float>(std::size_t(layout_.groups * layout_.padded_outputs()));
    bias_by_column(layout_, static_cast<const float*>(call_.b), bias);
    bias_ = bias;
  }

  // Rows [begin, end) of the output, frame after frame in the order of frames_.
  void compute(int worker, int64_t begin, int64_t end) const {
    const int64_t most = rows_ * g_.out[2];
    int64_t *row_in = row_in_ + worker * most * 3, *row_y = row_in + most, *dropped = row_y + most;
    const float* x = static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c;
    int live = 0, dead = 0;
    for (int64_t row = begin; row < end; ++row) list_row(row, x, row_in, row_y, live, dropped, dead);
    PointwiseArgs a{};
    a.minimum = call_.minimum;
    for (int64_t group = 0; group < layout_.groups; ++group) {
      a.index = index_ ? index_ + kept_.first[group] : nullptr;
      a.x = x + group * layout_.inputs;
      for (int64_t index = 0; index < layout_.blocks(); ++index) {
        const int64_t first = group * layout_.outputs + layout_.block_begin(index);
        a.weights = weights_ + layout_.offset(group, index);
        a.vectors = layout_.vectors(index);
        a.last = layout_.last(index);
        a.part = layout_.full ? 0 : layout_.columns(index);
        a.bias = bias_ + group * layout_.padded_outputs() + layout_.block_begin(index);
        a.y = static_cast<float*>(call_.y) + n_ * g_.out[0] * out_pixels() * g_.m + first;
        a.z = call_.z ? static_cast<const float*>(call_.z) + n_ * g_.out[0] * out_pixels() * g_.m + first : nullptr;
        a.rows = live, a.row_in = row_in, a.row_y = row_y, a.inputs = kept_.in_group(group);
        isa_.pointwise(a);
        a.rows = dead, a.row_in = a.row_y = dropped, a.inputs = 0;
        isa_.pointwise(a);
      }
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

  // Adds the pixels of a row to the lists of kept and of dropped ones.
  void list_row(int64_t row, const float* x, int64_t* row_in, int64_t* row_y, int& live, int64_t* dropped, int& dead) const {
    const int64_t to = frames_[row / g_.out[1]], t = to * g_.strides[0], h = row % g_.out[1] * g_.strides[1];
    const int64_t in = (t * pixels() + h * g_.w) * g_.c, step = g_.strides[2] * g_.c;
    const uint8_t* keep = kept_.masks.feature + h * g_.w;
    const bool kept = kept_.masks.frame[t] != 0;
    const float* output = static_cast<const float*>(call_.y) + n_ * g_.out[0] * out_pixels() * g_.m;
    const int64_t fetched = kept_.all_pixels ? 0 : g_.m;
    int64_t y = (to * g_.out[1] + row % g_.out[1]) * g_.out[2] * g_.m;
    for (int64_t wo = 0; wo < g_.out[2]; ++wo, y += g_.m) {
      const bool taken = kept && keep[wo * g_.strides[2]];
      row_in[live] = in + wo * step, row_y[live] = y, dropped[dead] = y;  // one of them stays: no branch to mislead
      live += taken, dead += !taken;
      __builtin_prefetch(x + in + wo * step);  // scattered pixels are not what the processor fetches ahead by itself
      for (int64_t i = 0; i < fetched; i += 16) __builtin_prefetch(output + y + i, 1);
    }
  }

  const PackedLayout layout_;
  Magnitudes magnitudes_;
  const float* weights_ = nullptr;
  const float* bias_ = nullptr;
  const int32_t* index_ = nullptr;
  int64_t rows_ = 1;             // of the output, of an item
  const int32_t* frames_ = nullptr;
  int64_t* row_in_ = nullptr;    // of every worker
};

}  // namespace

void pointwise_conv3d(const ClipCall& clip) { PointwiseClip(clip).run(); }

}  // namespace dance
