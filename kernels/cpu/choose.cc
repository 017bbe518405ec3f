// Which variant a call takes: an estimate of the work that the masks leave to each, in steps. One step multiplies one
// input channel of one row with one block of output channels: the innermost line of rows.inc.
#include <algorithm>
#include <cmath>

#include "by_pixel.h"
#include "costs.h"
#include "pack.h"
#include "padded.h"
#include "pairs.h"
#include "winograd.h"
#include "winograd_tiles.h"

namespace dance {
namespace {

// On AMX tiles, measured next to the float32 kernels of the same processor:
constexpr double kTileStep = 1.0 / 8;  // a step of the products ...
constexpr double kTileEnds = 0.5;      // ... beside which counts, directly, rounding a float of X, and storing one of Y
constexpr int kTileSize = 4;           // of Winograd's; smaller ones read their weights too often for so few products
constexpr double kFewOutputsSteps = 1.2;  // a product of few_outputs.inc: sums are added up across lanes too
constexpr double kByPixelSteps = 1.2;     // a product of by_pixel.cc: what it multiplies and adds to goes through the cache
// Tiles of few live pairs; measured where the other costs were.
constexpr double kAddSteps = 4;       // pixel by pixel: one kernel position's sums of a row to the cache and back ...
constexpr double kPixelSteps = 40;    // ... and beginning and storing the sums of an output pixel
constexpr double kItemSteps = 1500;   // ... and a row of tiles of output frames with the same live kernel frames, of a block
constexpr double kLeastRows = 20;     // of the tiles that stay whole: with fewer, reading weights takes longer than products
constexpr double kBeside = 0.5;       // products for whole neighbours of such a tile, which are thrown away, a live pair
constexpr double kFewGain = 0.95;     // tiles go pixel by pixel below this share of a whole one's estimate, and some ...
constexpr double kMixGain = 0.95;     // ... do where that takes less than this share of all or none
constexpr int64_t kMixBytes = 9 << 20;  // weights that whole tiles beside others may take wherever the estimate is lower
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

// How many pairs of an output and a kernel position read position i of an axis (0: T).
int64_t readers(const ConvGeometry& g, int axis, int64_t i) {
  const int64_t stride = g.strides[axis], dilation = g.dilations[axis], last = i + g.pads[axis];
  if (stride == 1 && dilation == 1)
    return std::max<int64_t>(0, std::min(g.out[axis] - 1, last) - std::max<int64_t>(0, last - g.kernel[axis] + 1) + 1);
  int64_t count = 0;
  for (int64_t at = last; at > last - g.kernel[axis] * dilation && at >= 0; at -= dilation)
    count += at % stride == 0 && at / stride < g.out[axis];
  return count;
}

// Pairs (output pixel, kernel position) that are live.
double direct_pixels(const ConvGeometry& g, const uint8_t* feature) {
  int64_t positions = 0;
  for (int64_t h = 0; h < g.h; ++h) {
    int64_t row = 0;
    for (int64_t w = 0; w < g.w; ++w)
      if (feature[h * g.w + w]) row += readers(g, 2, w);
    if (row) positions += row * readers(g, 1, h);
  }
  return double(positions);
}

// The same with all pixels kept.
double all_positions(const ConvGeometry& g) {
  int64_t rows = 0, columns = 0;
  for (int64_t h = 0; h < g.h; ++h) rows += readers(g, 1, h);
  for (int64_t w = 0; w < g.w; ++w) columns += readers(g, 2, w);
  return double(rows * columns);
}

// Tiles that read any of the map, all of which is kept.
double all_tiles(const ConvGeometry& g, int size) {
  const auto along = [&](int axis, int64_t extent) {
    int64_t tiles = 0;
    for (int64_t out = 0; out < g.out[axis]; out += size) {
      const int64_t first = out - g.pads[axis], end = std::min(out + size, g.out[axis]) - g.pads[axis] + 2;
      tiles += first < extent && end > 0;
    }
    return tiles;
  };
  return double(along(1, g.h) * along(2, g.w));
}

constexpr int kMostPairs = 4 * 4 * 9;

// Tiles by how many pairs (output pixel, kernel position) of theirs are live.
struct TilePairs {
  int64_t count[kMostPairs + 1] = {};

