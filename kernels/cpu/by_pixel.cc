#include "by_pixel.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "load.h"
#include "row_store.h"

namespace dance {
namespace {

constexpr int64_t kItems = 8;             // fewer leave threads idle at the end
constexpr int64_t kSumBytes = 24 << 10;   // of outputs that are added up before they are stored: half of the L1 cache
constexpr int64_t kItemBytes = 256 << 10; // of outputs of an item: no more memory than the L2 cache has, each worker ...
constexpr int64_t kLeastRows = 8;         // ... but for so many rows: what neighbours read too is computed for each
constexpr int kBatch = 60;                // pixels whose products wait in the L1 cache to be added up: whole tiles
constexpr int kMostGroups = 64;           // kernel rows
constexpr int64_t kMostStride = 4;        // along H and W: each combination has its own weights
constexpr int64_t kMostBytes = 1 << 20;   // of weights, which are packed once more
constexpr int64_t kMostFloats = int64_t(1) << 30;  // that places are counted in
// In products of a vector, measured with AVX-512: what surrounds those of an input pixel in one output frame, and in one pass;
// adding a vector to a row of outputs; a vector of outputs, from clearing to storing; putting blocks of them together.
constexpr double kPixelProducts = 2, kPassProducts = 4, kAddProducts = 2, kOutputProducts = 6, kJoinProducts = 6;

int64_t extra_columns(const ByPixelLayout& layout) { return layout.positions(0) - 1; }

class ByPixelClip : ClipCall {
 public:
  explicit ByPixelClip(const ClipCall& clip)
      : ClipCall(clip), layout_(g_, isa_), columns_(g_.out[2] + 2 * extra_columns(layout_)),
        extra_rows_((g_.kernel[1] - 1) * g_.dilations[1] / g_.strides[1]),
        magnitudes_(call_.magnitudes, call_.y, g_.type, g_.channels_last, n_, g_.out[0], g_.m, out_pixels()) {}

  void run() {
    find_inputs();
    list_pixels();
    find_weights();
    rows_ = std::max(kLeastRows, kItemBytes / 4 / (columns_ * g_.m));
    rows_ = std::min({rows_, g_.out[1], std::max<int64_t>(1, g_.out[0] * g_.out[1] / kItems)});
    const int64_t parts = (g_.out[1] + rows_ - 1) / rows_, items = g_.out[0] * parts;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    sums_ = ws_.sums.of<float>(workers * std::size_t(worker_sums()));
    segments_ = ws_.segments.of<Segment>(workers * std::size_t(g_.kernel[0]));
    magnitudes_.begin(parts, 1, ws_);
    for_items(parallel_, items, [&](int worker, int64_t item) {
      compute(worker, item / parts, item % parts);
    });
    magnitudes_.end();
  }

 private:
  // Sums of all rows that an item's pixels may add to, block after block; a vector more is written.
  int64_t item_rows() const { return rows_ + 2 * extra_rows_; }
  int64_t item_sums() const { return item_rows() * columns_ * g_.m + isa_.vector; }
  float* sums_of(float* sums, int64_t index) const {
    return sums + item_rows() * columns_ * layout_.block_begin(index);
  }
  // Those; of a row, blocks together; products.
  int64_t worker_sums() const {
    const int64_t floats = item_sums() + g_.out[2] * g_.m + kBatch * isa_.block() + isa_.vector;
    return (floats + 15) / 16 * 16;
  }
  // Input rows before this one are all that output rows before `ho` read.
  int64_t inputs_before(int64_t ho) const {
    const int64_t reach = (g_.kernel[1] - 1) * g_.dilations[1] + 1;
    return std::min(g_.h, std::max<int64_t>(0, (ho - 1) * g_.strides[1] - g_.pads[1] + reach));
  }

  void find_inputs();
  void list_pixels();
  void find_weights();
  int find_segments(int64_t to, Segment* out) const;
  void compute(int worker, int64_t to, int64_t part) const;
  void add_pass(const ByPixelPass& pass, int64_t from, int64_t end, int64_t row, RowsArgs& a, ScatterSumsArgs& add) const;
  const float* whole_row(int64_t row, float* sums, float* out) const;

