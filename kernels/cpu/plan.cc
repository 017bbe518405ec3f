#include "plan.h"

#include <algorithm>
#include <cstring>

namespace dance {
namespace {

constexpr int64_t kRowsPerItem = 784;   // rows of sums worked on together: 64 columns of them are 200 KiB
constexpr int64_t kItems = 8;           // fewer leave threads idle at the end
constexpr int64_t kGroupRows = 24;      // a rarer pattern is taken apart by kernel row ...
constexpr int64_t kRowGroupRows = 6;    // ... and a rarer row pattern by kernel position
constexpr int kBitsLimit = 64;

int64_t in_first(const ConvGeometry& g, int axis, int64_t out) { return out * g.strides[axis] - g.pads[axis]; }

// Finds keys among those seen since clear(); numbers them in order of appearance.
class KeyTable {
 public:
  explicit KeyTable(Plan& plan) : slots_(plan.scratch.slots), keys_(plan.scratch.keys) {}
  void clear(int64_t expected) {
    std::size_t size = 64;
    while (int64_t(size) < 2 * expected) size *= 2;
    slots_.assign(size, -1);
    keys_.clear();
  }
  int32_t number(uint64_t key) {
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = std::size_t((key * 0x9e3779b97f4a7c15ull) >> 32) & mask;
    while (slots_[at] >= 0 && keys_[slots_[at]] != key) at = (at + 1) & mask;
    if (slots_[at] < 0) {
      slots_[at] = int32_t(keys_.size());
      keys_.push_back(key);
    }
    return slots_[at];
  }
  int32_t count() const { return int32_t(keys_.size()); }
  uint64_t key(int32_t number) const { return keys_[number]; }

 private:
  std::vector<int32_t>& slots_;
  std::vector<uint64_t>& keys_;
};

// For every input row and output column: which of the kW inputs of that row are in range and kept. kW <= 64.
void find_row_patterns(const ConvGeometry& g, const uint8_t* feature_keep, Plan& plan) {
  const int64_t out_w = g.out[2], kw = g.kernel[2];
  plan.scratch.row_patterns.assign(std::size_t(g.h * out_w), 0);
  for (int64_t h = 0; h < g.h; ++h)
    for (int64_t wo = 0; wo < out_w; ++wo) {
      uint64_t bits = 0;
      for (int64_t k = 0; k < kw; ++k) {
        const int64_t w = in_first(g, 2, wo) + k * g.dilations[2];
        if (w >= 0 && w < g.w && (!feature_keep || feature_keep[h * g.w + w])) bits |= uint64_t(1) << k;
      }
      plan.scratch.row_patterns[h * out_w + wo] = bits;
    }
}

struct BlockPlanner {
  const ConvGeometry& g;
  const uint8_t* feature_keep;
  Plan& plan;
  PixelBlock& block;
  int64_t channels;
  KeyTable table;

  int64_t width() const { return g.out[2]; }
  int32_t pixels() const { return int32_t((block.row_end - block.row_begin) * width()); }

  PixelEntry entry(int32_t pixel) const {
    const int64_t ho = block.row_begin + pixel / width(), wo = pixel % width();
    return {pixel, in_first(g, 1, ho) * g.w + in_first(g, 2, wo)};
  }

  // Input row that kernel row k of the pixel reads, or -1.
  int64_t input_row(int32_t pixel, int64_t k) const {
    const int64_t h = in_first(g, 1, block.row_begin + pixel / width()) + k * g.dilations[1];
    return h >= 0 && h < g.h ? h : -1;
  }

  uint64_t row_pattern(int32_t pixel, int64_t k) const {
    const int64_t h = input_row(pixel, k);
    return h < 0 ? 0 : plan.scratch.row_patterns[h * width() + pixel % width()];
  }

  bool position_live(int32_t pixel, int64_t kh, int64_t kw) const {
    const int64_t h = input_row(pixel, kh), w = in_first(g, 2, pixel % width()) + kw * g.dilations[2];
    return h >= 0 && w >= 0 && w < g.w && (!feature_keep || feature_keep[h * g.w + w]);
  }

  void add_cost(const PixelGroup& group, int64_t positions, int64_t runs) {
    const double rows = double(group.count) * plan.frames_per_chunk, tiles = double(int64_t((rows + 5) / 6));
    // a tile of one row takes as long as one of two and a half; loading and storing sums, starting a run cost too
    const double effective = std::max(rows, 2.5 * tiles);
    plan.cost += effective * double(positions * channels) + tiles * (10.0 * double(runs) + (group.accumulate ? 25 : 12));
  }

