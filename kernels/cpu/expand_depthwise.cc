#include "expand_depthwise.h"

#include <algorithm>
#include <cstring>

#include "channels_last.h"
#include "clip_call.h"
#include "pack.h"

namespace dance {
namespace {

constexpr int64_t kRingBytes = 448 << 10;  // of a worker: beside what it reads and writes it stays in the L2 cache
constexpr int64_t kMostParts = 8;          // of rows and of columns, that are tried

// Work items are blocks of channels of some rows and columns of the output, of all frames. They go down the map: a ring holds as
// many rows of the expanded map as a row of output reads, and each is expanded when the first one asks for it. Rows of the ring
// are as long as what the item's columns read, padding included, and channels are whole vectors: strips have no special cases,
// and no load lies in two lines. What two items read is expanded twice.
class ExpandDepthwiseClip : ClipCall {
 public:
  // clip: of the expansion.
  ExpandDepthwiseClip(const ExpandDepthwiseCall& call, const ClipCall& clip)
      : ClipCall(clip), d_(call.depthwise.geometry), depthwise_(call.depthwise), swish_(call.swish),
        layout_(g_, isa_), strips_(d_, isa_), slots_(std::min(reach(1), d_.h)) {}

  void run() {
    find_weights();
    float* bias = ws_.bias.of<float>(std::size_t(layout_.padded_outputs()));
    bias_by_column(layout_, static_cast<const float*>(call_.b), bias);
    bias_ = bias;
    cut();
    const int64_t parts = parts_of(d_.out[1], rows_), sides = parts_of(d_.out[2], columns_);
    const int64_t items = shares() * parts * sides;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    ring_ = ws_.expanded.of<float>(workers * std::size_t(ring_floats()));
    lists_ = ws_.rows.of<int64_t>(workers * std::size_t(3 * list()));
    lines_ = ws_.segments.of<DepthwiseLine>(workers * std::size_t(d_.kernel[0] * d_.kernel[1]));
    for_items(parallel_, items, [&](int worker, int64_t item) {
      const int64_t row = item / sides % parts * rows_, column = item % sides * columns_;
      const Place place{item / sides / parts, row, std::min(row + rows_, d_.out[1]), column,
                        std::min(column + columns_, d_.out[2])};
      compute(worker, place);
      if (place.block + 1 == shares() && shares() < layout_.blocks()) compute(worker, place.next_block());
    });
  }

 private:
  struct Place {
    int64_t block, row, row_end, column, column_end;  // of output
    Place next_block() const { return {block + 1, row, row_end, column, column_end}; }
  };

  static int64_t parts_of(int64_t whole, int64_t part) { return (whole + part - 1) / part; }
  // Pixels between the first and the last that a kernel reads along an axis, these included; and where its first output's begin.
  int64_t reach(int axis) const { return d_.dilations[axis] * (d_.kernel[axis] - 1) + 1; }
  int64_t begin(int axis, int64_t out) const { return out * d_.strides[axis] - d_.pads[axis]; }
  int64_t width_of(int64_t columns) const { return (columns - 1) * d_.strides[2] + reach(2); }
  int64_t width() const { return width_of(columns_); }
  int64_t slot_pixels() const { return d_.t * width(); }
  int64_t ring_floats() const { return slots_ * slot_pixels() * isa_.block(); }
  // Blocks that are items of their own: all, or all but the last where that has less than a vector of outputs, and so writes some
  // of the block before it.
  int64_t shares() const {
    const int64_t blocks = layout_.blocks();
    return blocks > 1 && layout_.columns(blocks - 1) < isa_.vector ? blocks - 1 : blocks;
  }
  int64_t list() const { return std::min(width(), d_.w); }

