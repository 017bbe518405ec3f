#include "gated_conv3d.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "by_pixel.h"
#include "clip_call.h"
#include "depthwise.h"
#include "load.h"
#include "pack.h"
#include "padded.h"
#include "pairs.h"
#include "pointwise.h"
#include "segments.h"
#include "winograd.h"

namespace dance {

void PackedWeights::pack(const ConvGeometry& g, const IsaKernels& chosen, const void* w, bool bf16, bool discard) {
  isa = &chosen;
  if (bf16 && pairs_possible(g, chosen)) return;  // w is read again, by the first call that computes it
  const PackedLayout layout(g, chosen);
  float* out = data.of<float>(std::size_t(layout.floats()));
  if (layout.strips) pack_strips(layout, w, g.type, nullptr, out);
  else pack_weights(layout, w, g.type, out, discard);
  floats = out;
}

const float* PackedWeights::winograd(const ConvGeometry& g, int size) const {
  Transformed& t = size == 4 ? four : two;
  std::call_once(t.once, [&] {
    const WinogradLayout layout(g, *isa, size);
    float* out = t.data.of<float>(std::size_t(layout.floats()));
    pack_winograd(PackedLayout(g, *isa), g.kernel[0], floats, size, out);
    t.floats.store(out);
  });
  return t.floats.load();
}

const float* PackedWeights::by_output(const ConvGeometry& g) const {
  std::call_once(few_outputs.once, [&] {
    const PackedLayout layout(g, *isa);
    float* out = few_outputs.data.of<float>(std::size_t(ByOutputLayout(layout, g.c).floats()));
    pack_by_output(layout, floats, nullptr, g.c, out);
    few_outputs.floats.store(out);
  });
  return few_outputs.floats.load();
}

const float* PackedWeights::by_pixel(const ConvGeometry& g) const {
  std::call_once(pixels.once, [&] {
    const ByPixelLayout layout(g, *isa);
    float* out = pixels.data.of<float>(std::size_t(layout.floats()));
    pack_by_pixel(PackedLayout(g, *isa), layout, floats, out);
    pixels.floats.store(out);
  });
  return pixels.floats.load();
}

const float* PackedWeights::pairs(const ConvGeometry& g, int size, const void* w) const {
  Transformed& t = size == 4 ? four_pairs : size == 2 ? two_pairs : direct_pairs;
  std::call_once(t.once, [&] {
    float* out = t.data.of<float>(std::size_t(pair_floats(g, *isa, size)));
    pack_pairs(g, *isa, size, w, out);
    t.floats.store(out);
  });
  return t.floats.load();
}

std::size_t PackedWeights::bytes() const {
  return data.bytes() + two.data.bytes() + four.data.bytes() + few_outputs.data.bytes() + pixels.data.bytes() +
         direct_pairs.data.bytes() + two_pairs.data.bytes() + four_pairs.data.bytes();
}

namespace {

// Steps of one input channel of one row of a tile that beginning and ending take, of a kernel row and of a run along it;
// only masks with as many runs over kept pixels are judged by them.
// Of a vector of outputs and an input channel: what taking a run apart takes, and what copying a float does.
constexpr double kChannelRunSteps = 1, kCopySteps = 2.5;
constexpr double kRowSteps = 8, kRunSteps = 3, kScattered = 0.15;

// One n of a call: what is kept, where the kept channels lie, and the loops over work items.
class Clip : ClipCall {
 public:
  explicit Clip(const ClipCall& clip)
      : ClipCall(clip), layout_(g_, isa_),
        magnitudes_(call_.magnitudes, call_.y, g_.type, g_.channels_last, n_, g_.out[0], g_.m, out_pixels()) {}

  void run() {
    plan();
    load();
    find_weights();
    compute();
  }

 private:
  int64_t element_bytes() const { return g_.type == Type::f32 ? 4 : 2; }
  // Floats from pixel to pixel of a group's part of x.
  int64_t width(int64_t group) const { return layout_.groups == 1 || in_place_ ? stride_ : kept_.in_group(group); }