  TilePairs(const ConvGeometry& g, const uint8_t* feature, int size) {
    for (int64_t row = 0; row * size < g.out[1]; ++row)
      for (int64_t column = 0; column * size < g.out[2]; ++column) ++count[live_pairs(g, feature, size, row, column)];
  }
  double live(int64_t from = 1, int64_t to = kMostPairs + 1) const {
    int64_t tiles = 0;
    for (int64_t pairs = std::max<int64_t>(1, from); pairs < to; ++pairs) tiles += count[pairs];
    return double(tiles);
  }
  double pairs(int64_t to) const {  // of the tiles that have fewer
    int64_t sum = 0;
    for (int64_t pairs = 1; pairs < to; ++pairs) sum += pairs * count[pairs];
    return double(sum);
  }
};

// What the masks leave.
struct Work {
  double pairs = 0, outputs = 0, inputs = 0;  // live (output, kernel) frames; outputs that have one; inputs read
  double changes = 0;                         // how often along T an output reads by other kernel frames than the one before
  double channels, tiles;                     // channels: units of them in bfloat16
  bool indexed;                               // some channels are dropped
};

// frame: [T], null = all kept.
Work count_frames(const ConvGeometry& g, const uint8_t* frame) {
  Work work{};
  uint64_t before = 0;
  for (int64_t to = 0; to < g.out[0]; ++to) {
    uint64_t live = 0;
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      const int64_t t = to * g.strides[0] - g.pads[0] + kt * g.dilations[0];
      live |= uint64_t(t >= 0 && t < g.t && (!frame || frame[t])) << std::min<int64_t>(kt, 63);
    }
    work.pairs += __builtin_popcountll(live);
    work.outputs += live != 0;
    work.changes += live != 0 && live != before;
    before = live;
  }
  for (int64_t t = 0; t < g.t; ++t) work.inputs += !frame || frame[t];
  return work;
}

// Tiles with few live pairs pixel by pixel, the others whole.
struct Split {
  int64_t least_pairs;  // of a whole one
  double steps;
};

// What one call is estimated to take, in steps.
class Estimate {
 public:
  Estimate(const ConvCall& call, const IsaKernels& isa)
      : call_(call), g_(call.geometry), isa_(isa), costs_(call.costs ? *call.costs : kBuiltIn), halves_(call.pairs ? 2 : 1),
        by_tiles_(call.pairs && call.pairs->by_tiles()), step_(by_tiles_ ? kTileStep : 1) {}

  int tile_size() const;
  double winograd(const Kept& kept, int size) const;
  Split split(const Kept& kept, int size) const;
  double direct(const Kept& kept) const;
  double by_pixel(const Kept& kept) const;

 private:
  static constexpr Costs kBuiltIn{};

  // size: of Winograd tiles, 0: directly.
  Work work(const Kept& kept, int size) const;
  double weight_steps(const Work& work, double taps) const;
  // Whole ones of all vectors of output channels: the last may be narrower.
  double blocks() const { return double((g_.m + isa_.vector - 1) / isa_.vector) / isa_.max_vectors; }
  double component_steps(const Work& work) const;
  double winograd_steps(const Work& work, int size) const;
  double direct_steps(const Work& work, double positions, PaddedWay way) const;

