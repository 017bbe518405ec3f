#include "depthwise.h"

#include <algorithm>
#include <cstring>

#include "load.h"
#include "pack.h"

namespace dance {
namespace {

constexpr int64_t kItems = 8;           // fewer leave threads idle at the end
constexpr int kChannels = 64;           // worked on together: what a strip of them reads stays in the L1 cache
constexpr int64_t kItemPixels = 640;    // of output, where there are enough: what they read stays in the L2 cache ...
constexpr int64_t kLoadedPixels = 256; // ... and here their sums on the way to another layout

// Channels do not meet, so nothing is gathered where the activation is channels-last floats: vectors run over all
// channels as they lie, and what a dropped one computes is thrown away. Else kept channels are loaded first.
class DepthwiseClip {
 public:
  DepthwiseClip(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, Workspace& ws,
                const Parallel& parallel)
      : call_(call), g_(call.geometry), n_(n), isa_(isa), kept_(kept), ws_(ws), parallel_(parallel), layout_(g_, isa),
        slides_(depthwise_slides(g_.kernel[2], g_.strides[2], g_.dilations[2])),
        in_place_(g_.channels_last && g_.type == Type::f32 && g_.c >= isa.vector),
        magnitudes_(call.magnitudes, call.y, g_.type, g_.channels_last, n, g_.out[0], g_.m, out_pixels()) {
    if (!in_place_) layout_.outputs = kept.channels;
  }

  void run() {
    if (kept_.channels > 0) {
      load();
      find_weights();
      find_inputs();
    }
    find_bias();
    const int64_t frame_rows = std::max<int64_t>(1, (in_place_ ? kItemPixels : kLoadedPixels) / g_.out[2]);
    rows_ = std::min(std::min(frame_rows, g_.out[1]), std::max<int64_t>(1, g_.out[0] * g_.out[1] / kItems));
    const int64_t parts = (g_.out[1] + rows_ - 1) / rows_, items = g_.out[0] * parts;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    sums_ = in_place_ ? nullptr : ws_.sums.of<float>(workers * std::size_t(sums_floats()));
    lines_ = ws_.segments.of<DepthwiseLine>(workers * std::size_t(g_.kernel[0] * g_.kernel[1]));
    magnitudes_.begin(parts, 1, ws_);
    for_items(parallel_, items, [&](int worker, int64_t item) {
      // frames vary fastest: what several of them read is still in the L2 cache
      const int64_t part = item / g_.out[0], begin = part * rows_, end = std::min(begin + rows_, g_.out[1]);
      compute_rows(worker, item % g_.out[0], begin, end);
      magnitudes_.add(part, 0, item % g_.out[0], 0, g_.m, begin * g_.out[2], (end - begin) * g_.out[2]);
    });
    magnitudes_.end();
  }

 private:
  int64_t pixels() const { return g_.h * g_.w; }
  int64_t out_pixels() const { return g_.out[1] * g_.out[2]; }
  // Inputs along W of `outputs` pixels: each once where the kernel slides, else one by one for every output.
  int64_t positions(int64_t outputs) const {
    return slides_ ? (outputs - 1) * g_.strides[2] + g_.kernel[2] : outputs * g_.kernel[2];
  }
  int64_t position_w(int64_t i) const {
    if (slides_) return i - g_.pads[2];
    return i / g_.kernel[2] * g_.strides[2] - g_.pads[2] + i % g_.kernel[2] * g_.dilations[2];
  }
  int64_t out_step() const { return in_place_ ? g_.m : layout_.padded_outputs(); }
  int64_t sums_floats() const { return rows_ * g_.out[2] * out_step(); }

  void load() {
    const LoadHow how{1, in_place_ ? g_.c : layout_.padded_outputs(), false};
    if (in_place_) {
      x_ = static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c;
      step_ = g_.c;
      return;
    }
    const Loaded loaded = load_kept(call_, n_, isa_, kept_, how, ws_, parallel_);
    x_ = loaded.x;
    step_ = loaded.stride;
  }

  void find_weights() {
    const bool packed = call_.packed && call_.packed->isa == &isa_;
    if (packed && (in_place_ || kept_.all_channels)) {
      weights_ = call_.packed->floats;
      return;
    }
    float* out = ws_.weights.of<float>(std::size_t(layout_.floats()));
    pack_depthwise(layout_, call_.w, g_.type, in_place_ ? nullptr : kept_.channel, out);
    weights_ = out;
  }