  bool hopeless(int64_t channels) const;
  bool reads_in_place() const;
  void plan();
  void load();
  void find_weights();
  void compute();
  void compute_item(int worker, int64_t item) const;
  void compute_block(int worker, int64_t group, int64_t index, const FrameChunk& chunk, const PixelBlock& block) const;
  void sum_groups(int worker, int64_t group, int64_t index, const FrameChunk& chunk, const PixelBlock& block,
                  float* acc) const;
  // Whether sums go to Y row by row.
  bool writes_rows() const { return g_.channels_last && g_.type == Type::f32; }
  void store(int64_t group, int64_t index, const FrameChunk& chunk, const PixelBlock& block, const float* acc) const;
  void store_cleared(int64_t group, int64_t index, const FrameChunk& chunk, const PixelBlock& block,
                     const float* acc) const;
  StoreArgs store_args(int64_t group, int64_t index) const;
  void store_pixels(StoreArgs a, const FrameChunk& chunk, int32_t f, int64_t first, const float* acc) const;

  const PackedLayout layout_;
  Magnitudes magnitudes_;                // parts: blocks of rows
  const ChannelRun* channel_runs_ = nullptr;  // where given, kept channels are read where they lie
  bool zero_dropped_ = false;            // dropped pixels are read as zeros: cheaper than going round them
  bool in_place_ = false;                // groups: x is the activation as it lies, channels are picked as it is read
  const Plan* plan_ = nullptr;
  const float* x_ = nullptr;             // [group][T][H][W][stride]
  int64_t stride_ = 0;                   // floats from pixel to pixel; per group where there are several
  const float* weights_ = nullptr;
  const float* bias_ = nullptr;          // by column
  const int32_t* weight_index_ = nullptr;
  int64_t rows_per_item_ = 0, segments_per_item_ = 0;
  float* sums_ = nullptr;
  int64_t* row_in_ = nullptr;
  int64_t* row_y_ = nullptr;
  int32_t* row_out_ = nullptr;
  Segment* segments_ = nullptr;
};

// Whether going round scattered pixels takes longer than reading zeros, for too few channels between the gaps: plain enough
// to make no plan for it, which would take more time than is left to save.
bool Clip::hopeless(int64_t channels) const {
  if (kept_.scattered() < kScattered) return false;
  const double kept = double(g_.kernel[2]) * double(kept_.pixels) / double(pixels());  // positions of a kernel row
  return kept * double(channels) + kRowSteps + kRunSteps * kept * kept_.scattered() > double(g_.kernel[2] * channels);
}

// Whether to step over dropped channels where they lie, instead of copying the others: pays where few are dropped, or where
// a copy would serve few products.
bool Clip::reads_in_place() const {
  if (!g_.channels_last || g_.type != Type::f32 || g_.group != 1) return false;
  const double products = double(layout_.taps * g_.out[0] * out_pixels()) / double(g_.t * pixels()) *
                          double(layout_.padded_outputs() / isa_.vector);  // that read an input
  return kChannelRunSteps * kept_.channel_runs * products < kCopySteps * kept_.channels;
}

void Clip::plan() {
  const int64_t blocks = layout_.groups * layout_.blocks();
  const int64_t channels = std::max<int64_t>(1, kept_.channels / layout_.groups);
  zero_dropped_ = !kept_.all_pixels && hopeless(channels);
  const bool all = kept_.all_pixels || zero_dropped_;
  make_plan(g_, kept_.masks.frame, all ? nullptr : kept_.masks.feature, channels, blocks, ws_.plan);
  plan_ = &ws_.plan;
  if (all) return;
  const double nominal = double(plan_->frames_per_chunk * out_pixels() * g_.kernel[1] * g_.kernel[2] * channels);
  if (plan_->cost < 0.7 * nominal) return;
  make_plan(g_, kept_.masks.frame, nullptr, channels, blocks, ws_.plan_unmasked);
  if (ws_.plan_unmasked.cost >= plan_->cost) return;
  plan_ = &ws_.plan_unmasked;
  zero_dropped_ = true;
}

void Clip::load() {
  const LoadHow how{layout_.groups, kept_.channels, zero_dropped_};
  if (plan_->live_frames == 0) return;
  in_place_ = layout_.groups > 1 && g_.channels_last && g_.type == Type::f32 && !zero_dropped_;
  if (in_place_) {
    x_ = static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c;
    stride_ = g_.c;
    return;
  }
  const Pairs* pairs = call_.pairs;
  if (!pairs && !kept_.all_channels && reads_in_place()) {
    Kept all = kept_;  // of the channels; where pixels are to be zeros, the copy has all channels too
    const int32_t first[2] = {0, int32_t(g_.c)};
    all.first = first, all.channels = int32_t(g_.c), all.all_channels = true;
    const Loaded whole = load_kept(call_, n_, isa_, all, {1, g_.c, zero_dropped_}, ws_, parallel_);
    x_ = whole.x, stride_ = whole.stride;
    channel_runs_ = list_channel_runs(kept_, ws_);
    return;
  }
  const Loaded loaded = pairs ? pairs->load(n_, isa_, zero_dropped_, ws_, parallel_)
                              : load_kept(call_, n_, isa_, kept_, how, ws_, parallel_);
  x_ = loaded.x;
  stride_ = loaded.stride;
}

void Clip::find_weights() {
  weights_ = call_.pairs ? call_.pairs->weights(0, isa_, ws_, parallel_) : packed_weights(layout_);
  float* bias = ws_.bias.of<float>(std::size_t(g_.m));
  to_floats(call_.b, g_.type, g_.m, bias);
  bias_ = bias;
  if (kept_.all_channels || channel_runs_) return;
  // weight row of every (kw, kept channel): rows stay where they are, copying the kept ones costs more than it saves
  const Kept& kept = call_.pairs ? call_.pairs->kept_channels : kept_;
  const int64_t halves = call_.pairs ? 2 : 1, rows = halves * layout_.inputs;
  const int64_t entries = halves * kept_.channels * g_.kernel[2];
  int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(entries + halves * kPrefetchRows));
  weight_index_ = index;
  for (int64_t group = 0; group < layout_.groups; ++group)
    for (int64_t kw = 0; kw < g_.kernel[2]; ++kw) {
      for (int32_t i = kept.first[group]; i < kept.first[group + 1]; ++i)
        *index++ = int32_t(kw * rows + kept.channel[i] - group * layout_.inputs);
      if (halves * kept_.channels > kept.channels) *index++ = int32_t(kw * rows);  // of a half that is zero
    }
  extend_index(index - entries, entries, rows * g_.kernel[2], halves);
}

void Clip::compute() {
  int64_t rows = 0;
  for (const PixelBlock& block : plan_->blocks) rows = std::max<int64_t>(rows, (block.row_end - block.row_begin) * g_.out[2]);
  rows_per_item_ = rows * plan_->frames_per_chunk;
  segments_per_item_ = layout_.taps * (channel_runs_ ? kept_.channel_runs : 1);
  const int64_t columns = layout_.groups * layout_.blocks();
  const int64_t items = columns * int64_t(plan_->chunks.size()) * int64_t(plan_->blocks.size());
  const std::size_t workers = std::size_t(std::min<int64_t>(parallel_.workers, items));
  sums_ = ws_.sums.of<float>(workers * std::size_t(rows_per_item_ + kTileRows) * std::size_t(isa_.block()));
  // positions first, then rows of sums: one buffer a worker
  row_in_ = ws_.rows.of<int64_t>(workers * std::size_t(rows_per_item_) * 3);
  row_y_ = row_in_ + workers * std::size_t(rows_per_item_);
  row_out_ = reinterpret_cast<int32_t*>(row_y_ + workers * std::size_t(rows_per_item_));
  segments_ = ws_.segments.of<Segment>(workers * std::size_t(segments_per_item_));
  magnitudes_.begin(int64_t(plan_->blocks.size()), columns, ws_);
  for_items(parallel_, items, [&](int worker, int64_t item) { compute_item(worker, item); });
  magnitudes_.end();
}

// Output channels vary slowest: consecutive items share their weights; but groups fastest: they share the lines of pixels.
void Clip::compute_item(int worker, int64_t item) const {
  const int64_t columns = layout_.groups * layout_.blocks(), places = int64_t(plan_->blocks.size() * plan_->chunks.size());
  const int64_t column = layout_.groups > 1 ? item % columns : item / places;
  const int64_t place = layout_.groups > 1 ? item / columns : item % places;
  const int64_t part = place % int64_t(plan_->blocks.size());
  const PixelBlock& block = plan_->blocks[std::size_t(part)];
  const FrameChunk& chunk = plan_->chunks[std::size_t(place) / plan_->blocks.size()];
  const int64_t group = column / layout_.blocks(), index = column % layout_.blocks();
  compute_block(worker, group, index, chunk, block);
  for (int32_t f = 0; f < chunk.count && magnitudes_.wanted(); ++f)
    magnitudes_.add(part, column, plan_->frames[std::size_t(chunk.first + f)],
                    group * layout_.outputs + layout_.block_begin(index), layout_.columns(index),
                    block.row_begin * g_.out[2], (block.row_end - block.row_begin) * g_.out[2]);
}

void Clip::compute_block(int worker, int64_t group, int64_t index, const FrameChunk& chunk,
                         const PixelBlock& block) const {
  const uint8_t* live = &plan_->live_kt[std::size_t(chunk.representative * g_.kernel[0])];
  const bool any_frame = std::memchr(live, 1, std::size_t(g_.kernel[0])) != nullptr;
  if (!any_frame || block.empty || kept_.in_group(group) == 0)
    return store(group, index, chunk, block, nullptr);
  float* acc = sums_ + int64_t(worker) * (rows_per_item_ + kTileRows) * isa_.block();
  sum_groups(worker, group, index, chunk, block, acc);
  if (writes_rows()) store_cleared(group, index, chunk, block, acc);
  else store(group, index, chunk, block, acc);
}

void Clip::sum_groups(int worker, int64_t group, int64_t index, const FrameChunk& chunk, const PixelBlock& block,
                      float* acc) const {
  const int64_t columns = int64_t(layout_.vectors(index)) * isa_.vector;
  const int64_t block_pixels = (block.row_end - block.row_begin) * g_.out[2];
  for (int32_t i = block.clear_begin; i < block.clear_end; ++i)
    for (int32_t f = 0; f < chunk.count; ++f)
      std::memset(acc + (f * block_pixels + plan_->clear[std::size_t(i)]) * columns, 0, std::size_t(columns) * 4);
  const SegmentBuilder builder{g_, width(group), kept_.in_group(group), weight_index_ != nullptr, in_place_,
                               channel_runs_, kept_.channel_runs};
  const uint8_t* live_kt = &plan_->live_kt[std::size_t(chunk.representative * g_.kernel[0])];
  RowsArgs a{};
  int64_t* row_in = row_in_ + worker * rows_per_item_;
  int32_t* row_out = row_out_ + worker * rows_per_item_;
  Segment* segments = segments_ + worker * segments_per_item_;
  a.x = in_place_ ? x_ + group * g_.channels_per_group() : x_ + kept_.first[group] * g_.t * pixels();
  a.index_inputs = in_place_;
  a.row_in = row_in, a.row_out = row_out, a.segments = segments;
  a.weights = weights_ + layout_.offset(group, index);
  a.weight_index = weight_index_ ? weight_index_ + kept_.first[group] * g_.kernel[2] : nullptr;
  a.acc = acc;
  a.vectors = layout_.vectors(index);
  // rows of groups that are complete by themselves go to Y at once
  const int64_t column = group * layout_.outputs + layout_.block_begin(index);
  const int64_t y_begin = n_ * g_.m * g_.out[0] * out_pixels() + column;
  int64_t* row_y = row_y_ + worker * rows_per_item_;
  a.row_y = row_y;
  a.scratch = acc + rows_per_item_ * isa_.block();
  a.bias = bias_ + column;
  a.minimum = call_.minimum;
  a.count = layout_.columns(index);
  a.z = call_.z && writes_rows() ? static_cast<const float*>(call_.z) + y_begin : nullptr;
  for (int32_t i = block.group_begin; i < block.group_end; ++i) {
    const PixelGroup& pixel_group = plan_->groups[std::size_t(i)];
    a.segment_count = builder.build(pixel_group, live_kt, segments);
    a.accumulate = pixel_group.accumulate;
    const bool whole = writes_rows() && !a.accumulate;
    a.y = whole ? static_cast<float*>(call_.y) + y_begin : nullptr;
    a.rows = 0;
    for (int32_t f = 0; f < chunk.count; ++f) {
      const int64_t to = plan_->frames[std::size_t(chunk.first + f)], t = to * g_.strides[0] - g_.pads[0];
      const int64_t y_frame = to * out_pixels() + block.row_begin * g_.out[2];
      for (int64_t e = pixel_group.first; e < pixel_group.first + pixel_group.count; ++e) {
        const PixelEntry& entry = plan_->entries[std::size_t(e)];
        row_in[a.rows] = (t * pixels() + entry.in) * width(group);
        row_y[a.rows] = (y_frame + entry.pixel) * g_.m;
        row_out[a.rows++] = int32_t(f * block_pixels + entry.pixel);
      }
    }
    (call_.pairs ? call_.pairs->kernels.rows : isa_.rows)(a);
  }
}

// Pixels whose sums were cleared and added up, or stayed zero; the others are in Y already. In runs of neighbours.
void Clip::store_cleared(int64_t group, int64_t index, const FrameChunk& chunk, const PixelBlock& block,
                         const float* acc) const {
  const int64_t block_pixels = (block.row_end - block.row_begin) * g_.out[2];
  StoreArgs a = store_args(group, index);
  for (int32_t i = block.clear_begin; i < block.clear_end;) {
    const int64_t pixel = plan_->clear[std::size_t(i)];
    a.pixels = 1;
    while (++i < block.clear_end && plan_->clear[std::size_t(i)] == pixel + a.pixels) ++a.pixels;
    for (int32_t f = 0; f < chunk.count; ++f)
      store_pixels(a, chunk, f, block.row_begin * g_.out[2] + pixel, acc + (f * block_pixels + pixel) * a.acc_stride);
  }
}

void Clip::store(int64_t group, int64_t index, const FrameChunk& chunk, const PixelBlock& block,
                 const float* acc) const {
  const int64_t block_pixels = (block.row_end - block.row_begin) * g_.out[2];
  StoreArgs a = store_args(group, index);
  a.pixels = int(block_pixels);
  for (int32_t f = 0; f < chunk.count; ++f)
    store_pixels(a, chunk, f, block.row_begin * g_.out[2], acc ? acc + f * block_pixels * a.acc_stride : nullptr);
}

StoreArgs Clip::store_args(int64_t group, int64_t index) const {
  const int64_t column = group * layout_.outputs + layout_.block_begin(index);
  StoreArgs a{};
  a.count = layout_.columns(index);
  a.acc_stride = int64_t(layout_.vectors(index)) * isa_.vector;
  a.bias = bias_ + column;
  a.minimum = call_.minimum;
  a.first_channel = column;
  a.channel_stride = g_.channels_last ? 1 : g_.out[0] * out_pixels();
  a.pixel_stride = g_.channels_last ? g_.m : 1;
  a.type = g_.type;
  return a;
}

// a.pixels pixels from `first` on of a frame of the chunk.
void Clip::store_pixels(StoreArgs a, const FrameChunk& chunk, int32_t f, int64_t first, const float* acc) const {
  const int64_t to = plan_->frames[std::size_t(chunk.first + f)];
  const int64_t at = n_ * g_.m * g_.out[0] * out_pixels() + (to * out_pixels() + first) * a.pixel_stride;
  a.acc = acc;
  a.y = static_cast<char*>(call_.y) + at * element_bytes();
  a.z = call_.z ? static_cast<const char*>(call_.z) + at * element_bytes() : nullptr;
  isa_.store(a);
}

void run_general(const ClipCall& clip, const Tiling& tiling) {
  const bool asked = clip.call_.variant == Variant::by_pixel;
  if (asked && std::isfinite(by_pixel_products(clip.call_, clip.kept_, clip.isa_))) by_pixel_conv3d(clip);
  else if (tiling.size > 0) winograd_conv3d(clip, tiling);
  else if (padded_way(clip.call_, clip.kept_.channels, clip.isa_) != PaddedWay::none) padded_conv3d(clip);
  else if (clip.call_.variant != Variant::direct && by_pixel_pays(clip.call_, clip.kept_, clip.isa_)) by_pixel_conv3d(clip);
  else Clip(clip).run();
}

Variant variant_of(const Tiling& tiling) {
  const bool mixed = tiling.least_pairs > 1;
  if (tiling.size == 4) return mixed ? Variant::mixed4 : Variant::winograd4;
  if (tiling.size == 2) return mixed ? Variant::mixed2 : Variant::winograd2;
  return Variant::direct;
}

Tiling chosen_tiling(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const Tiling tiling = choose_tiling(call, kept, isa);
  if (call.used) *call.used = variant_of(tiling);
  return tiling;
}

bool in_pairs(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  return call.bf16 && call.packed && pairs_possible(call.geometry, isa) && kept.channels > 0;
}

}  // namespace