  const ByPixelLayout layout_;
  const int64_t columns_;            // of sums: of the map, and beside it those that its rim's inputs add to
  const int64_t extra_rows_;         // above and below an item's, likewise
  Magnitudes magnitudes_;            // parts: those of the rows
  int64_t rows_ = 0;                 // of output, of an item
  const int32_t* first_ = nullptr;   // [classes][H + 1] into the two lists
  const int64_t* inputs_ = nullptr;  // where a pixel's channels lie in a frame of x_; class after class, row after row
  const int32_t* places_ = nullptr;  // of the first output that each adds to by kernel row 0, in a map of columns_
  Loaded x_{};                       // of this n
  const float* weights_ = nullptr;
  const int32_t* channel_index_ = nullptr;  // kept ones, where not all are
  bool index_inputs_ = false;               // x_ has dropped ones too
  const float* bias_ = nullptr;      // [M]; channels last: for every pixel of a row
  float* sums_ = nullptr;
  Segment* segments_ = nullptr;
};

// Kept pixels need no copy where they lie as channels-last floats: each is read by a pointer of its own.
void ByPixelClip::find_inputs() {
  if (g_.channels_last && g_.type == Type::f32) {
    x_ = {static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c, g_.c};
    index_inputs_ = !kept_.all_channels;
  } else {
    x_ = load_kept(call_, n_, isa_, kept_, {1, kept_.channels, false}, ws_, parallel_);
  }
}

// Kept pixels that an output reads. Those of one class read the same kernel positions.
void ByPixelClip::list_pixels() {
  const int64_t classes = layout_.strides[0] * layout_.strides[1];
  int64_t* const inputs = ws_.rows.of<int64_t>(std::size_t(kept_.pixels));
  int32_t* first = ws_.float_mask.of<int32_t>(std::size_t(classes * (g_.h + 1) + kept_.pixels));
  int32_t* const places = first + classes * (g_.h + 1);
  first_ = first, inputs_ = inputs, places_ = places;
  int32_t next = 0;
  for (int row = 0; row < layout_.strides[0]; ++row)
    for (int column = 0; column < layout_.strides[1]; ++column) {
      const bool read = column < layout_.kernel[1] && layout_.kernel_row(row, 0) < layout_.kernel[0];
      const int64_t positions = read ? layout_.positions(column) : 0;
      for (int64_t h = 0; h < g_.h; ++h) {
        *first++ = next;
        if (!read || (h + g_.pads[1]) % g_.strides[1] != row) continue;
        const int64_t place = (h + g_.pads[1]) / g_.strides[1] * columns_ + extra_columns(layout_);
        for (int64_t w = 0; w < g_.w; ++w) {
          if (!kept_.masks.feature[h * g_.w + w] || (w + g_.pads[2]) % g_.strides[2] != column) continue;
          const int64_t to = (w + g_.pads[2]) / g_.strides[2] - (positions - 1);
          if (to >= g_.out[2]) break;
          inputs[next] = (h * g_.w + w) * x_.stride;
          places[next++] = int32_t(place + to);
        }
      }
      *first++ = next;
    }
}

void ByPixelClip::find_weights() {
  weights_ = call_.packed->by_pixel(g_);
  bias_ = repeated_bias(*this, g_.channels_last ? g_.out[2] : 1);
  if (kept_.all_channels) return;
  int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(kept_.channels + kPrefetchRows));
  std::copy(kept_.channel, kept_.channel + kept_.channels, index);
  extend_index(index, kept_.channels, g_.c);
  channel_index_ = index;
}

// What output frame `to` reads of a pixel: its channels in each kept frame.
int ByPixelClip::find_segments(int64_t to, Segment* out) const {
  int count = 0;
  for (int64_t kt = 0; kt < g_.kernel[0]; ++kt) {
    const int64_t t = to * g_.strides[0] - g_.pads[0] + kt * g_.dilations[0];
    if (t >= 0 && t < g_.t && kept_.masks.frame[t])
      out[count++] = {t * pixels() * x_.stride, kt * g_.c, int32_t(kept_.channels), 0};
  }
  return count;
}

// Input rows are added up one after the other, and output rows stored as soon as they are complete.
void ByPixelClip::compute(int worker, int64_t to, int64_t part) const {
  const int64_t begin = part * rows_, end = std::min(begin + rows_, g_.out[1]);
  const int64_t step = std::max<int64_t>(1, kSumBytes / 4 / (columns_ * g_.m));
  Segment* const segments = segments_ + worker * g_.kernel[0];
  float* const sums = sums_ + worker * worker_sums();
  float* const whole = sums + item_sums();
  RowsArgs a{};
  a.segments = segments;
  a.segment_count = find_segments(to, segments);
  a.x = x_.x;
  a.weight_index = channel_index_;
  a.index_inputs = index_inputs_;
  a.acc = whole + g_.out[2] * g_.m;
  ScatterSumsArgs add{};
  add.sums = a.acc;
  const bool any = a.segment_count > 0;
  int64_t clear = 0, added = std::min(g_.h, std::max<int64_t>(0, begin * g_.strides[1] - g_.pads[1]));
  for (int64_t first = begin; first < end; first += step) {
    const int64_t last = std::min(first + step, end);
    const int64_t rows = last - begin + 2 * extra_rows_, from = added;  // that may be added to
    added = std::max(from, inputs_before(last));
    for (int64_t index = 0; any && index < layout_.blocks; ++index)
      std::memset(sums_of(sums, index) + clear * columns_ * layout_.columns(index), 0,
                  std::size_t((rows - clear) * columns_ * layout_.columns(index)) * 4);
    clear = rows;
    if (any)
      layout_.for_passes([&](int64_t index, const ByPixelPass& pass) {
        add.acc = sums_of(sums, index);
        add.outputs = layout_.columns(index);
        add_pass(pass, from, added, begin, a, add);
      });
    for (int64_t ho = first; ho < last; ++ho)
      store_row(*this, bias_, to, ho, any ? whole_row(ho - begin, sums, whole) : nullptr);
    magnitudes_.add(part, 0, to, 0, g_.m, first * g_.out[2], (last - first) * g_.out[2]);
  }
}

// All pixels of the pass's class in input rows [from, end); row: of output, that the sums begin with.
void ByPixelClip::add_pass(const ByPixelPass& pass, int64_t from, int64_t end, int64_t row, RowsArgs& a,
                           ScatterSumsArgs& add) const {
  static const struct Identity {
    int32_t rows[kBatch];
    Identity() { for (int i = 0; i < kBatch; ++i) rows[i] = i; }
  } kIdentity;
  const int32_t* const first = first_ + (pass.row * layout_.strides[1] + pass.column) * (g_.h + 1);
  int64_t at[kMostGroups];
  for (int i = 0; i < pass.rows; ++i) {
    const int64_t up = layout_.kernel_row(pass.row, pass.first + i) * g_.dilations[1] / g_.strides[1];
    at[i] = (extra_rows_ - row - up) * columns_ * add.outputs;
  }
  add.at = at;
  add.groups = pass.rows, add.lanes = pass.lanes;
  add.step = pass.vectors * isa_.vector;
  a.vectors = pass.vectors;
  a.weights = weights_ + pass.weights;
  a.row_out = kIdentity.rows;
  const int64_t count = first[end] - first[from], batches = (count + kBatch - 1) / kBatch;
  for (int64_t i = 0; i < batches; ++i) {
    const int64_t pixel = first[from] + count * i / batches;
    a.rows = add.rows = int(first[from] + count * (i + 1) / batches - pixel);
    a.row_in = inputs_ + pixel;
    isa_.rows(a);
    add.place = places_ + pixel;
    isa_.scatter_sums(add);
  }
}

// Sums of an item's output row, [W'][M]; put together in `out` where outputs have several blocks.
const float* ByPixelClip::whole_row(int64_t row, float* sums, float* out) const {
  const int64_t first = (row + extra_rows_) * columns_ + extra_columns(layout_);
  if (layout_.blocks == 1) return sums + first * g_.m;
  for (int64_t index = 0; index < layout_.blocks; ++index) {
    const int64_t columns = layout_.columns(index);
    const float* const from = sums_of(sums, index) + first * columns;
    for (int64_t wo = 0; wo < g_.out[2]; ++wo)
      std::memcpy(out + wo * g_.m + layout_.block_begin(index), from + wo * columns, std::size_t(columns) * 4);
  }
  return out;
}

}  // namespace

