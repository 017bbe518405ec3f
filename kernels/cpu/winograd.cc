#include "winograd.h"

#include <algorithm>
#include <cstring>

#include "load.h"
#include "pack.h"
#include "pairs.h"
#include "scattered.h"
#include "segments.h"
#include "winograd_tiles.h"

namespace dance {
namespace {

constexpr int64_t kRunTiles = 8;         // neighbours finished together: their pixels stay in the L1 cache
constexpr int64_t kAloneBytes = 900 << 10;   // components of a part that one worker does on its own: they stay in its L2
constexpr int64_t kSharedBytes = 12 << 20;   // components of a part that all workers do together: they stay in the L3
constexpr int64_t kWeightBytes = 9 << 20;    // weights above this are read once a part, by all workers together
constexpr int64_t kRowTiles = 6;
constexpr int64_t kLineFloats = 16;      // between components, or a power of two would map them to one set of the cache

// What is transformed, multiplied and transformed back at a time: some output frames of some live tiles.
struct Part {
  int64_t frame, frames, tile, tiles;
  int64_t rows() const { return frames * tiles; }
};

// Memory of one part. Input components [component][input frame][tile][channels], sums [component][frame][tile][columns].
struct Scratch {
  float* in;
  float* sums;     // of every block of output channels where the part is shared
};

class WinogradClip : ClipCall {
 public:
  WinogradClip(const ClipCall& clip, const Tiling& tiling)
      : ClipCall(clip), size_(tiling.size), components_((size_ + 2) * (size_ + 2)), layout_(g_, isa_, size_),
        magnitudes_(call_.magnitudes, call_.y, g_.type, g_.channels_last, n_, g_.out[0], g_.m, out_pixels()),
        few_(clip), least_pairs_(tiling.least_pairs) {}

  void run() {
    prepare();
    cut();
    reserve();
    few_.plan(tiles_.tile + tiles_.whole, tiles_.live - tiles_.whole, size_);
    few_.prepare({x_, channel_runs_, weight_index_, bias_, &magnitudes_}, parallel_.workers);
    magnitudes_.begin(whole_parts() + few_.parts() + 1, layout_.blocks(), ws_);
    if (shared_) run_shared();
    run_items();
    magnitudes_.end();
  }

 private:
  int64_t columns(int64_t index) const { return int64_t(layout_.vectors(index)) * isa_.vector; }
  int64_t inputs_of(int64_t frames) const {  // input frames between the first and the last that these outputs read
    return (frames - 1) * g_.strides[0] + (g_.kernel[0] - 1) * g_.dilations[0] + 1;
  }
  int64_t tile_floats() const { return call_.pairs ? x_.stride / 2 : x_.stride; }  // of one component of one tile
  int64_t in_stride() const { return inputs_of(part_frames_) * part_tiles_ * tile_floats() + kLineFloats; }
  int64_t sums_stride() const { return part_frames_ * part_tiles_ * isa_.block() + kLineFloats; }
  bool live(int64_t to, int64_t kt) const {
    const int64_t t = to * g_.strides[0] - g_.pads[0] + kt * g_.dilations[0];
    return t >= 0 && t < g_.t && kept_.masks.frame[t];
  }
  bool any_live(int64_t to) const {
    for (int64_t kt = 0; kt < g_.kernel[0]; ++kt)
      if (live(to, kt)) return true;
    return false;
  }
  bool same_live(int64_t a, int64_t b) const {
    for (int64_t kt = 0; kt < g_.kernel[0]; ++kt)
      if (live(a, kt) != live(b, kt)) return false;
    return true;
  }
  bool reads(const Part& part, int64_t slot) const;

