#include "depthwise.h"

#include <algorithm>
#include <cstring>

#include "load.h"
#include "pack.h"

namespace dance {
namespace {

constexpr int64_t kItems = 8;           // fewer leave threads idle at the end
constexpr int kChannels = 64;           // worked on together: what a strip of them reads stays in the L1 cache
constexpr int64_t kItemBytes = 448 << 10;  // that an item reads: they stay in the L2 cache for the next output frame
constexpr int64_t kLoadedPixels = 256;  // of output: their sums stay there on the way to another layout

// Depthwise channels do not meet, so nothing is gathered where the activation is channels-last floats: vectors run over all
// channels as they lie, and what a dropped one computes is thrown away. Else kept channels are loaded first.
// Vectors of narrow groups run over all outputs too; of the inputs all are loaded, and dropped ones cleared on the way.
class DepthwiseClip : ClipCall {
 public:
  explicit DepthwiseClip(const ClipCall& clip)
      : ClipCall(clip), layout_(g_, isa_),
        slides_(depthwise_slides(g_.kernel[2], g_.strides[2], g_.dilations[2])),
        in_place_(g_.channels_last && g_.type == Type::f32 && g_.c >= isa_.vector),
        registers_(narrow_registers(g_, isa_.vector)), strip_(registers_ ? kNarrowPixels : isa_.depthwise_pixels),
        magnitudes_(call_.magnitudes, call_.y, g_.type, g_.channels_last, n_, g_.out[0], g_.m, out_pixels()) {
    if (!in_place_ && !registers_) layout_.outputs = kept_.channels;
  }

  void run() {
    if (kept_.channels > 0) {
      load();
      find_weights();
      find_inputs();
      if (registers_) find_lanes();
    }
    find_bias();
    const int64_t frame_rows = in_place_ ? rows_within(kItemBytes) : kLoadedPixels / g_.out[2];
    // a kernel along T alone: what frames both read is still in the L1 cache where a strip's frames come one after the other
    frames_ = in_place_ && g_.kernel[1] == 1 ? g_.out[0] : 1;
    rows_ = std::min(std::min(frame_rows, g_.out[1]), g_.out[0] * g_.out[1] / (frames_ * kItems));
    rows_ = std::max<int64_t>(1, rows_);
    const int64_t parts = (g_.out[1] + rows_ - 1) / rows_, items = g_.out[0] / frames_ * parts;
    const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
    sums_ = in_place_ ? nullptr : ws_.sums.of<float>(workers * std::size_t(sums_floats()));
    lines_ = ws_.segments.of<DepthwiseLine>(workers * std::size_t(g_.kernel[0] * g_.kernel[1]));
    magnitudes_.begin(parts, 1, ws_);
    for_items(parallel_, items, [&](int worker, int64_t item) {
      // frames vary fastest: what several of them read is still in the L2 cache
      const int64_t chunks = g_.out[0] / frames_, part = item / chunks, begin = part * rows_;
      const int64_t end = std::min(begin + rows_, g_.out[1]), frame = item % chunks * frames_;
      compute_rows(worker, frame, begin, end);
      for (int64_t f = frame; f < frame + frames_; ++f)
        magnitudes_.add(part, 0, f, 0, g_.m, begin * g_.out[2], (end - begin) * g_.out[2]);
    });
    magnitudes_.end();
  }

 private:
  // Inputs along W of `outputs` pixels: each once where the kernel slides, else one by one for every output.
  int64_t positions(int64_t outputs) const {
    return slides_ ? (outputs - 1) * g_.strides[2] + g_.kernel[2] : outputs * g_.kernel[2];
  }
  int64_t position_w(int64_t i) const {
    if (slides_) return i - g_.pads[2];
    return i / g_.kernel[2] * g_.strides[2] - g_.pads[2] + i % g_.kernel[2] * g_.dilations[2];
  }
  // Rows of output that read no more than `bytes`.
  int64_t rows_within(int64_t bytes) const {
    const int64_t rows = bytes / (4 * step_ * g_.w * std::min(g_.kernel[0], g_.t));
    return (rows - g_.dilations[1] * (g_.kernel[1] - 1) - 1) / g_.strides[1] + 1;
  }
  // Outputs that depend on anything kept, where they are not all in place.
  int64_t computed() const { return registers_ && kept_.channels > 0 ? g_.m : kept_.channels; }
  int64_t out_step() const { return in_place_ ? g_.m : layout_.padded_outputs(); }
  int64_t sums_floats() const { return rows_ * g_.out[2] * out_step(); }

  void load() {
    if (in_place_) {
      x_ = static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c;
      step_ = g_.c;
      return;
    }
    const int64_t count = registers_ ? g_.c : kept_.channels;
    const LoadHow how{1, (count + isa_.vector - 1) / isa_.vector * isa_.vector, false};
    const Loaded loaded = load_kept(call_, n_, isa_, registers_ ? every_channel() : kept_, how, ws_, parallel_);
    x_ = loaded.x;
    step_ = loaded.stride;
  }