  // groups[i] for keys seen, entries sorted by group. numbers[j] is the group of items[j].
  void emit(int32_t first_group, const std::vector<int32_t>& numbers, const std::vector<int32_t>& items) {
    int64_t at = int64_t(plan.entries.size());
    for (std::size_t i = std::size_t(first_group); i < plan.groups.size(); ++i) {
      plan.groups[i].first = at;
      at += plan.groups[i].count;
      plan.groups[i].count = 0;
    }
    plan.entries.resize(std::size_t(at));
    for (std::size_t j = 0; j < items.size(); ++j) {
      if (numbers[j] < 0) continue;
      PixelGroup& group = plan.groups[std::size_t(first_group + numbers[j])];
      plan.entries[std::size_t(group.first + group.count++)] = entry(items[j]);
    }
  }

  void whole_patterns();
  void kernel_rows();
  void kernel_positions(int64_t kh, const std::vector<int32_t>& items);
};

int bits(uint64_t v) { return __builtin_popcountll(v); }
int runs(uint64_t v) { return bits(v & ~(v << 1)); }

// Pixels by their whole pattern; those with a rare one go to plan.scratch.rare.
void BlockPlanner::whole_patterns() {
  const int64_t kh = g.kernel[1], kw = g.kernel[2];
  plan.scratch.rare.clear();
  if (kh * kw > kBitsLimit) {
    for (int32_t p = 0; p < pixels(); ++p) plan.scratch.rare.push_back(p);
    return;
  }
  table.clear(pixels());
  std::vector<int32_t>&numbers = plan.scratch.numbers, &counts = plan.scratch.counts;
  numbers.resize(std::size_t(pixels()));
  counts.clear();
  for (int32_t p = 0; p < pixels(); ++p) {
    uint64_t pattern = 0;
    for (int64_t k = 0; k < kh; ++k) pattern |= row_pattern(p, k) << (k * kw);
    numbers[p] = table.number(pattern);
    if (std::size_t(numbers[p]) == counts.size()) counts.push_back(0);
    ++counts[std::size_t(numbers[p])];
  }
  const int32_t first_group = int32_t(plan.groups.size());
  std::vector<int32_t>&renumbered = plan.scratch.renumbered, &items = plan.scratch.items;
  renumbered.assign(counts.size(), -1);
  items.clear();
  for (int32_t i = 0; i < table.count(); ++i) {
    const uint64_t live = table.key(i);
    const bool rare = live != 0 && bits(live) > 1 && kh > 1 && counts[std::size_t(i)] * plan.frames_per_chunk < kGroupRows;
    if (live == 0 || rare) {
      renumbered[std::size_t(i)] = live == 0 ? -1 : -2;
      continue;
    }
    renumbered[std::size_t(i)] = int32_t(plan.groups.size()) - first_group;
    plan.groups.push_back({live, -1, false, false, 0, counts[std::size_t(i)]});
    add_cost(plan.groups.back(), bits(live), kh);
  }
  for (int32_t p = 0; p < pixels(); ++p) {
    const int32_t group = renumbered[std::size_t(numbers[p])];
    if (group == -2) plan.scratch.rare.push_back(p);
    if (group == -1) plan.clear.push_back(p);
    numbers[p] = std::max(group, -1);
    items.push_back(p);
  }
  emit(first_group, numbers, items);
}

// Rare pixels by (kernel row, pattern along it); they add to sums that are cleared first.
void BlockPlanner::kernel_rows() {
  plan.clear.insert(plan.clear.end(), plan.scratch.rare.begin(), plan.scratch.rare.end());
  std::vector<int32_t>&numbers = plan.scratch.numbers, &counts = plan.scratch.counts;
  std::vector<int32_t>&renumbered = plan.scratch.renumbered, &rarest = plan.scratch.rarest;
  for (int64_t kh = 0; kh < g.kernel[1] && !plan.scratch.rare.empty(); ++kh) {
    if (g.kernel[2] > kBitsLimit) {
      kernel_positions(kh, plan.scratch.rare);
      continue;
    }
    table.clear(int64_t(plan.scratch.rare.size()));
    numbers.clear(), counts.clear(), renumbered.clear(), rarest.clear();
    for (int32_t p : plan.scratch.rare) {
      numbers.push_back(table.number(row_pattern(p, kh)));
      if (std::size_t(numbers.back()) == counts.size()) counts.push_back(0);
      ++counts[std::size_t(numbers.back())];
    }
    const int32_t first_group = int32_t(plan.groups.size());
    for (int32_t i = 0; i < table.count(); ++i) {
      const uint64_t live = table.key(i);
      const bool rare = bits(live) > 1 && counts[std::size_t(i)] * plan.frames_per_chunk < kRowGroupRows;
      renumbered.push_back(live == 0 ? -1 : rare ? -2 : int32_t(plan.groups.size()) - first_group);
      if (renumbered.back() < 0) continue;
      plan.groups.push_back({live, int32_t(kh), false, true, 0, counts[std::size_t(i)]});
      add_cost(plan.groups.back(), bits(live), runs(live));
    }
    for (std::size_t j = 0; j < plan.scratch.rare.size(); ++j) {
      numbers[j] = renumbered[std::size_t(numbers[j])];
      if (numbers[j] == -2) rarest.push_back(plan.scratch.rare[j]), numbers[j] = -1;
    }
    emit(first_group, numbers, plan.scratch.rare);
    if (!rarest.empty()) kernel_positions(kh, rarest);
  }
}

// Pixels by single kernel positions of one kernel row.
void BlockPlanner::kernel_positions(int64_t kh, const std::vector<int32_t>& items) {
  for (int64_t kw = 0; kw < g.kernel[2]; ++kw) {
    PixelGroup group{uint64_t(kw), int32_t(kh), true, true, int64_t(plan.entries.size()), 0};
    for (int32_t p : items)
      if (position_live(p, kh, kw)) plan.entries.push_back(entry(p)), ++group.count;
    if (group.count == 0) continue;
    plan.groups.push_back(group);
    add_cost(group, 1, 1);
  }
}

}  // namespace

void plan_frames(const ConvGeometry& g, const uint8_t* frame_keep, int64_t frames_per_chunk, Plan& plan) {
  const int64_t kt = g.kernel[0], out = g.out[0];
  plan.frames_per_chunk = int(frames_per_chunk);
  plan.live_kt.assign(std::size_t(out * kt), 0);
  plan.live_frames = 0;
  for (int64_t to = 0; to < out; ++to)
    for (int64_t k = 0; k < kt; ++k) {
      const int64_t t = in_first(g, 0, to) + k * g.dilations[0];
      const bool live = t >= 0 && t < g.t && frame_keep[t];
      plan.live_kt[to * kt + k] = live;
      plan.live_frames += live;
    }
  plan.frames.clear();
  plan.chunks.clear();
  std::vector<int32_t>& taken = plan.scratch.numbers;
  taken.assign(std::size_t(out), 0);
  for (int64_t to = 0; to < out; ++to) {
    if (taken[to]) continue;
    const uint8_t* live = &plan.live_kt[to * kt];
    const int32_t first = int32_t(plan.frames.size());
    for (int64_t other = to; other < out; ++other)
      if (!taken[other] && std::memcmp(live, &plan.live_kt[other * kt], std::size_t(kt)) == 0) {
        taken[other] = 1;
        plan.frames.push_back(int32_t(other));
      }
    const int32_t end = int32_t(plan.frames.size());
    for (int32_t f = first; f < end; f += int32_t(frames_per_chunk))
      plan.chunks.push_back({f, std::min<int32_t>(int32_t(frames_per_chunk), end - f), int32_t(to)});
  }
}

void make_plan(const ConvGeometry& g, const uint8_t* frame_keep, const uint8_t* feature_keep, int64_t channels,
               int64_t column_blocks, Plan& plan) {
  const int64_t out_t = g.out[0], out_h = g.out[1], out_w = g.out[2];
  int64_t rows = 1, frames = 1;
  // depends on the geometry alone: what is added in which order, and so the result, must not depend on threads
  for (int64_t target = kRowsPerItem; target >= 96; target /= 2) {
    rows = std::max<int64_t>(1, std::min(out_h, target / out_w));
    frames = rows < out_h ? 1 : std::max<int64_t>(1, std::min(out_t, target / (out_h * out_w)));
    if ((out_h + rows - 1) / rows * ((out_t + frames - 1) / frames) * column_blocks >= kItems) break;
  }
  plan.cost = 0;
  plan_frames(g, frame_keep, frames, plan);
  plan.blocks.clear(), plan.groups.clear(), plan.entries.clear(), plan.clear.clear();
  if (g.kernel[2] <= kBitsLimit) find_row_patterns(g, feature_keep, plan);
  for (int64_t row = 0; row < out_h; row += rows) {
    PixelBlock block{int32_t(row), int32_t(std::min(out_h, row + rows)), int32_t(plan.groups.size()), 0,
                     int32_t(plan.clear.size()), 0, false};
    BlockPlanner planner{g, feature_keep, plan, block, channels, KeyTable(plan)};
    planner.whole_patterns();
    planner.kernel_rows();
    block.group_end = int32_t(plan.groups.size());
    block.clear_end = int32_t(plan.clear.size());
    block.empty = block.group_begin == block.group_end;
    plan.blocks.push_back(block);
  }
}

}  // namespace dance