  const ConvCall& call_;
  const ConvGeometry& g_;
  const IsaKernels& isa_;
  const Costs costs_;
  const double halves_;
  const bool by_tiles_;
  const double step_;  // that one input channel of one row takes with one block of output channels
};

// taps: rows of packed weights that each input channel has.
double Estimate::weight_steps(const Work& work, double taps) const {
  const double row = (work.indexed ? costs_.indexed : costs_.weight) * isa_.block() * blocks();
  const bool few = 4 * taps * double(g_.c) * blocks() * isa_.block() <= kFewBytes;
  return taps * work.channels * row * (few ? costs_.few : 1);
}

// Of one component of a tile.
double Estimate::component_steps(const Work& work) const {
  const double padded = halves_ * double((int64_t(work.channels) + isa_.vector - 1) / isa_.vector * isa_.vector);
  return work.pairs * (work.channels * costs_.product + costs_.run) * blocks() * step_ +
         work.inputs * padded * costs_.in / isa_.block() + work.outputs * blocks() * costs_.out;
}

double Estimate::winograd_steps(const Work& work, int size) const {
  const double components = double(size + 2) * (size + 2);
  const double weights = weight_steps(work, components * double(g_.kernel[0]));
  return costs_.call + components * work.tiles * component_steps(work) + weights;
}

// way: of the direct kernel, for these channels.
double Estimate::direct_steps(const Work& work, double positions, PaddedWay way) const {
  if (way == PaddedWay::inputs) {
    const double products = double(g_.m) * double((int64_t(work.channels) + isa_.vector - 1) / isa_.vector);
    return kFewOutputsSteps * products / isa_.max_vectors * positions * work.pairs;
  }
  const double weights = weight_steps(work, double(g_.kernel[0] * g_.kernel[1] * g_.kernel[2]));
  const double ends = by_tiles_ ? kTileEnds * (work.inputs * halves_ * double(g_.h * g_.w * g_.c) +
                                               work.outputs * double(g_.out[1] * g_.out[2] * g_.m)) : 0;
  return work.channels * blocks() * positions * work.pairs * step_ + ends + weights;
}

// Tiles of a layer, or 0 where it is always computed directly. By the geometry alone, so that weights are transformed
// for one size only, and take their memory or never do.
int Estimate::tile_size() const {
  Work work = count_frames(g_, nullptr);
  work.channels = double(g_.c);
  const auto steps = [&](int size) {
    work.tiles = all_tiles(g_, size);
    return winograd_steps(work, size);
  };
  const int size = g_.c < kLeastChannels ? 2 : by_tiles_ ? kTileSize : steps(4) < kMemoryGain * steps(2) ? 4 : 2;
  if (WinogradLayout(g_, isa_, size).floats() * 4 <= kLargeBytes) return size;
  const double direct = direct_steps(work, all_positions(g_), padded_way(call_, g_.c, isa_));
  return steps(size) < kLargeGain * direct ? size : 0;
}

Work Estimate::work(const Kept& kept, int size) const {
  Work work = count_frames(g_, kept.masks.frame);
  const bool all = call_.pairs && call_.pairs->multiplies_all(size);
  work.channels = all ? double(g_.c) : kept.channels;
  work.indexed = !all && !kept.all_channels && !winograd_in_place(call_, kept, isa_);
  return work;
}

double Estimate::winograd(const Kept& kept, int size) const {
  Work left = work(kept, size);
  left.tiles = kept.all_pixels ? all_tiles(g_, size) : TilePairs(g_, kept.masks.feature, size).live();
  return winograd_steps(left, size);
}

Split Estimate::split(const Kept& kept, int size) const {
  Work left = work(kept, size);
  const TilePairs tiles(g_, kept.masks.feature, size);
  const double components = double(size + 2) * (size + 2), kernel_frames = double(g_.kernel[0]);
  const double pair = blocks() * (left.pairs * left.channels + left.outputs * kAddSteps);
  const double pixels = blocks() * left.outputs * kPixelSteps * size * size;
  const auto steps = [&](int64_t least) {
    left.tiles = tiles.live(least);
    const double whole = left.tiles > 0 ? winograd_steps(left, size) : costs_.call;
    const double few = tiles.live(1, least);
    if (few == 0) return whole;
    const double beside = 1 + kBeside * left.tiles / (left.tiles + few);
    // those of the components once more, of which few rows hide nothing
    const bool few_rows = left.tiles > 0 && left.tiles * left.outputs < kLeastRows;
    const double weights = weight_steps(left, (few_rows ? 9 + components : 9) * kernel_frames);
    const double items = std::min(few, double(g_.out[1]) / size) * left.changes * std::max(1.0, blocks());
    return whole + costs_.call + items * kItemSteps + few * pixels + tiles.pairs(least) * pair * beside + weights;
  };
  // a tile that takes less pixel by pixel than whole
  const double share = kFewGain * components * component_steps(left);
  const int64_t pairs = int64_t((share - pixels) / (pair * (1 + kBeside / 2))) + 1;
  const int64_t fewer = std::max<int64_t>(1, std::min<int64_t>(kMostPairs, pairs));
  const Split whole{1, steps(1)}, none{kMostPairs + 1, steps(kMostPairs + 1)}, mixed{fewer, steps(fewer)};
  const Split& same = whole.steps <= none.steps ? whole : none;
  if (mixed.steps >= kMixGain * same.steps) return same;
  // many weights for the few tiles that stay whole pay only where they would for all
  const bool many = WinogradLayout(g_, isa_, size).floats() * 4 > kMixBytes;
  return many && whole.steps >= kGain * direct(kept) ? none : mixed;
}

double Estimate::direct(const Kept& kept) const {
  const Work left = work(kept, 0);
  // no plan is made for this: it would cost more than a slightly better choice brings
  const PaddedWay way = padded_way(call_, kept.channels, isa_);
  double steps = direct_steps(left, direct_pixels(g_, kept.masks.feature), way);
  if (kept.all_pixels) return steps;
  steps *= costs_.holes + costs_.scattered * kept.scattered() / left.channels;
  if (g_.m <= 2 * isa_.vector) steps *= costs_.narrow_holes;
  // zeros are read where that is faster
  return std::min(steps, direct_steps(left, all_positions(g_), way));
}

double Estimate::by_pixel(const Kept& kept) const {
  return kByPixelSteps * by_pixel_products(call_, kept, isa_) / isa_.max_vectors;
}

}  // namespace