  // Rows and columns of output of an item: what the slowest worker has to do, about, is least, in rings that are no larger than
  // they may be or else as small as they get.
  void cut() {
    double least = 0;
    bool fits = false;
    for (int64_t sides = 1; sides <= std::min(kMostParts, d_.out[2]); ++sides)
      for (int64_t parts = 1; parts <= std::min(kMostParts, d_.out[1]); ++parts) {
        const int64_t rows = parts_of(d_.out[1], parts), columns = parts_of(d_.out[2], sides);
        const int64_t rows_in = std::min(d_.h, (rows - 1) * d_.strides[1] + reach(1));
        const bool small = slots_ * d_.t * width_of(columns) * isa_.block() * 4 <= kRingBytes;
        const int64_t items = shares() * parts_of(d_.out[1], rows) * parts_of(d_.out[2], columns);
        const double expanding = double(rows_in * std::min(width_of(columns), d_.w) * d_.t) * double(g_.c);
        const double sliding = double(rows * columns * d_.out[0]) * double(strips_.taps);
        const double cost = double(parts_of(items, parallel_.workers)) * (expanding + sliding);
        if (columns_ && (fits == small ? (small ? cost >= least : columns >= columns_) : fits)) continue;
        least = cost, fits = small, rows_ = rows, columns_ = columns;
      }
  }

  void find_weights() {
    const auto ready = [&](const ConvCall& call) { return call.packed && call.packed->isa == &isa_; };
    weights_ = ready(call_) ? call_.packed->floats : nullptr;
    taps_ = ready(depthwise_) ? depthwise_.packed->floats : nullptr;
    float* out = ws_.weights.of<float>(std::size_t(layout_.floats() + strips_.floats()));
    if (!weights_ && n_ == 0) pack_weights(layout_, call_.w, g_.type, out);
    if (!taps_ && n_ == 0) pack_strips(strips_, depthwise_.w, d_.type, nullptr, out + layout_.floats());
    weights_ = weights_ ? weights_ : out;
    taps_ = taps_ ? taps_ : out + layout_.floats();
    if (kept_.all_channels) return;
    int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(kept_.channels + 1));
    std::copy(kept_.channel, kept_.channel + kept_.channels, index);
    index_ = index;
  }

  void compute(int worker, const Place& place) const {
    float* ring = ring_ + worker * ring_floats();
    const int64_t channels = int64_t(layout_.vectors(place.block)) * isa_.vector;
    const int64_t origin = begin(2, place.column);  // column of the map that the ring's first one is
    const int64_t left = std::max<int64_t>(0, origin), right = std::min(d_.w, begin(2, place.column_end - 1) + reach(2));
    clear_padding(ring, left - origin, right - origin, channels);
    PointwiseArgs a = expansion(place.block);
    Lists lists(lists_ + worker * 3 * list(), list());
    DepthwiseLine* lines = lines_ + worker * d_.kernel[0] * d_.kernel[1];
    int64_t next = 0;  // row of the map to be expanded
    for (int64_t ho = place.row; ho < place.row_end; ++ho) {
      const int64_t first = std::max<int64_t>(0, begin(1, ho)), end = std::min(begin(1, ho) + reach(1), d_.h);
      for (next = std::max(next, first); next < end; ++next) {
        if (next == first || !kept_.all_pixels) list_pixels(next, left, right, origin, channels, lists);
        expand_row(a, lists, next, left, right, ring + next % slots_ * slot_pixels() * channels);
      }
      slide(lines, ring, place, ho, channels);
    }
  }

  // Pixels of a row, the same in all frames: where kept ones lie, where they go, and where dropped ones do.
  struct Lists {
    int64_t *in, *out, *dropped;
    int kept = 0, others = 0;
    Lists(int64_t* all, int64_t most) : in(all), out(all + most), dropped(all + 2 * most) {}
  };

