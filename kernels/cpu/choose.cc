// Which variant a call takes: an estimate of the work that the masks leave to each, in steps. One step multiplies one
// input channel of one row with one block of output channels: the innermost line of rows.inc.
#include <algorithm>

#include "costs.h"
#include "pack.h"
#include "padded.h"
#include "winograd.h"

namespace dance {
namespace {

constexpr double kFewOutputsSteps = 1.2;  // a product of few_outputs.inc: sums are added up across lanes too
// What a gain must be worth, whatever the machine:
constexpr double kGain = 0.95;        // Winograd's estimate must be below this share of the direct one
constexpr double kLargeGain = 0.7;    // With all kept it must be below this where its weights take more than ...
constexpr int64_t kLargeBytes = 16 << 20;  // ... this: 512 channels of 7x7 pixels would gain 5 % for 50 MB a layer
constexpr double kMemoryGain = 0.9;   // size 4's must be below this share of size 2's, as it takes 2.25 times the memory
constexpr double kFewBytes = 9 << 20;  // weights up to this stay in a cache: also where winograd.cc changes its ways
constexpr int64_t kMostFrames = 32;   // from the first to the last kernel frame: all between them have a place in memory
constexpr int64_t kLeastChannels = 8; // fewer: the bound on rounding, which grows with them, has no room for size 4

bool winograd_allowed(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  return g.type == Type::f32 && g.group == 1 && g.kernel[1] == 3 && g.kernel[2] == 3 && g.strides[1] == 1 &&
         g.strides[2] == 1 && g.dilations[1] == 1 && g.dilations[2] == 1 && call.packed && call.packed->isa == &isa &&
         kept.channels > 0 &&
         (g.kernel[0] - 1) * g.dilations[0] < kMostFrames;
}

// How many outputs read position i of an axis with a kernel of 3 and stride 1.
int64_t readers(int64_t i, int64_t pad, int64_t out) {
  return std::max<int64_t>(0, std::min(out - 1, i + pad) - std::max<int64_t>(0, i + pad - 2) + 1);
}

// Pairs (output pixel, kernel position) that are live.
double direct_pixels(const ConvGeometry& g, const uint8_t* feature) {
  int64_t positions = 0;
  for (int64_t h = 0; h < g.h; ++h) {
    int64_t row = 0;
    for (int64_t w = 0; w < g.w; ++w) row += feature[h * g.w + w] * readers(w, g.pads[2], g.out[2]);
    positions += row * readers(h, g.pads[1], g.out[1]);
  }
  return double(positions);
}

// The same with all pixels kept.
double all_positions(const ConvGeometry& g) {
  int64_t rows = 0, columns = 0;
  for (int64_t h = 0; h < g.h; ++h) rows += readers(h, g.pads[1], g.out[1]);
  for (int64_t w = 0; w < g.w; ++w) columns += readers(w, g.pads[2], g.out[2]);
  return double(rows * columns);
}

double live_tiles(const ConvGeometry& g, const uint8_t* feature, int size) {
  int64_t live = 0;
  for (int64_t ho = 0; ho < g.out[1]; ho += size)
    for (int64_t wo = 0; wo < g.out[2]; wo += size) {
      const int64_t top = std::max<int64_t>(0, ho - g.pads[1]), left = std::max<int64_t>(0, wo - g.pads[2]);
      const int64_t bottom = std::min(g.h, ho - g.pads[1] + size + 2), right = std::min(g.w, wo - g.pads[2] + size + 2);
      bool any = !feature;
      for (int64_t h = top; h < bottom && !any; ++h)
        for (int64_t w = left; w < right && !any; ++w) any = feature[h * g.w + w];
      live += any;
    }
  return double(live);
}

// What the masks leave.
struct Work {
  double pairs = 0, outputs = 0, inputs = 0;  // live (output, kernel) frames; outputs that have one; inputs read
  double channels, tiles;                     // channels: units of them in bfloat16
  bool indexed;                               // some channels are dropped
};

// frame: [T], null = all kept.
Work count_frames(const ConvGeometry& g, const uint8_t* frame) {
  Work work{};
  for (int64_t to = 0; to < g.out[0]; ++to) {
    int64_t live = 0;
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      const int64_t t = to * g.strides[0] - g.pads[0] + kt * g.dilations[0];
      live += t >= 0 && t < g.t && (!frame || frame[t]);
    }
    work.pairs += double(live);
    work.outputs += live > 0;
  }
  for (int64_t t = 0; t < g.t; ++t) work.inputs += !frame || frame[t];
  return work;
}

// What one call is estimated to take, in steps.
class Estimate {
 public:
  Estimate(const ConvCall& call, const IsaKernels& isa)
      : call_(call), g_(call.geometry), isa_(isa), costs_(call.costs ? *call.costs : kBuiltIn), halves_(call.pairs ? 2 : 1) {}

  int tile_size() const;
  double winograd(const Kept& kept, int size) const;
  double direct(const Kept& kept) const;