Tiling choose_tiling(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  const Tiling direct_only{0, 0};
  const bool direct = call.variant == Variant::direct || call.variant == Variant::by_pixel;
  if (direct || !winograd_allowed(call, kept, isa)) return direct_only;
  if (call.variant != Variant::automatic) {
    const int size = int(call.variant) % 10;
    const bool mixed = int(call.variant) > 10 && !call.pairs;
    return size == 2 || g.c >= kLeastChannels ? Tiling{size, mixed ? size * size * 9 / 2 : 1} : direct_only;
  }
  const Estimate estimate(call, isa);
  const int size = estimate.tile_size();
  if (size == 0) return direct_only;
  const bool whole = kept.all_pixels || call.pairs;
  const Split split = whole ? Split{1, estimate.winograd(kept, size)} : estimate.split(kept, size);
  const double without = std::min(estimate.direct(kept), estimate.by_pixel(kept));
  return split.steps < kGain * without ? Tiling{size, split.least_pairs} : direct_only;
}

bool by_pixel_pays(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const Estimate estimate(call, isa);
  const double steps = estimate.by_pixel(kept);
  return std::isfinite(steps) && steps < estimate.direct(kept);
}

bool estimate_variants(const ConvCall& call, const Kept& kept, const IsaKernels& isa, VariantSteps& steps) {
  if (!winograd_allowed(call, kept, isa)) return false;
  const Estimate estimate(call, isa);
  const double direct = std::min(estimate.direct(kept), estimate.by_pixel(kept));
  steps = {direct, estimate.winograd(kept, 2), estimate.winograd(kept, 4)};
  return true;
}

}  // namespace dance