  void list_pixels(int64_t h, int64_t left, int64_t right, int64_t origin, int64_t channels, Lists& lists) const {
    const uint8_t* keep = kept_.masks.feature + h * d_.w;
    lists.kept = lists.others = 0;
    for (int64_t w = left; w < right; ++w) {
      const int64_t out = (w - origin) * channels;
      const bool kept = keep[w] != 0;
      lists.in[lists.kept] = w * g_.c, lists.out[lists.kept] = out, lists.dropped[lists.others] = out;  // one of them stays
      lists.kept += kept, lists.others += !kept;
    }
  }

  void expand_row(PointwiseArgs& a, const Lists& lists, int64_t h, int64_t left, int64_t right, float* out) const {
    a.x = static_cast<const float*>(call_.x) + (n_ * g_.t * pixels() + h * d_.w) * g_.c;
    a.y = out;
    for (int64_t t = 0; t < d_.t; ++t, a.x += pixels() * g_.c, a.y += width() * a.vectors * isa_.vector) {
      if (h + 1 < d_.h)  // the next row's: too short for the processor to find out by itself
        for (int64_t i = left * g_.c; i < right * g_.c; i += 16) __builtin_prefetch(a.x + d_.w * g_.c + i, 0, 2);
      a.rows = lists.kept, a.row_in = lists.in, a.row_y = lists.out;
      a.inputs = kept_.masks.frame[t] ? kept_.channels : 0;
      isa_.pointwise(a);
      a.rows = lists.others, a.row_in = a.row_y = lists.dropped, a.inputs = 0;
      isa_.pointwise(a);
    }
  }

  PointwiseArgs expansion(int64_t block) const {
    PointwiseArgs a{};
    a.index = index_;
    a.weights = weights_ + layout_.offset(0, block);
    a.vectors = layout_.vectors(block);
    a.last = (a.vectors - 1) * isa_.vector;
    a.bias = bias_ + layout_.block_begin(block);
    a.minimum = call_.minimum;
    return a;
  }

  // left, right: between which columns of the ring the map is; outside of the ring where its columns read padding alone.
  void clear_padding(float* ring, int64_t left, int64_t right, int64_t channels) const {
    left = std::min(left, width()), right = std::min(std::max(left, right), width());
    for (int64_t row = 0; row < slots_ * d_.t; ++row, ring += width() * channels) {
      std::memset(ring, 0, std::size_t(left * channels) * 4);
      std::memset(ring + right * channels, 0, std::size_t((width() - right) * channels) * 4);
    }
  }

  // Row `ho` of all output frames.
  void slide(DepthwiseLine* lines, const float* ring, const Place& place, int64_t ho, int64_t channels) const {
    DepthwiseArgs a{};
    a.x = ring;
    a.lines = lines;
    a.kernel = d_.kernel[2], a.stride = d_.strides[2], a.dilation = d_.dilations[2];
    a.step = channels;
    a.weights = taps_;
    a.taps = strips_.taps, a.count = d_.m;
    a.first = int(layout_.block_begin(place.block) / isa_.vector), a.vectors = layout_.vectors(place.block);
    a.by_vectors = true;
    a.out_step = d_.m;
    a.bias = static_cast<const float*>(depthwise_.b);
    a.minimum = depthwise_.minimum;
    a.swish = swish_;
    float* y = static_cast<float*>(depthwise_.y) + n_ * d_.out[0] * d_.out[1] * d_.out[2] * d_.m;
    const int64_t columns = place.column_end - place.column, strips = parts_of(columns, isa_.depthwise_pixels);
    for (int64_t i = 0; i < strips; ++i) {  // evenly: 15 pixels are 8 + 7
      const int64_t first = columns * i / strips;
      a.pixels = int(columns * (i + 1) / strips - first);
      for (int64_t to = 0; to < d_.out[0]; ++to) {  // what two frames both read is still in the L1 cache
        a.line_count = find_lines(lines, to, ho, first * d_.strides[2], channels);
        a.out = y + ((to * d_.out[1] + ho) * d_.out[2] + place.column + first) * d_.m;
        isa_.depthwise(a);
      }
    }
  }