  void prepare();
  void cut();
  void reserve();
  void run_shared();
  void run_items();
  void run_part(int worker, int64_t item) const;
  Part part_at(int64_t index) const;
  int worker_count(int64_t items) const { return int(std::min<int64_t>(parallel_.workers, items)); }
  void transform(const Part& part, int64_t slot, int64_t tile_begin, int64_t tile_end, float* in) const;
  void multiply(int worker, const Part& part, int64_t index, int64_t component_begin, int64_t component_end,
                const Scratch& scratch) const;
  void finish(int worker, const Part& part, int64_t f, int64_t tile_begin, int64_t tile_end, int64_t index,
              const float* sums) const;
  void write(int worker, const Part& part, int64_t f, int64_t tile_begin, int64_t tile_end, int64_t index,
             const float* sums) const;
  void write_in_place(const Part& part, int64_t f, int64_t tile_begin, int64_t tile_end, int64_t index,
                      const float* sums) const;
  void add_magnitudes(int64_t to, int64_t tile_begin, int64_t tile_end, int64_t index) const;
  int64_t whole_parts() const { return tile_parts_ * runs_per_part(); }
  int64_t runs_per_part() const { return shared_ ? (part_tiles_ + kRunTiles - 1) / kRunTiles : 1; }
  int64_t run_of(const Tile* tile, int64_t most) const;
  StoreArgs store_args(int64_t index) const;
  void store_pixels(StoreArgs& a, int64_t to, int64_t first, const float* pixels) const;
  void store_dropped_frame(int64_t to, int64_t index) const;
  void store_run(int64_t to, const Tile& first, int64_t tiles, int64_t index, const float* pixels) const;

  const int size_, components_;
  const WinogradLayout layout_;
  Magnitudes magnitudes_;      // parts: those of whole tiles, in runs where workers share them, of few_, and dropped tiles
  ScatteredTiles few_;
  const int64_t least_pairs_;