 private:
  static constexpr Costs kBuiltIn{};

  Work work(const Kept& kept) const;
  double weight_steps(const Work& work, double taps) const;
  // Whole ones of all vectors of output channels: the last may be narrower.
  double blocks() const { return double((g_.m + isa_.vector - 1) / isa_.vector) / isa_.max_vectors; }
  double winograd_steps(const Work& work, int size) const;
  double direct_steps(const Work& work, double positions, PaddedWay way) const;

  const ConvCall& call_;
  const ConvGeometry& g_;
  const IsaKernels& isa_;
  const Costs costs_;
  const double halves_;
};

// taps: rows of packed weights that each input channel has.
double Estimate::weight_steps(const Work& work, double taps) const {
  const double row = (work.indexed ? costs_.indexed : costs_.weight) * isa_.block() * blocks();
  const bool few = 4 * taps * double(g_.c) * blocks() * isa_.block() <= kFewBytes;
  return taps * work.channels * row * (few ? costs_.few : 1);
}

double Estimate::winograd_steps(const Work& work, int size) const {
  const double components = double(size + 2) * (size + 2);
  const double padded = halves_ * double((int64_t(work.channels) + isa_.vector - 1) / isa_.vector * isa_.vector);
  const double tile = work.pairs * (work.channels * costs_.product + costs_.run) * blocks() +
                      work.inputs * padded * costs_.in / isa_.block() + work.outputs * blocks() * costs_.out;
  const double weights = weight_steps(work, components * double(g_.kernel[0]));
  return costs_.call + components * work.tiles * tile + weights;
}

// way: of the direct kernel, for these channels.
double Estimate::direct_steps(const Work& work, double positions, PaddedWay way) const {
  if (way == PaddedWay::inputs) {
    const double products = double(g_.m) * double((int64_t(work.channels) + isa_.vector - 1) / isa_.vector);
    return kFewOutputsSteps * products / isa_.max_vectors * positions * work.pairs;
  }
  const double weights = weight_steps(work, 9.0 * double(g_.kernel[0]));
  return work.channels * blocks() * positions * work.pairs + weights;
}

// Tiles of a layer, or 0 where it is always computed directly. By the geometry alone, so that weights are transformed
// for one size only, and take their memory or never do.
int Estimate::tile_size() const {
  Work work = count_frames(g_, nullptr);
  work.channels = double(g_.c);
  const auto steps = [&](int size) {
    work.tiles = live_tiles(g_, nullptr, size);
    return winograd_steps(work, size);
  };
  const int size = g_.c >= kLeastChannels && steps(4) < kMemoryGain * steps(2) ? 4 : 2;
  if (WinogradLayout(g_, isa_, size).floats() * 4 <= kLargeBytes) return size;
  const double direct = direct_steps(work, all_positions(g_), padded_way(call_, g_.c, isa_));
  return steps(size) < kLargeGain * direct ? size : 0;
}

Work Estimate::work(const Kept& kept) const {
  Work work = count_frames(g_, kept.masks.frame);
  work.channels = kept.channels;
  work.indexed = !kept.all_channels && !winograd_in_place(call_, kept, isa_);
  return work;
}

double Estimate::winograd(const Kept& kept, int size) const {
  Work left = work(kept);
  left.tiles = live_tiles(g_, kept.all_pixels ? nullptr : kept.masks.feature, size);
  return winograd_steps(left, size);
}

double Estimate::direct(const Kept& kept) const {
  const Work left = work(kept);
  // no plan is made for this: it would cost more than a slightly better choice brings
  const PaddedWay way = padded_way(call_, kept.channels, isa_);
  double steps = direct_steps(left, direct_pixels(g_, kept.masks.feature), way);
  if (kept.all_pixels) return steps;
  steps *= costs_.holes + costs_.scattered * kept.scattered() / left.channels;
  if (g_.m <= 2 * isa_.vector) steps *= costs_.narrow_holes;
  return std::min(steps, direct_steps(left, all_positions(g_), way));  // zeros are read where that is faster
}

}  // namespace

Variant choose_variant(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  if (call.variant == Variant::direct || !winograd_allowed(call, kept, isa)) return Variant::direct;
  if (call.variant == Variant::winograd2) return Variant::winograd2;
  if (call.variant == Variant::winograd4) return g.c >= kLeastChannels ? Variant::winograd4 : Variant::direct;
  const Estimate estimate(call, isa);
  const int size = estimate.tile_size();
  if (size == 0 || estimate.winograd(kept, size) >= kGain * estimate.direct(kept)) return Variant::direct;
  return size == 4 ? Variant::winograd4 : Variant::winograd2;
}

bool estimate_variants(const ConvCall& call, const Kept& kept, const IsaKernels& isa, VariantSteps& steps) {
  if (!winograd_allowed(call, kept, isa)) return false;
  const Estimate estimate(call, isa);
  steps = {estimate.direct(kept), estimate.winograd(kept, 2), estimate.winograd(kept, 4)};
  return true;
}

}  // namespace dance