  // Bias by column, and where lanes of dropped channels are cleared, which ones.
  void find_bias() {
    float* bias = ws_.bias.of<float>(std::size_t(2 * g_.m));
    to_floats(call_.b, g_.type, g_.m, bias);
    bias_ = bias;
    if (kept_.all_channels) return;
    if (in_place_) {
      keep_ = reinterpret_cast<uint32_t*>(bias + g_.m);
      for (int64_t c = 0; c < g_.c; ++c) keep_[c] = kept_.masks.channel[c] ? 0xffffffffu : 0u;
      return;
    }
    for (int64_t j = 0; j < g_.m; ++j) bias[g_.m + j] = bias[kept_.outputs[j]];
    bias_ = bias + g_.m;
  }

  // For every input row (one for all where all pixels are kept): where each position along W lies, or, if it is dropped or
  // out of range, where a kept one near it does, which is in the cache; whether it is kept; and how many before it are.
  void find_inputs() {
    const int64_t count = positions(g_.out[2]), rows = kept_.all_pixels ? 1 : g_.h;
    int64_t* at = ws_.rows.of<int64_t>(std::size_t(2 * rows * (count + 1)));
    uint32_t* keep = ws_.float_mask.of<uint32_t>(std::size_t(rows * (count + 1)));
    at_ = at, at_keep_ = keep;
    before_ = at + rows * (count + 1);
    for (int64_t h = 0; h < rows; ++h) {
      int64_t live = 0, *before = at + (rows + h) * (count + 1);
      const uint8_t* feature = kept_.masks.feature + h * g_.w;
      const void* first = std::memchr(feature, 1, std::size_t(g_.w));
      int64_t near = first ? static_cast<const uint8_t*>(first) - feature : 0;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t w = position_w(i);
        const bool in = w >= 0 && w < g_.w && feature[w];
        near = in ? w : near;
        at[h * (count + 1) + i] = near * step_;
        keep[h * (count + 1) + i] = in ? 0xffffffffu : 0u;
        before[i] = live;
        live += in;
      }
      before[count] = live;
    }
  }

  void compute_rows(int worker, int64_t to, int64_t begin, int64_t end) const {
    if (kept_.channels > 0) {
      float* sums = in_place_ ? nullptr : sums_ + worker * sums_floats();
      DepthwiseLine* lines = lines_ + worker * g_.kernel[0] * g_.kernel[1];
      const int vectors = int(layout_.padded_outputs() / isa_.vector), some = kChannels / isa_.vector;
      for (int first = 0; first < vectors; first += some)
        compute_channels(lines, to, begin, end, first, std::min(some, vectors - first), sums);
      if (sums) store(sums, 0, kept_.channels, to, begin, end);
    }
    if (!in_place_ || kept_.channels == 0) store(nullptr, kept_.channels, g_.m - kept_.channels, to, begin, end);
  }

  // Vectors [first, first + count) of rows [begin, end) of one frame.
  void compute_channels(DepthwiseLine* lines, int64_t to, int64_t begin, int64_t end, int first, int count,
                        float* sums) const {
    DepthwiseArgs a{};
    a.lines = lines;
    a.kernel = g_.kernel[2], a.stride = g_.strides[2], a.dilation = g_.dilations[2];
    a.step = step_;
    a.weights = weights_;
    a.taps = layout_.taps;
    a.count = layout_.outputs;
    a.first = first, a.vectors = count;
    a.out_step = out_step();
    if (in_place_) a.bias = bias_, a.keep = keep_, a.minimum = call_.minimum;
    const int64_t strips = (g_.out[2] + isa_.depthwise_pixels - 1) / isa_.depthwise_pixels;
    for (int64_t i = 0, wo = 0; i < strips; ++i) {  // evenly: 9 pixels are 5 + 4, not 8 + 1
      const int64_t next = g_.out[2] * (i + 1) / strips;
      a.pixels = int(next - wo);
      for (int64_t ho = begin; ho < end; ++ho) {  // down first: what two rows both read is still in the L1 cache
        a.line_count = find_lines(lines, to, ho, wo, next);
        if (in_place_) {
          const int64_t at = ((n_ * g_.out[0] + to) * out_pixels() + ho * g_.out[2] + wo) * g_.m;
          a.out = static_cast<float*>(call_.y) + at;
          a.z = call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
        } else {
          a.out = sums + ((ho - begin) * g_.out[2] + wo) * out_step();
        }
        isa_.depthwise(a);
      }
      wo = next;
    }
  }