  bool in_place_ = false;      // dropped channels are in the components
  const ChannelRun* channel_runs_ = nullptr;
  TileList tiles_{};
  const float* weights_ = nullptr;
  Loaded x_{};
  const float* bias_ = nullptr;
  const int32_t* weight_index_ = nullptr;
  bool shared_ = false;
  int64_t part_frames_ = 0, part_tiles_ = 0, frame_parts_ = 0, tile_parts_ = 0;
  float* scratch_ = nullptr;   // a worker's, or the shared part's
  float* finished_ = nullptr;  // pixels of a run, of every worker
  int64_t* row_in_ = nullptr;  // of every worker
  int32_t* row_out_ = nullptr;
  Segment* segments_ = nullptr;
};

void WinogradClip::prepare() {
  const Pairs* pairs = call_.pairs;
  const int64_t channels = pairs ? 2 * kept_.channels : kept_.channels;
  const int64_t stride = (channels + isa_.vector - 1) / isa_.vector * isa_.vector;
  in_place_ = winograd_in_place(call_, kept_, isa_);
  if (in_place_) x_ = {static_cast<const float*>(call_.x) + n_ * g_.t * pixels() * g_.c, g_.c};
  else if (pairs) x_ = pairs->load_floats(n_, stride, isa_, ws_, parallel_);
  else x_ = load_kept(call_, n_, isa_, kept_, {1, stride, false}, ws_, parallel_);
  float* bias = ws_.bias.of<float>(std::size_t(g_.m + stride));
  to_floats(call_.b, g_.type, g_.m, bias);
  std::fill(bias + g_.m, bias + g_.m + stride, 0.0f);
  bias_ = bias;
  tiles_ = find_tiles(g_, kept_.masks.feature, size_, least_pairs_, x_.stride, bias + g_.m, ws_.tiles);
  if (tiles_.whole > 0)
    weights_ = pairs ? pairs->weights(size_, isa_, ws_, parallel_) : call_.packed->winograd(g_, size_);
  if (in_place_) channel_runs_ = list_channel_runs(kept_, ws_);
  if (kept_.all_channels || in_place_) return;
  const Kept& kept = pairs ? pairs->kept_channels : kept_;
  const int64_t halves = pairs ? 2 : 1;
  int32_t* index = ws_.weight_index.of<int32_t>(std::size_t(channels + halves * kPrefetchRows));
  std::fill(std::copy(kept.channel, kept.channel + kept.channels, index), index + channels, 0);
  extend_index(index, channels, halves * layout_.inputs, halves);
  weight_index_ = index;
}

// Geometry and masks decide, not the number of threads.
void WinogradClip::cut() {
  const int64_t weight_bytes = layout_.floats() * 4, row_bytes = 4 * components_ * isa_.block();
  shared_ = weight_bytes > kWeightBytes;
  const int64_t blocks = shared_ ? layout_.blocks() : 1, limit = shared_ ? kSharedBytes : kAloneBytes;
  // dropped frames have their place but are not touched: the fewer there are left, the more tiles share the weights
  int64_t inputs = 0, outputs = 0;
  for (int64_t t = 0; t < g_.t; ++t) inputs += kept_.masks.frame[t];
  for (int64_t to = 0; to < g_.out[0]; ++to) outputs += any_live(to);
  const auto bytes = [&](int64_t frames, int64_t tiles) {
    const int64_t in = (inputs_of(frames) * inputs + g_.t - 1) / g_.t;
    const int64_t out = (frames * outputs + g_.out[0] - 1) / g_.out[0];
    return tiles * (in * tile_floats() * 4 * components_ + out * blocks * row_bytes);
  };
  const int64_t live = std::max<int64_t>(1, tiles_.whole);
  part_frames_ = std::min<int64_t>(g_.out[0], shared_ ? g_.out[0] : 8);
  part_tiles_ = live;
  const int64_t least = std::min<int64_t>(live, shared_ ? 16 : 6);
  while (part_frames_ > 1 && bytes(part_frames_, least) > limit) part_frames_ = (part_frames_ + 1) / 2;
  part_tiles_ = std::max(least, std::min(live, limit / std::max<int64_t>(1, bytes(part_frames_, 1))));
  frame_parts_ = (g_.out[0] + part_frames_ - 1) / part_frames_;
  if (!shared_)  // enough parts for every thread
    while (part_tiles_ > least && frame_parts_ * ((live + part_tiles_ - 1) / part_tiles_) < 8) part_tiles_ = (part_tiles_ + 1) / 2;
  tile_parts_ = (tiles_.whole + part_tiles_ - 1) / part_tiles_;
  if (tile_parts_ > 0) part_tiles_ = (tiles_.whole + tile_parts_ - 1) / tile_parts_;
  // whole tiles of rows (rows.inc) even where an output frame shares its live kernel frames with no other
  if (part_tiles_ > kRowTiles && part_tiles_ < live && !shared_) {
    part_tiles_ = (part_tiles_ + kRowTiles / 2) / kRowTiles * kRowTiles;
    tile_parts_ = (live + part_tiles_ - 1) / part_tiles_;
  }
}

void WinogradClip::reserve() {
  const std::size_t workers = std::size_t(std::max(1, parallel_.workers)), scratches = shared_ ? 1 : workers;
  const int64_t run = int64_t(size_) * size_ * kRunTiles * isa_.block();
  const int64_t scratch = components_ * (in_stride() + (shared_ ? layout_.blocks() : 1) * sums_stride());
  scratch_ = ws_.components.of<float>(scratches * std::size_t(scratch) + workers * std::size_t(run));
  finished_ = scratch_ + scratches * std::size_t(scratch);
  const std::size_t rows = std::size_t(part_frames_ * part_tiles_);
  row_in_ = ws_.rows.of<int64_t>(workers * rows * 2);
  row_out_ = reinterpret_cast<int32_t*>(row_in_ + workers * rows);
  segments_ = ws_.segments.of<Segment>(workers * std::size_t(g_.kernel[0] * (in_place_ ? kept_.channel_runs : 1)));
}

Part WinogradClip::part_at(int64_t index) const {
  const int64_t frame = index % frame_parts_ * part_frames_, tile = index / frame_parts_ * part_tiles_;
  return {frame, std::min(part_frames_, g_.out[0] - frame), tile, std::min(part_tiles_, tiles_.whole - tile)};
}

// Whether an output frame of the part reads input frame `slot`, counted from the first that they could read.
bool WinogradClip::reads(const Part& part, int64_t slot) const {
  const int64_t t = part.frame * g_.strides[0] - g_.pads[0] + slot;
  if (t < 0 || t >= g_.t || !kept_.masks.frame[t]) return false;
  for (int64_t kt = 0; kt < g_.kernel[0]; ++kt) {
    const int64_t from = slot - kt * g_.dilations[0];
    if (from >= 0 && from % g_.strides[0] == 0 && from / g_.strides[0] < part.frames) return true;
  }
  return false;
}

void WinogradClip::transform(const Part& part, int64_t slot, int64_t tile_begin, int64_t tile_end, float* in) const {
  if (!reads(part, slot)) return;
  const int64_t t = part.frame * g_.strides[0] - g_.pads[0] + slot;
  const float* frame = x_.x + t * pixels() * x_.stride;
  const float* patches[2][36];
  const auto find_patch = [&](int64_t tile) {
    const Tile& place = tiles_.tile[part.tile + tile];
    for (int i = 0; i < components_; ++i) patches[tile % 2][i] = place.pixel(frame, i);
  };
  WinogradInArgs a{nullptr, nullptr, x_.stride, nullptr, in_stride(), size_};
  if (tile_begin < tile_end) find_patch(tile_begin);
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    if (tile + 1 < tile_end) find_patch(tile + 1);
    a.pixels = patches[tile % 2];
    a.next = patches[(tile + (tile + 1 < tile_end)) % 2];
    a.out = in + (slot * part_tiles_ + tile) * tile_floats();
    (call_.pairs ? call_.pairs->kernels.winograd_in : isa_.winograd_in)(a);
  }
}

// Output frames with the same live kernel frames share their tiles of rows.
void WinogradClip::multiply(int worker, const Part& part, int64_t index, int64_t component_begin, int64_t component_end,
                            const Scratch& scratch) const {
  const int64_t rows = part_frames_ * part_tiles_, weight_rows = g_.kernel[0] * layout_.inputs;
  int64_t* row_in = row_in_ + worker * rows;
  int32_t* row_out = row_out_ + worker * rows;
  const int32_t runs = in_place_ ? kept_.channel_runs : 1;
  Segment* segments = segments_ + worker * g_.kernel[0] * runs;
  RowsArgs a{};
  a.row_in = row_in, a.row_out = row_out, a.segments = segments;
  a.weight_index = weight_index_;
  a.vectors = layout_.vectors(index);
  for (int64_t first = 0; first < part.frames; ++first) {
    bool done = !any_live(part.frame + first);
    for (int64_t f = 0; f < first && !done; ++f) done = same_live(part.frame + f, part.frame + first);
    if (done) continue;
    a.rows = a.segment_count = 0;
    for (int64_t f = first; f < part.frames; ++f)
      for (int64_t tile = 0; tile < part.tiles && same_live(part.frame + f, part.frame + first); ++tile) {
        row_in[a.rows] = (f * g_.strides[0] * part_tiles_ + tile) * tile_floats();
        row_out[a.rows++] = int32_t(f * part_tiles_ + tile);
      }
    for (int64_t kt = 0; kt < g_.kernel[0]; ++kt)
      for (int32_t i = 0; i < runs && live(part.frame + first, kt); ++i) {
        const ChannelRun run = in_place_ ? channel_runs_[i] : ChannelRun{0, kept_.channels};
        segments[a.segment_count++] = {kt * g_.dilations[0] * part_tiles_ * tile_floats() + run.begin,
                                       kt * layout_.inputs + run.begin, run.length, 0};
      }
    bool even = true;
    for (int r = 1; r < a.rows; ++r) even &= row_in[r] - row_in[r - 1] == tile_floats();
    a.step = even ? tile_floats() : 0;
    for (int64_t component = component_begin; component < component_end; ++component) {
      a.x = scratch.in + component * in_stride() + (even ? row_in[0] : 0);
      a.weights = weights_ + layout_.offset(0, index) + component * weight_rows * columns(index);
      a.acc = scratch.sums + component * sums_stride();
      (call_.pairs ? call_.pairs->kernels.rows : isa_.rows)(a);
    }
  }
}

// Tiles of output frame f of the part, in runs of neighbours. sums: null where they are zero.
void WinogradClip::finish(int worker, const Part& part, int64_t f, int64_t tile_begin, int64_t tile_end, int64_t index,
                          const float* sums) const {
  if (!any_live(part.frame + f)) return;
  if (!magnitudes_.wanted()) return write(worker, part, f, tile_begin, tile_end, index, sums);
  for (int64_t tile = tile_begin; tile < tile_end; tile += kRunTiles) {
    const int64_t end = std::min(tile_end, tile + kRunTiles);
    write(worker, part, f, tile, end, index, sums);
    add_magnitudes(part.frame + f, part.tile + tile, part.tile + end, index);
  }
}

void WinogradClip::write(int worker, const Part& part, int64_t f, int64_t tile_begin, int64_t tile_end, int64_t index,
                         const float* sums) const {
  const int64_t width = columns(index), to = part.frame + f;
  if (sums && g_.channels_last && width == layout_.columns(index))
    return write_in_place(part, f, tile_begin, tile_end, index, sums);
  float* pixels = finished_ + worker * size_ * size_ * kRunTiles * isa_.block();
  for (int64_t tile = tile_begin; tile < tile_end;) {
    const Tile& first = tiles_.tile[part.tile + tile];
    const int64_t run = run_of(&first, std::min(kRunTiles, tile_end - tile));
    WinogradOutArgs a{};
    a.component_stride = sums_stride(), a.columns = a.pixel_stride = width, a.row_stride = run * size_ * width;
    a.size = a.rows = a.row_pixels = size_;
    for (int64_t i = 0; i < run && sums; ++i) {
      a.sums = sums + (f * part_tiles_ + tile + i) * width;
      a.out = pixels + i * size_ * width;
      isa_.winograd_out(a);
    }
    store_run(to, first, run, index, sums ? pixels : nullptr);
    tile += run;
  }
}

// Straight to Y, where whole vectors of its channels lie side by side.
void WinogradClip::write_in_place(const Part& part, int64_t f, int64_t tile_begin, int64_t tile_end, int64_t index,
                                  const float* sums) const {
  const int64_t out_pixels = g_.out[1] * g_.out[2], first = layout_.block_begin(index);
  WinogradOutArgs a{};
  a.component_stride = sums_stride(), a.columns = columns(index);
  a.row_stride = g_.out[2] * g_.m, a.pixel_stride = g_.m;
  a.size = size_;
  a.bias = bias_ + first;
  a.minimum = call_.minimum;
  for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
    const Tile& place = tiles_.tile[part.tile + tile];
    const int64_t ho = int64_t(place.row) * size_, wo = int64_t(place.column) * size_;
    const int64_t at = ((n_ * g_.out[0] + part.frame + f) * out_pixels + ho * g_.out[2] + wo) * g_.m + first;
    a.rows = int(std::min<int64_t>(size_, g_.out[1] - ho));
    a.row_pixels = int(std::min<int64_t>(size_, g_.out[2] - wo));
    a.sums = sums + (f * part_tiles_ + tile) * a.columns;
    a.out = static_cast<float*>(call_.y) + at;
    a.z = call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
    isa_.winograd_out(a);
  }
}