  // What is kept, but of all channels: those of narrow groups stay where their lanes expect them.
  Kept every_channel() {
    Kept kept = kept_;
    int32_t* all = ws_.weight_index.of<int32_t>(std::size_t(g_.c + 2));
    for (int64_t c = 0; c < g_.c; ++c) all[c] = int32_t(c);
    all[g_.c] = 0, all[g_.c + 1] = int32_t(g_.c);
    kept.channels = int32_t(g_.c), kept.channel = all, kept.first = all + g_.c, kept.all_channels = true;
    return kept;
  }

  // Which inputs each vector of outputs reads.
  void find_lanes() {
    const int64_t vectors = layout_.padded_outputs() / isa_.vector, outputs = g_.outputs_per_group();
    int64_t* bases = ws_.tiles.of<int64_t>(std::size_t(vectors * (2 + isa_.vector + layout_.inputs)));
    int32_t *lanes = reinterpret_cast<int32_t*>(bases + vectors), *live = lanes + vectors * isa_.vector;
    live_inputs_ = live;
    for (int64_t v = 0; v < vectors; ++v) {
      const int64_t m = std::min(v * isa_.vector, g_.m - isa_.vector);
      bases[v] = std::min(m / outputs * layout_.inputs, g_.c - registers_ * isa_.vector);
      for (int64_t j = 0; j < isa_.vector; ++j)
        lanes[v * isa_.vector + j] = int32_t((m + j) / outputs * layout_.inputs - bases[v]);
      int32_t* next = live + v * (layout_.inputs + 1);
      for (int64_t c = 0; c < layout_.inputs; ++c) {
        bool kept = false;
        for (int64_t group = m / outputs; group <= (m + isa_.vector - 1) / outputs; ++group)
          kept = kept || kept_.masks.channel[group * layout_.inputs + c];
        if (kept) *next++ = int32_t(c);
      }
      *next = -1;
    }
    bases_ = bases, lanes_of_ = lanes;
  }

  void find_weights() {
    const bool packed = call_.packed && call_.packed->isa == &isa_;
    if (packed && (in_place_ || registers_ || kept_.all_channels)) {
      weights_ = call_.packed->floats;
      return;
    }
    float* out = ws_.weights.of<float>(std::size_t(layout_.floats()));
    pack_strips(layout_, call_.w, g_.type, in_place_ || registers_ ? nullptr : kept_.channel, out);
    weights_ = out;
  }

  // Bias by column, and where lanes of dropped channels are cleared, which ones.
  void find_bias() {
    float* bias = ws_.bias.of<float>(std::size_t(g_.m + g_.c));
    to_floats(call_.b, g_.type, g_.m, bias);
    bias_ = bias;
    if (registers_ || (in_place_ && !kept_.all_channels)) {
      keep_ = reinterpret_cast<uint32_t*>(bias + g_.m);
      for (int64_t c = 0; c < g_.c; ++c) keep_[c] = kept_.masks.channel[c] ? 0xffffffffu : 0u;
      return;
    }
    if (kept_.all_channels) return;
    for (int64_t j = 0; j < g_.m; ++j) bias[g_.m + j] = bias[kept_.outputs[j]];
    bias_ = bias + g_.m;
  }

  // For every input row (one for all where all pixels are kept): where each position along W lies, or, if it is dropped or
  // out of range, where zeros do; whether it is kept; and how many before it are.
  void find_inputs() {
    const int64_t count = positions(g_.out[2]), rows = kept_.all_pixels ? 1 : g_.h, all = rows * (count + 1);
    float* zeros = ws_.float_mask.of<float>(std::size_t(step_));
    std::memset(zeros, 0, std::size_t(step_) * 4);
    const int64_t to_zeros = (reinterpret_cast<intptr_t>(zeros) - reinterpret_cast<intptr_t>(x_)) / 4;
    int64_t* at = ws_.rows.of<int64_t>(std::size_t(3 * all));
    at_ = at, at_keep_ = at + all, before_ = at + 2 * all;
    for (int64_t h = 0; h < rows; ++h, at += count + 1) {
      const uint8_t* feature = kept_.masks.feature + h * g_.w;
      int64_t live = 0;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t w = position_w(i);
        const bool in = w >= 0 && w < g_.w && feature[w];
        at[i] = in ? w * step_ : to_zeros;
        at[all + i] = in ? -1 : 0;
        at[2 * all + i] = live;
        live += in;
      }
      at[2 * all + count] = live;
    }
  }

  // Rows [begin, end) of frames_ frames from `to` on; where that is more than one, in place.
  void compute_rows(int worker, int64_t to, int64_t begin, int64_t end) const {
    if (kept_.channels > 0) {
      float* sums = in_place_ ? nullptr : sums_ + worker * sums_floats();
      DepthwiseLine* lines = lines_ + worker * g_.kernel[0] * g_.kernel[1];
      const int vectors = int(layout_.padded_outputs() / isa_.vector), some = kChannels / isa_.vector;
      for (int first = 0; first < vectors; first += some)
        compute_channels(lines, to, begin, end, first, std::min(some, vectors - first), sums);
      if (sums) store(sums, 0, computed(), to, begin, end);
    }
    for (int64_t frame = to; frame < to + frames_ && (!in_place_ || kept_.channels == 0); ++frame)
      store(nullptr, computed(), g_.m - computed(), frame, begin, end);
  }