  // Kernel rows of which the strip reads anything.
  int find_lines(DepthwiseLine* lines, int64_t to, int64_t ho, int64_t wo, int64_t end) const {
    const int64_t first = wo * (slides_ ? g_.strides[2] : g_.kernel[2]), count = positions(end - wo);
    int found = 0;
    for (int64_t kt = 0; kt < g_.kernel[0]; ++kt) {
      const int64_t t = to * g_.strides[0] - g_.pads[0] + kt * g_.dilations[0];
      if (t < 0 || t >= g_.t || !kept_.masks.frame[t]) continue;
      for (int64_t kh = 0; kh < g_.kernel[1]; ++kh) {
        const int64_t h = ho * g_.strides[1] - g_.pads[1] + kh * g_.dilations[1];
        if (h < 0 || h >= g_.h) continue;
        const int64_t row = (kept_.all_pixels ? 0 : h) * (positions(g_.out[2]) + 1) + first;
        const int64_t live = before_[row + count] - before_[row];
        if (live == 0) continue;
        const float* x = x_ + (t * g_.h + h) * g_.w * step_;
        const int64_t tap = (kt * g_.kernel[1] + kh) * g_.kernel[2];
        if (live == count) lines[found++] = {x + (wo * g_.strides[2] - g_.pads[2]) * step_, nullptr, nullptr, tap};
        else lines[found++] = {x, at_ + row, at_keep_ + row, tap};
      }
    }
    return found;
  }

  // Columns [first, first + count) of output rows [begin, end): channels of the list, kept ones first.
  void store(const float* sums, int64_t first, int64_t count, int64_t to, int64_t begin, int64_t end) const {
    if (count == 0) return;
    const int64_t bytes = g_.type == Type::f32 ? 4 : 2;
    StoreArgs a{};
    a.acc = sums;
    a.acc_stride = out_step();
    a.pixels = int((end - begin) * g_.out[2]);
    a.count = int(count);
    a.bias = bias_ + first;
    a.minimum = call_.minimum;
    a.channels = kept_.all_channels || kept_.channels == 0 ? nullptr : kept_.outputs + first;
    a.first_channel = first;
    a.channel_stride = g_.channels_last ? 1 : g_.out[0] * out_pixels();
    a.pixel_stride = g_.channels_last ? g_.m : 1;
    a.type = g_.type;
    const int64_t pixel = to * out_pixels() + begin * g_.out[2];
    const int64_t at = n_ * g_.m * g_.out[0] * out_pixels() + pixel * a.pixel_stride;
    a.y = static_cast<char*>(call_.y) + at * bytes;
    a.z = call_.z ? static_cast<const char*>(call_.z) + at * bytes : nullptr;
    isa_.store(a);
  }

  const ConvCall& call_;
  const ConvGeometry& g_;
  const int64_t n_;
  const IsaKernels& isa_;
  const Kept& kept_;
  Workspace& ws_;
  const Parallel& parallel_;
  PackedLayout layout_;           // of all channels where these are read in place, else of the kept ones
  const bool slides_, in_place_;
  Magnitudes magnitudes_;         // parts: those of the rows
  const float* x_ = nullptr;      // [T][H][W][step_]
  int64_t step_ = 0;
  const float* weights_ = nullptr;
  const float* bias_ = nullptr;
  uint32_t* keep_ = nullptr;
  const int64_t *at_ = nullptr, *before_ = nullptr;
  const uint32_t* at_keep_ = nullptr;
  float* sums_ = nullptr;
  DepthwiseLine* lines_ = nullptr;
  int64_t rows_ = 1;              // of output, of an item
};

}  // namespace

void depthwise_conv3d(const ConvCall& call, int64_t n, const IsaKernels& isa, const Kept& kept, Workspace& workspace,
                      const Parallel& parallel) {
  DepthwiseClip(call, n, isa, kept, workspace, parallel).run();
}

}  // namespace dance