// Neighbours along W, the first one included.
int64_t WinogradClip::run_of(const Tile* tile, int64_t most) const {
  int64_t run = 1;
  while (run < most && tile[run].row == tile->row && tile[run].column == tile->column + run) ++run;
  return run;
}

// Of finished tiles [tile_begin, tile_end) of all.
void WinogradClip::add_magnitudes(int64_t to, int64_t tile_begin, int64_t tile_end, int64_t index) const {
  const int64_t runs = runs_per_part(), in_part = tile_begin % std::max<int64_t>(1, part_tiles_);
  const int64_t part = tile_begin >= tiles_.live ? whole_parts() + few_.parts()
                                                 : tile_begin / part_tiles_ * runs + (shared_ ? in_part / kRunTiles : 0);
  for (int64_t tile = tile_begin; tile < tile_end;) {
    const Tile& first = tiles_.tile[tile];
    const int64_t run = run_of(&first, tile_end - tile), wo = int64_t(first.column) * size_;
    const int64_t pixels = std::min(run * size_, g_.out[2] - wo);
    for (int64_t ho = int64_t(first.row) * size_; ho < std::min((int64_t(first.row) + 1) * size_, g_.out[1]); ++ho)
      magnitudes_.add(part, index, to, layout_.block_begin(index), layout_.columns(index), ho * g_.out[2] + wo, pixels);
    tile += run;
  }
}

