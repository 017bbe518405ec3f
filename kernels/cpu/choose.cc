// Which variant a call takes: an estimate of the work that the masks leave to each, in steps. One step multiplies one
// input channel of one row with one block of output channels: the innermost line of rows.inc.
#include <algorithm>

#include "pack.h"
#include "padded.h"
#include "winograd.h"
#include "winograd_tiles.h"

namespace dance {
namespace {

// Measured for layers of R3D-18, C3D and R(2+1)D-18; what matters is where direct and Winograd cross.
constexpr double kInSteps = 14;       // transforming one input value of one component: this over a block's columns
constexpr double kOutSteps = 18;      // back, with the store, of one component of one block
constexpr double kRunSteps = 2;        // beginning and ending a run of the reduction of a row
constexpr double kWeightSteps = 0.15; // reading a row of weights from outside the L2 cache: this times its columns ...
constexpr double kIndexedSteps = 0.4; // ... and where rows are picked by an index
constexpr double kFewOutputsSteps = 1.2;  // a product of few_outputs.inc: sums are added up across lanes too
constexpr double kCallSteps = 8000;   // tiles and parts to find, threads to wait for once more
constexpr double kAddSteps = 4;       // pixel by pixel: one kernel position's sums of a row to the cache and back ...
constexpr double kPixelSteps = 40;    // ... and beginning and storing the sums of an output pixel
constexpr double kItemSteps = 1500;   // ... and a row of tiles of output frames with the same live kernel frames, of a block
constexpr double kLeastRows = 20;     // of the tiles that stay whole: with fewer, reading weights takes longer than products
constexpr double kBeside = 0.5;       // products for whole neighbours of such a tile, which are thrown away, a live pair
constexpr double kFewGain = 0.95;     // tiles go pixel by pixel below this share of a whole one's estimate, and some ...
constexpr double kMixGain = 0.95;     // ... do where that takes less than this share of all or none
constexpr int64_t kMixBytes = 9 << 20;  // weights that whole tiles beside others may take wherever the estimate is lower
constexpr double kGain = 0.95;        // Winograd's estimate must be below this share of the direct one
constexpr double kLargeGain = 0.7;    // With all kept it must be below this where its weights take more than ...
constexpr int64_t kLargeBytes = 16 << 20;  // ... this: 512 channels of 7x7 pixels would gain 5 % for 50 MB a layer
constexpr double kHoles = 1.03;       // what dropped pixels cost the direct kernel in full tiles, and ...
constexpr double kScattered = 34;     // ... this over the channels a position reads, where no two neighbours are kept
constexpr double kNarrowHoles = 1.2;  // and this besides where tiles are one or two vectors wide
constexpr double kMemoryGain = 0.9;   // size 4's must be below this share of size 2's, as it takes 2.25 times the memory
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
  double channels, tiles;                     // channels: units of them in bfloat16, which hold `halves` each
  double halves = 1;
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

double weight_steps(const Work& work, const IsaKernels& isa) {
  return (work.indexed ? kIndexedSteps : kWeightSteps) * isa.block();
}

// Whole ones of all vectors of output channels: the last may be narrower.
double block_count(const ConvGeometry& g, const IsaKernels& isa) {
  return double((g.m + isa.vector - 1) / isa.vector) / isa.max_vectors;
}

// Of one component of a tile.
double component_steps(const ConvGeometry& g, const Work& work, const IsaKernels& isa) {
  const double blocks = block_count(g, isa);
  const double padded = work.halves * double((int64_t(work.channels) + isa.vector - 1) / isa.vector * isa.vector);
  return work.pairs * (work.channels + kRunSteps) * blocks + work.inputs * padded * kInSteps / isa.block() +
         work.outputs * blocks * kOutSteps;
}

double winograd_steps(const ConvGeometry& g, const Work& work, const IsaKernels& isa, int size) {
  const double blocks = block_count(g, isa), components = double(size + 2) * (size + 2);
  const double weights = double(g.kernel[0]) * work.channels * blocks * weight_steps(work, isa);
  return kCallSteps + components * (work.tiles * component_steps(g, work, isa) + weights);
}

// Tiles with few live pairs pixel by pixel, the others whole.
struct Split {
  int64_t least_pairs;  // of a whole one
  double steps;
};

Split split_steps(const ConvGeometry& g, Work work, const IsaKernels& isa, int size, const TilePairs& tiles) {
  const double blocks = block_count(g, isa), components = double(size + 2) * (size + 2);
  const double pair = blocks * (work.pairs * work.channels + work.outputs * kAddSteps);
  const double pixels = blocks * work.outputs * kPixelSteps * size * size;
  const auto steps = [&](int64_t least) {
    work.tiles = tiles.live(least);
    const double whole = work.tiles > 0 ? winograd_steps(g, work, isa, size) : kCallSteps;
    const double few = tiles.live(1, least);
    if (few == 0) return whole;
    const double beside = 1 + kBeside * work.tiles / (work.tiles + few);
    double weights = 9.0 * double(g.kernel[0]) * work.channels * blocks * weight_steps(work, isa);
    // and those of the components, of which few rows hide nothing
    if (work.tiles > 0 && work.tiles * work.outputs < kLeastRows) weights *= 1 + components / 9.0;
    const double items = std::min(few, double(g.out[1]) / size) * work.changes * std::max(1.0, blocks);
    return whole + kCallSteps + items * kItemSteps + few * pixels + tiles.pairs(least) * pair * beside + weights;
  };
  const double share = kFewGain * components * component_steps(g, work, isa);
  // a tile that takes less pixel by pixel than whole
  const int64_t fewer = std::max<int64_t>(1, std::min<int64_t>(kMostPairs, int64_t((share - pixels) / (pair * (1 + kBeside / 2))) + 1));
  const Split whole{1, steps(1)}, none{kMostPairs + 1, steps(kMostPairs + 1)}, mixed{fewer, steps(fewer)};
  const Split& same = whole.steps <= none.steps ? whole : none;
  return mixed.steps < kMixGain * same.steps ? mixed : same;
}

// way: of the direct kernel, for these channels.
double direct_steps(const ConvGeometry& g, const Work& work, const IsaKernels& isa, double positions, PaddedWay way) {
  if (way == PaddedWay::inputs) {
    const double products = double(g.m) * double((int64_t(work.channels) + isa.vector - 1) / isa.vector);
    return kFewOutputsSteps * products / isa.max_vectors * positions * work.pairs;
  }
  const double weights = 9.0 * double(g.kernel[0]) * weight_steps(work, isa);
  return work.channels * block_count(g, isa) * (positions * work.pairs + weights);
}

// Tiles of a layer, or 0 where it is always computed directly. By the geometry alone, so that weights are transformed
// for one size only, and take their memory or never do.
int tile_size(const ConvCall& call, const IsaKernels& isa, double halves) {
  const ConvGeometry& g = call.geometry;
  Work work = count_frames(g, nullptr);
  work.halves = halves;
  work.channels = double(g.c);
  const auto steps = [&](int size) {
    work.tiles = all_tiles(g, size);
    return winograd_steps(g, work, isa, size);
  };
  const int size = g.c >= kLeastChannels && steps(4) < kMemoryGain * steps(2) ? 4 : 2;
  if (WinogradLayout(g, isa, size).floats() * 4 <= kLargeBytes) return size;
  const double direct = direct_steps(g, work, isa, all_positions(g), padded_way(call, g.c, isa));
  return steps(size) < kLargeGain * direct ? size : 0;
}

}  // namespace

Tiling choose_tiling(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  const Tiling direct_only{0, 0};
  if (call.variant == Variant::direct || !winograd_allowed(call, kept, isa)) return direct_only;
  if (call.variant != Variant::automatic) {
    const int size = int(call.variant) % 10;
    const bool mixed = int(call.variant) > 10 && !call.pairs;
    return size == 2 || g.c >= kLeastChannels ? Tiling{size, mixed ? size * size * 9 / 2 : 1} : direct_only;
  }
  const double halves = call.pairs ? 2 : 1;
  const int size = tile_size(call, isa, halves);
  if (size == 0) return direct_only;
  Work work = count_frames(g, kept.masks.frame);
  work.halves = halves;
  work.channels = kept.channels;
  work.indexed = !kept.all_channels && !winograd_in_place(call, kept, isa);
  Split split{1, 0};
  if (kept.all_pixels) {
    work.tiles = all_tiles(g, size);
    split.steps = winograd_steps(g, work, isa, size);
  } else {
    const TilePairs tiles(g, kept.masks.feature, size);
    work.tiles = tiles.live();
    split = call.pairs ? Split{1, winograd_steps(g, work, isa, size)} : split_steps(g, work, isa, size, tiles);
  }
  // no plan is made for this: it would cost more than a slightly better choice brings
  const PaddedWay way = padded_way(call, kept.channels, isa);
  double direct = direct_steps(g, work, isa, direct_pixels(g, kept.masks.feature), way);
  if (!kept.all_pixels) {
    direct *= kHoles + kScattered * kept.scattered() / work.channels;
    if (g.m <= 2 * isa.vector) direct *= kNarrowHoles;
    direct = std::min(direct, direct_steps(g, work, isa, all_positions(g), way));  // zeros are read where that is faster
  }
  // many weights for the few tiles that stay whole pay only where they would for all
  const bool mixed = split.least_pairs > 1 && split.least_pairs <= kMostPairs;
  if (mixed && WinogradLayout(g, isa, size).floats() * 4 > kMixBytes && winograd_steps(g, work, isa, size) >= kGain * direct)
    return direct_only;
  return split.steps < kGain * direct ? Tiling{size, split.least_pairs} : direct_only;
}

}  // namespace dance