Variant chosen_variant(const ConvCall& call, int64_t n, Workspace& workspace, VariantSteps* steps) {
  const ConvGeometry& g = call.geometry;
  const IsaKernels& isa = call.packed ? *call.packed->isa : isa_current();
  const PackedLayout layout(g, isa);
  const Kept kept = find_kept(call, n, layout.groups, workspace);
  *steps = {};
  if (layout.strips || g.pointwise()) return Variant::direct;
  const auto choose = [&](const ConvCall& one, const Kept& left) {
    estimate_variants(one, left, isa, *steps);
    return variant_of(choose_tiling(one, left, isa));
  };
  if (!in_pairs(call, kept, isa)) return choose(call, kept);
  const Pairs pairs(call, kept, isa);
  return choose(pairs.call, pairs.kept);
}

void gated_conv3d(const ConvCall& call, Workspace& workspace, const Parallel& parallel) {
  const ConvGeometry& g = call.geometry;
  const IsaKernels& isa = call.packed ? *call.packed->isa : isa_current();
  if (call.used) *call.used = Variant::direct;
  for (int64_t n = 0; n < g.n; ++n) {
    const PackedLayout layout(g, isa);
    const Kept kept = find_kept(call, n, layout.groups, workspace);
    const ClipCall clip(call, n, isa, kept, workspace, parallel);
    if (layout.strips) depthwise_conv3d(clip);
    else if (g.pointwise()) pointwise_conv3d(clip);
    else if (in_pairs(call, kept, isa)) {
      Pairs pairs(call, kept, isa);
      const Tiling tiling = chosen_tiling(pairs.call, pairs.kept, isa);
      pairs.decide_channels(tiling.size);
      run_general(ClipCall(pairs.call, n, isa, pairs.kept, workspace, parallel), tiling);
    } else {
      run_general(clip, chosen_tiling(call, kept, isa));
    }
  }
}

}  // namespace dance