StoreArgs WinogradClip::store_args(int64_t index) const {
  StoreArgs a{};
  a.acc_stride = columns(index);
  a.count = layout_.columns(index);
  a.first_channel = layout_.block_begin(index);
  a.bias = bias_ + a.first_channel;
  a.minimum = call_.minimum;
  a.channel_stride = g_.channels_last ? 1 : g_.out[0] * out_pixels();
  a.pixel_stride = g_.channels_last ? g_.m : 1;
  a.type = g_.type;
  return a;
}

// a.pixels of an output frame from `first` on.
void WinogradClip::store_pixels(StoreArgs& a, int64_t to, int64_t first, const float* pixels) const {
  const int64_t at = n_ * g_.m * g_.out[0] * out_pixels() + (to * out_pixels() + first) * a.pixel_stride;
  a.acc = pixels;
  a.y = static_cast<float*>(call_.y) + at;
  a.z = call_.z ? static_cast<const float*>(call_.z) + at : nullptr;
  isa_.store(a);
}

void WinogradClip::store_run(int64_t to, const Tile& first, int64_t tiles, int64_t index, const float* pixels) const {
  const int64_t wo = int64_t(first.column) * size_, top = int64_t(first.row) * size_;
  StoreArgs a = store_args(index);
  a.pixels = int(std::min(tiles * size_, g_.out[2] - wo));
  for (int64_t ho = top; ho < std::min(top + size_, g_.out[1]); ++ho)
    store_pixels(a, to, ho * g_.out[2] + wo, pixels ? pixels + (ho - top) * tiles * size_ * a.acc_stride : nullptr);
}