  // Kernel rows inside the map; column: of the ring.
  int find_lines(DepthwiseLine* lines, int64_t to, int64_t ho, int64_t column, int64_t channels) const {
    int found = 0;
    for (int64_t kt = 0; kt < d_.kernel[0]; ++kt) {
      const int64_t t = begin(0, to) + kt * d_.dilations[0];
      if (t < 0 || t >= d_.t) continue;
      for (int64_t kh = 0; kh < d_.kernel[1]; ++kh) {
        const int64_t h = begin(1, ho) + kh * d_.dilations[1];
        if (h < 0 || h >= d_.h) continue;
        lines[found++] = {(h % slots_ * slot_pixels() + t * width() + column) * channels, nullptr, nullptr,
                          (kt * d_.kernel[1] + kh) * d_.kernel[2]};
      }
    }
    return found;
  }

  const ConvGeometry& d_;
  const ConvCall& depthwise_;
  const bool swish_;
  const PackedLayout layout_, strips_;  // of the expansion, of the depthwise convolution
  const int64_t slots_;                 // rows of the ring
  int64_t rows_ = 0, columns_ = 0;      // of output, of an item
  const float *weights_ = nullptr, *taps_ = nullptr, *bias_ = nullptr;
  const int32_t* index_ = nullptr;
  float* ring_ = nullptr;               // of every worker: [slots][T][width][channels]
  int64_t* lists_ = nullptr;
  DepthwiseLine* lines_ = nullptr;
};

// Whether the ring serves: vectors are full, and no more padding along W is stored than a kernel reads beside one pixel.
bool in_one(const ExpandDepthwiseCall& call, const IsaKernels& isa) {
  const ConvGeometry &g = call.expand.geometry, &d = call.depthwise.geometry;
  const int64_t beside = d.dilations[2] * d.kernel[2];
  return d.depthwise() && g.m >= isa.vector && d.pads[2] < beside && d.pads[5] < beside && beside <= 2 * d.w + isa.vector;
}

// The same one after the other.
void in_turn(const ExpandDepthwiseCall& call, Workspace& ws, const Parallel& parallel) {
  ConvCall expand = call.expand, depthwise = call.depthwise;
  const ConvGeometry& d = depthwise.geometry;
  const int64_t map = d.n * d.t * d.h * d.w * d.m * 4;
  const int64_t ones = d.n * std::max(std::max(d.t, d.c), d.h * d.w);
  char* map_and_mask = ws.expanded.of<char>(std::size_t(map + ones));
  std::memset(map_and_mask + map, 1, std::size_t(ones));
  depthwise.x = expand.y = map_and_mask;
  depthwise.frame_keep = depthwise.channel_keep = depthwise.feature_keep = map_and_mask + map;
  depthwise.mask_type = MaskType::byte;
  gated_conv3d(expand, ws, parallel);
  gated_conv3d(depthwise, ws, parallel);
  if (!call.swish) return;
  float* scale = ws.expanded.of<float>(std::size_t(d.n * d.m));
  std::fill(scale, scale + d.n * d.m, 1.0f);
  scaled_swish({depthwise.y, scale, depthwise.y, d.type, d.n, d.out[0] * d.out[1] * d.out[2], d.m}, ws, parallel);
}

}  // namespace

void expand_depthwise(const ExpandDepthwiseCall& call, Workspace& workspace, const Parallel& parallel) {
  const IsaKernels& isa = call.expand.packed ? *call.expand.packed->isa : isa_current();
  if (!in_one(call, isa)) return in_turn(call, workspace, parallel);
  for (int64_t n = 0; n < call.expand.geometry.n; ++n) {
    const Kept kept = find_kept(call.expand, n, 1, workspace);
    ExpandDepthwiseClip(call, ClipCall(call.expand, n, isa, kept, workspace, parallel)).run();
  }
}

}  // namespace dance