  // Vectors [first, first + count) of rows [begin, end) of frames_ frames.
  void compute_channels(DepthwiseLine* lines, int64_t first_frame, int64_t begin, int64_t end, int first, int count,
                        float* sums) const {
    DepthwiseArgs a{};
    a.x = x_;
    a.lines = lines;
    a.kernel = g_.kernel[2], a.stride = g_.strides[2], a.dilation = g_.dilations[2];
    a.step = step_;
    a.weights = weights_;
    a.taps = layout_.taps;
    a.count = layout_.outputs;
    a.first = first, a.vectors = count;
    a.out_step = out_step();
    if (in_place_) a.bias = bias_, a.keep = registers_ ? nullptr : keep_, a.minimum = call_.minimum;
    if (registers_) {
      a.inputs = layout_.inputs, a.registers = registers_, a.bases = bases_, a.lanes = lanes_of_;
      a.keep_inputs = keep_, a.live_inputs = live_inputs_;
    }
    const int64_t strips = (g_.out[2] + strip_ - 1) / strip_;
    for (int64_t i = 0, wo = 0; i < strips; ++i) {  // evenly: 9 pixels are 5 + 4, not 8 + 1
      const int64_t next = g_.out[2] * (i + 1) / strips;
      a.pixels = int(next - wo);
      find_ends(a, wo, next);
      // down first: what two rows both read is still in the L1 cache
      for (int64_t row = 0; row < (end - begin) * frames_; ++row) {
        const int64_t ho = begin + row / frames_, to = first_frame + row % frames_;
        a.line_count = find_lines(a, lines, to, ho, wo, next);
        if (in_place_) {
          const int64_t at = ((n_ * g_.out[0] + to) * out_pixels() + ho * g_.out[2] + wo) * g_.m;
          a.out = static_cast<float*>(call_.y) + at;
          a.z = call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
        } else {
          a.out = sums + ((ho - begin) * g_.out[2] + wo) * out_step();
        }
        (registers_ ? isa_.narrow : isa_.depthwise)(a);
      }
      wo = next;
    }
  }

  // Which ends of a strip are padding, where nothing else of it is and the kernel is one whose ends may be left out.
  void find_ends(DepthwiseArgs& a, int64_t wo, int64_t end) const {
    a.skip_first = a.skip_last = false;
    if (!slides_ || g_.kernel[2] != 3 || !kept_.all_pixels) return;
    const int64_t first = wo * g_.strides[2] - g_.pads[2], last = (end - 1) * g_.strides[2] - g_.pads[2] + 2;
    if (first < -1 || last > g_.w) return;
    a.skip_first = first < 0, a.skip_last = last >= g_.w;
  }

  // Kernel rows of which the strip reads anything.
  int find_lines(const DepthwiseArgs& a, DepthwiseLine* lines, int64_t to, int64_t ho, int64_t wo, int64_t end) const {
    const int64_t first = wo * (slides_ ? g_.strides[2] : g_.kernel[2]), count = positions(end - wo);
    const int64_t whole = count - a.skip_first - a.skip_last;
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
        const int64_t in = (t * g_.h + h) * g_.w, tap = (kt * g_.kernel[1] + kh) * g_.kernel[2];
        if (live == whole) lines[found++] = {(in + wo * g_.strides[2] - g_.pads[2]) * step_, nullptr, nullptr, tap};
        else lines[found++] = {in * step_, at_ + row, at_keep_ + row, tap};
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
    a.channels = registers_ || kept_.all_channels || kept_.channels == 0 ? nullptr : kept_.outputs + first;
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

  PackedLayout layout_;           // of all channels where these are read in place, else of the kept ones
  const bool slides_, in_place_;
  const int registers_, strip_;   // of narrow groups, else 0; most pixels of a strip
  Magnitudes magnitudes_;         // parts: those of the rows
  const float* x_ = nullptr;      // [T][H][W][step_]
  int64_t step_ = 1;
  const float* weights_ = nullptr;
  const float* bias_ = nullptr;
  uint32_t* keep_ = nullptr;      // of lanes: outputs, or inputs of narrow groups
  const int64_t* bases_ = nullptr;
  const int32_t *lanes_of_ = nullptr, *live_inputs_ = nullptr;
  const int64_t *at_ = nullptr, *at_keep_ = nullptr, *before_ = nullptr;
  float* sums_ = nullptr;
  DepthwiseLine* lines_ = nullptr;
  int64_t rows_ = 1, frames_ = 1;  // of output, of an item
};

}  // namespace

void depthwise_conv3d(const ClipCall& clip) {
  DepthwiseClip(clip).run();
}

}  // namespace dance