// Weights too large to be read again by every worker: all workers do one part together, step by step.
void WinogradClip::run_shared() {
  const int64_t block_sums = components_ * sums_stride(), blocks = layout_.blocks();
  float* sums = scratch_ + components_ * in_stride();
  for (int64_t item = 0; item < tile_parts_ * frame_parts_; ++item) {
    const Part part = part_at(item);
    const int64_t runs = (part.tiles + kRunTiles - 1) / kRunTiles;
    const auto end = [&](int64_t run) { return std::min(part.tiles, (run + 1) * kRunTiles); };
    for_items(parallel_, inputs_of(part.frames) * runs, [&](int, int64_t i) {
      transform(part, i / runs, i % runs * kRunTiles, end(i % runs), scratch_);
    });
    for_items(parallel_, blocks * components_, [&](int worker, int64_t i) {
      const int64_t index = i / components_, component = i % components_;
      multiply(worker, part, index, component, component + 1, {scratch_, sums + index * block_sums});
    });
    for_items(parallel_, blocks * part.frames * runs, [&](int worker, int64_t i) {
      const int64_t run = i % runs, index = i / runs / part.frames;
      finish(worker, part, i / runs % part.frames, run * kRunTiles, end(run), index, sums + index * block_sums);
    });
  }
}

// Of all pixels of an output frame that reads no kept one.
void WinogradClip::store_dropped_frame(int64_t to, int64_t index) const {
  StoreArgs a = store_args(index);
  a.pixels = int(out_pixels());
  store_pixels(a, to, 0, nullptr);
  magnitudes_.add(whole_parts() + few_.parts(), index, to, layout_.block_begin(index), layout_.columns(index), 0, out_pixels());
}

// Every part by one worker, from end to end; then what is not done by whole tiles.
void WinogradClip::run_items() {
  const int64_t whole = shared_ ? 0 : tile_parts_ * frame_parts_, few = few_.items();
  const Part dropped{0, g_.out[0], tiles_.live, tiles_.all - tiles_.live};
  const int64_t left = layout_.blocks() * g_.out[0];
  for_items(parallel_, whole + few + left, [&](int worker, int64_t item) {
    if (item < whole) return run_part(worker, item);
    if (item < whole + few) return few_.compute(worker, item - whole, whole_parts());
    const int64_t i = item - whole - few;
    const int64_t to = i % g_.out[0], index = i / g_.out[0];
    if (any_live(to)) finish(worker, dropped, to, 0, dropped.tiles, index, nullptr);
    else store_dropped_frame(to, index);
  });
}

void WinogradClip::run_part(int worker, int64_t item) const {
  const int64_t in_floats = components_ * in_stride(), floats = in_floats + components_ * sums_stride();
  const Part part = part_at(item);
  const Scratch scratch{scratch_ + worker * floats, scratch_ + worker * floats + in_floats};
  for (int64_t slot = 0; slot < inputs_of(part.frames); ++slot) transform(part, slot, 0, part.tiles, scratch.in);
  for (int64_t index = 0; index < layout_.blocks(); ++index) {
    multiply(worker, part, index, 0, components_, scratch);
    for (int64_t f = 0; f < part.frames; ++f) finish(worker, part, f, 0, part.tiles, index, scratch.sums);
  }
}

}  // namespace

bool winograd_in_place(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  return !call.pairs && !kept.all_channels && g.channels_last && g.c % isa.vector == 0 && g.c - kept.channels < isa.vector;
}

void winograd_conv3d(const ClipCall& clip, const Tiling& tiling) {
  WinogradClip(clip, tiling).run();
}

}  // namespace dance