double by_pixel_products(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  if (call.pairs || g.group != 1 || kept.all_pixels || kept.channels == 0 || g.dilations[2] != 1 ||
      g.strides[1] > kMostStride || g.strides[2] > kMostStride || g.kernel[1] > kMostGroups || g.kernel[2] > isa.block() ||
      !call.packed || call.packed->isa != &isa)
    return std::numeric_limits<double>::infinity();
  const ByPixelLayout layout(g, isa);
  if (layout.floats() * 4 > kMostBytes) return std::numeric_limits<double>::infinity();
  const int64_t extra = (g.kernel[1] - 1) * g.dilations[1] / g.strides[1] + 1;
  if ((std::max(g.h, g.out[1]) + 2 * extra) * (g.out[2] + 2 * extra_columns(layout) + g.w) * g.m > kMostFloats)
    return std::numeric_limits<double>::infinity();
  int64_t pairs = 0, frames = 0;  // of live output and kernel frames; of output frames
  for (int64_t to = 0; to < g.out[0]; ++to) {
    const int64_t before = pairs;
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      const int64_t t = to * g.strides[0] - g.pads[0] + kt * g.dilations[0];
      pairs += t >= 0 && t < g.t && kept.masks.frame[t];
    }
    frames += pairs > before;
  }
  double steps = 0;  // of pixels that lie as likely in each class
  layout.for_passes([&](int64_t, const ByPixelPass& pass) {
    const double adds = double(pass.rows * ((pass.lanes + isa.vector - 1) / isa.vector));
    steps += double(pairs * kept.channels * pass.vectors) + double(frames) * (kPassProducts + kAddProducts * adds);
  });
  const double share = double(kept.pixels) / double(g.strides[1] * g.strides[2]);
  return share * steps + double(kept.pixels * g.t) * kPixelProducts +
         (kOutputProducts + (layout.blocks > 1 ? kJoinProducts : 0)) *
             double(g.out[0] * g.out[1] * g.out[2] * g.m) / isa.vector;
}

void by_pixel_conv3d(const ClipCall& clip) { ByPixelClip(clip).run(); }

}  // namespace dance
