#include "activation_gate.h"

#include <algorithm>
#include <cstring>

#include "isa.h"

namespace dance {
namespace {

constexpr int64_t kPassPixels = 512;  // of a frame, as one work item
constexpr int64_t kStripPixels = 1024, kLastStripPixels = 128;  // channels-last strips hold all channels

// Of equal magnitudes, sums in float (magnitude.inc adds 64 deep) may differ by as much: see names.py, GATE_TIE.
constexpr double kTie = 64.0 / (1 << 24);

// keep[i] = unless m < tau * mean m, and not the largest; m = sums / terms, which is left in sums. A NaN makes every
// comparison false.
void decide(double* sums, int64_t count, double terms, double tau, uint8_t* keep) {
  double total = 0.0, largest = 0.0;
  for (int64_t i = 0; i < count; ++i) sums[i] /= terms;
  for (int64_t i = 0; i < count; ++i) {
    total += sums[i];
    if (!(sums[i] <= largest)) largest = sums[i];
  }
  const double threshold = tau * (total / double(count)), tied = largest * (1.0 - kTie);
  for (int64_t i = 0; i < count; ++i) keep[i] = !((sums[i] < threshold) & (sums[i] < tied));
}

// Whether float32 means of that sum say what the values say: nothing infinite or NaN in them, and nothing lost below
// float32's range that 1e-5 of their mean could show.
bool exact_enough(double sum) { return sum >= 1e-30 && sum - sum == 0.0; }

// One n. Each step reads only what the steps before it kept, and nothing at all where its tau drops nothing.
//
// Channels-last: means per frame and channel, and per frame and pixel, are given or taken in one pass; x is read again only
// for pixels where channels are dropped, and from the beginning where the means are not exact enough.
class Clip {
 public:
  Clip(const GateCall& call, int64_t n, Workspace& ws, const Parallel& parallel)
      : g_(call), isa_(isa_current()), parallel_(parallel), tau_(call.tau + n * 3), pixels_(call.h * call.w),
        x_(static_cast<const char*>(call.x) + n * call.c * call.t * pixels_ * bytes()),
        frames_(call.frame_keep + n * call.t), channels_(call.channel_keep + n * call.c),
        features_(call.feature_keep + n * pixels_) {
    const int64_t largest = std::max(std::max(call.t, call.c), pixels_), slabs = call.c * call.t;
    double* doubles = ws.statistics.of<double>(std::size_t(2 * slabs + largest + call.c));
    if (call.channels_last) find_magnitudes(n, ws);
    slab_sums_ = doubles;
    sums_ = slab_sums_ + slabs;
    offsets_ = reinterpret_cast<int64_t*>(sums_ + largest);
    select_ = reinterpret_cast<uint32_t*>(offsets_ + slabs);
  }

  void run() {
    std::memset(frames_, 1, std::size_t(g_.t));
    std::memset(channels_, 1, std::size_t(g_.c));
    std::memset(features_, 1, std::size_t(pixels_));
    if (tau_[0] > 0 || tau_[1] > 0)
      if (!take_slabs()) sum_slabs();
    if (tau_[0] > 0) decide_frames();
    if (tau_[1] > 0) decide_channels();
    if (tau_[2] > 0)
      if (!take_features()) decide_features();
  }

 private:
  int64_t bytes() const { return g_.type == Type::f32 ? 4 : 2; }
  const void* at(int64_t element) const { return x_ + element * bytes(); }
  int64_t kept_frames() const { return std::count(frames_, frames_ + g_.t, 1); }
  int64_t kept_channels() const { return std::count(channels_, channels_ + g_.c, 1); }

  // Those that are given, else of a pass over x.
  void find_magnitudes(int64_t n, Workspace& ws) {
    if (!(tau_[0] > 0) && !(tau_[1] > 0) && !(tau_[2] > 0)) return;
    if (g_.channel_magnitude) {
      channel_magnitude_ = g_.channel_magnitude + n * g_.t * g_.c;
      pixel_magnitude_ = g_.pixel_magnitude + n * g_.t * pixels_;
      return;
    }
    float* sums = ws.sums.of<float>(std::size_t(g_.t * (g_.c + pixels_)));
    channel_magnitude_ = sums, pixel_magnitude_ = sums + g_.t * g_.c;
    const int64_t parts = (pixels_ + kPassPixels - 1) / kPassPixels;
    Magnitudes magnitudes({sums, sums + g_.t * g_.c}, x_, g_.type, true, 0, g_.t, g_.c, pixels_);
    magnitudes.begin(parts, 1, ws);
    for_items(parallel_, g_.t * parts, [&](int, int64_t item) {
      const int64_t begin = item % parts * kPassPixels;
      magnitudes.add(item % parts, 0, item / parts, 0, g_.c, begin, std::min(kPassPixels, pixels_ - begin));
    });
    magnitudes.end();
  }

  // slab_sums_ from the means; false where these are not exact enough.
  bool take_slabs() {
    if (!channel_magnitude_) return false;
    double all = 0.0;
    for (int64_t t = 0; t < g_.t; ++t)
      for (int64_t c = 0; c < g_.c; ++c) {
        slab_sums_[c * g_.t + t] = double(channel_magnitude_[t * g_.c + c]) * double(pixels_);
        all += slab_sums_[c * g_.t + t];
      }
    return exact_enough(all);
  }

  // Features from the means; false where channels are dropped or these are not exact enough.
  bool take_features() {
    if (!pixel_magnitude_ || std::memchr(channels_, 0, std::size_t(g_.c))) return false;
    std::fill(sums_, sums_ + pixels_, 0.0);
    int64_t slices = 0;
    for (int64_t t = 0; t < g_.t; ++t)
      if (frames_[t]) offsets_[slices++] = t * pixels_;
    isa_.abs_sum_slices({pixel_magnitude_, Type::f32, offsets_, 0, slices, pixels_, sums_});
    double all = 0.0;
    for (int64_t p = 0; p < pixels_; ++p) all += sums_[p];
    if (!exact_enough(all)) return false;
    decide(sums_, pixels_, double(slices), tau_[2], features_);
    return true;
  }

  // slab_sums_[c * T + t]
  void sum_slabs() {
    if (!g_.channels_last) {
      for_items(parallel_, g_.c * g_.t, [&](int, int64_t slab) {
        slab_sums_[slab] = isa_.abs_sum(at(slab * pixels_), g_.type, nullptr, pixels_);
      });
      return;
    }
    double* by_frame = reinterpret_cast<double*>(offsets_);  // [T][C], in memory that is not used yet
    for_items(parallel_, g_.t, [&](int, int64_t t) {
      double* sums = by_frame + t * g_.c;
      std::fill(sums, sums + g_.c, 0.0);
      isa_.abs_sum_slices({at(t * pixels_ * g_.c), g_.type, nullptr, g_.c, pixels_, g_.c, sums});
    });
    for (int64_t t = 0; t < g_.t; ++t)
      for (int64_t c = 0; c < g_.c; ++c) slab_sums_[c * g_.t + t] = by_frame[t * g_.c + c];
  }

  void decide_frames() {
    for (int64_t t = 0; t < g_.t; ++t) {
      sums_[t] = 0.0;
      for (int64_t c = 0; c < g_.c; ++c) sums_[t] += slab_sums_[c * g_.t + t];
    }
    decide(sums_, g_.t, double(g_.c * pixels_), tau_[0], frames_);
  }

  void decide_channels() {
    for (int64_t c = 0; c < g_.c; ++c) {
      sums_[c] = 0.0;
      for (int64_t t = 0; t < g_.t; ++t)
        if (frames_[t]) sums_[c] += slab_sums_[c * g_.t + t];
    }
    decide(sums_, g_.c, double(kept_frames() * pixels_), tau_[1], channels_);
  }

  void decide_features() {
    std::fill(sums_, sums_ + pixels_, 0.0);
    const int64_t strip_pixels = g_.channels_last ? kLastStripPixels : kStripPixels;
    const int64_t strips = (pixels_ + strip_pixels - 1) / strip_pixels;
    int64_t slices = 0;
    if (!g_.channels_last) {
      for (int64_t slab = 0; slab < g_.c * g_.t; ++slab)
        if (channels_[slab / g_.t] && frames_[slab % g_.t]) offsets_[slices++] = slab * pixels_;
    } else {
      for (int64_t c = 0; c < g_.c; ++c) select_[c] = channels_[c] ? 0xffffffffu : 0u;
      for (int64_t t = 0; t < g_.t; ++t)
        if (frames_[t]) offsets_[slices++] = t * pixels_ * g_.c;
    }
    for_items(parallel_, strips, [&](int, int64_t strip) {
      const int64_t begin = strip * strip_pixels, count = std::min(pixels_ - begin, strip_pixels);
      if (!g_.channels_last) {
        isa_.abs_sum_slices({at(begin), g_.type, offsets_, 0, slices, count, sums_ + begin});
      } else {
        isa_.abs_sum_pixels({at(begin * g_.c), g_.type, offsets_, slices, count, g_.c, select_, sums_ + begin});
      }
    });
    decide(sums_, pixels_, double(kept_frames() * kept_channels()), tau_[2], features_);
  }

  const GateCall& g_;
  const IsaKernels& isa_;
  const Parallel& parallel_;
  const float* tau_;
  const int64_t pixels_;
  const char* x_;
  uint8_t *frames_, *channels_, *features_;
  const float *channel_magnitude_ = nullptr, *pixel_magnitude_ = nullptr;
  double *slab_sums_, *sums_;
  int64_t* offsets_;
  uint32_t* select_;
};

}  // namespace

void activation_gate(const GateCall& call, Workspace& workspace, const Parallel& parallel) {
  for (int64_t n = 0; n < call.n; ++n) {
    Clip(call, n, workspace, parallel).run();
    if (!call.kept) continue;
    call.kept[3 * n] = std::count(call.frame_keep + n * call.t, call.frame_keep + (n + 1) * call.t, 1);
    call.kept[3 * n + 1] = std::count(call.channel_keep + n * call.c, call.channel_keep + (n + 1) * call.c, 1);
    const uint8_t* features = call.feature_keep + n * call.h * call.w;
    call.kept[3 * n + 2] = std::count(features, features + call.h * call.w, 1);
  }
}

}  // namespace dance
