#include "c_api.h"

#include <time.h>

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "activation_gate.h"
#include "amx_usable.h"
#include "channels_last.h"
#include "expand_depthwise.h"
#include "gated_conv3d.h"
#include "isa.h"
#include "pairs.h"
#include "refused_isa.h"
#include "winograd.h"

namespace {

void run_on_threads(void*, void (*fn)(void*, std::size_t), std::size_t total, void* arg) {
  std::vector<std::thread> threads;
  for (std::size_t i = 1; i < total; ++i) threads.emplace_back(fn, arg, i);
  fn(arg, 0);
  for (std::thread& thread : threads) thread.join();
}

// Threads that stay for all runs of a call and wait for work in a loop for a moment before they sleep, as those of ONNX Runtime
// do while a graph runs: starting threads would be a part of the times.
class Team {
 public:
  explicit Team(int workers) {
    for (int i = 1; i < workers; ++i) threads_.emplace_back([this, i] { serve(std::size_t(i)); });
  }
  ~Team() {
    begin(nullptr, 0, nullptr);
    for (std::thread& thread : threads_) thread.join();
  }
  Team(const Team&) = delete;
  dance::Parallel parallel() { return {run, this, int(threads_.size()) + 1}; }

 private:
  static constexpr int kLooks = 4000;  // a few microseconds

  static void run(void* self, void (*fn)(void*, std::size_t), std::size_t total, void* arg) {
    Team& team = *static_cast<Team*>(self);
    team.begin(fn, total, arg);
    fn(arg, 0);
    team.wait_for([&] { return team.left_ == 0; });
  }
  void begin(void (*fn)(void*, std::size_t), std::size_t total, void* arg) {
    fn_ = fn, arg_ = arg, total_ = total, left_ = threads_.size();
    announce([&] { ++round_; });
  }
  void serve(std::size_t number) {
    for (unsigned seen = 0;; ++seen) {
      wait_for([&] { return round_ != seen; });
      if (!fn_) return;
      if (number < total_) fn_(arg_, number);
      announce([&] { --left_; });
    }
  }
  template <typename Change>
  void announce(const Change& change) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      change();
    }
    changed_.notify_all();
  }
  template <typename Done>
  void wait_for(const Done& done) {
    for (int i = 0; i < kLooks; ++i)
      if (done()) return;
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, done);
  }

  std::vector<std::thread> threads_;
  void (*fn_)(void*, std::size_t) = nullptr;  // these three are written before round_, and read after it
  void* arg_ = nullptr;
  std::size_t total_ = 0;
  std::atomic<unsigned> round_{0};
  std::atomic<std::size_t> left_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

double seconds(clockid_t clock) {
  timespec now;
  clock_gettime(clock, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

dance::MagnitudeOutputs magnitudes_of(const DanceMagnitudes* magnitudes) {
  return magnitudes ? dance::MagnitudeOutputs{magnitudes->channel, magnitudes->pixel} : dance::MagnitudeOutputs{};
}

bool geometry_of(const DanceConv& conv, dance::ConvGeometry& g) {
  g.n = conv.x_shape[0], g.c = conv.x_shape[1], g.t = conv.x_shape[2], g.h = conv.x_shape[3], g.w = conv.x_shape[4];
  g.m = conv.w_shape[0];
  g.group = conv.group;
  for (int i = 0; i < 3; ++i) {
    g.kernel[i] = conv.w_shape[2 + i], g.strides[i] = conv.strides[i], g.dilations[i] = conv.dilations[i];
    if (g.kernel[i] < 1 || g.strides[i] < 1 || g.dilations[i] < 1) return false;
  }
  for (int i = 0; i < 6; ++i) g.pads[i] = conv.pads[i];
  g.channels_last = conv.channels_last != 0;
  g.type = conv.type ? dance::Type::f16 : dance::Type::f32;
  return g.group >= 1 && g.c % g.group == 0 && g.m % g.group == 0 && conv.w_shape[1] == g.c / g.group &&
         dance::conv_out_size(g) && dance::conv_fits(g);
}

struct BadCosts {};

// run() so many times; times_s: as in DanceConv.
template <typename Run>
void timed(int repeats, double* times_s, const Run& run) {
  for (int i = 0; i < repeats; ++i) {
    const double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    run();
    if (!times_s) continue;
    times_s[2 * i] = seconds(CLOCK_MONOTONIC) - wall;
    times_s[2 * i + 1] = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
  }
}

// `text`, cut to `size` bytes with the final zero.
void copy_text(const std::string& text, char* to, int64_t size) {
  if (size > 0) to[text.copy(to, std::size_t(size - 1))] = '\0';
}

// Calls run(workspace), and turns what it throws into a status: no exception crosses the C border.
template <typename Run>
int guarded(const Run& run) {
  try {
    dance::Workspace workspace;
    run(workspace);
  } catch (const std::bad_alloc&) {
    return DANCE_NO_MEMORY;
  } catch (const BadCosts&) {
    return DANCE_BAD_COSTS;
  }
  return DANCE_OK;
}

dance::Costs costs_of(const DanceConv& conv) {
  dance::Costs costs;
  if (conv.costs && !dance::read_costs(conv.costs, costs).empty()) throw BadCosts{};
  return costs;
}

}  // namespace

int dance_isa_count(void) {
  int count;
  dance::isa_list(&count);
  return count;
}

static const dance::IsaKernels& isa_at(int index) {
  int count;
  return *dance::isa_list(&count)[index];
}

const char* dance_isa_name(int index) { return isa_at(index).name; }
int dance_isa_supported(int index) { return isa_at(index).supported(); }
const char* dance_isa_used(void) { return dance::isa_current().name; }
int dance_isa_block(int index) { return isa_at(index).block(); }

namespace {

struct PairsEntry {
  int isa;
  const dance::PairKernels* pairs;
};

std::vector<PairsEntry> pairs_entries() {
  std::vector<PairsEntry> entries;
  for (int isa = 0; isa < dance_isa_count(); ++isa)
    for (const dance::PairKernels* const* pairs = isa_at(isa).pairs; *pairs; ++pairs) entries.push_back({isa, *pairs});
  return entries;
}

PairsEntry pairs_at(int index) { return pairs_entries()[std::size_t(index)]; }
bool usable(const PairsEntry& entry) { return isa_at(entry.isa).supported() && entry.pairs->supported(); }

}  // namespace

int dance_bf16_count(void) { return int(pairs_entries().size()); }
const char* dance_bf16_name(int index) { return pairs_at(index).pairs->name; }
int dance_bf16_isa(int index) { return pairs_at(index).isa; }
const char* dance_bf16_used(void) { return dance::bf16_offered() ? dance::isa_current().bf16()->name : nullptr; }
int dance_force_isa(const char* name) { return dance::force_isa(name); }

int dance_bf16_agrees(int index, dance::RowsFunction rows) {
  const PairsEntry entry = pairs_at(index);
  return usable(entry) && dance::rows_agree(rows ? rows : entry.pairs->rows, isa_at(entry.isa).vector);
}

int dance_tile_product(int index, const void* inputs, const void* weights, float* sums, int rows, int units, int columns) {
  const PairsEntry entry = pairs_at(index);
  if (!entry.pairs->tile_product || !usable(entry)) return 0;
  entry.pairs->tile_product({inputs, weights, sums, rows, units, columns});
  return 1;
}

int dance_cost_model(void) { return dance::kCostModel; }

int dance_cost_count(void) {
  int count;
  dance::cost_names(&count);
  return count;
}

void dance_cost(int index, DanceCost* cost) {
  int count;
  const dance::CostName& entry = dance::cost_names(&count)[index];
  *cost = {entry.name, dance::Costs{}.*entry.value, entry.low, entry.high};
}

int dance_isa_refused(char* why, int64_t size) {
  int refused = 0;
  const int status = guarded([&](dance::Workspace&) {
    const std::string found = dance::isa_refusal();
    copy_text(found, why, size);
    refused = !found.empty();
  });
  return status == DANCE_OK && refused;
}

int dance_check_costs(const char* text, char* wrong, int64_t size) {
  return guarded([&](dance::Workspace&) {
    dance::Costs costs;
    const std::string found = dance::read_costs(text, costs);
    copy_text(found, wrong, size);
    if (!found.empty()) throw BadCosts{};
  });
}

int dance_estimate(const DanceConv* conv, const uint8_t* frame_keep, const uint8_t* channel_keep,
                   const uint8_t* feature_keep, int32_t* chosen, double* steps) {
  dance::ConvCall call{};
  if (!geometry_of(*conv, call.geometry)) return DANCE_BAD_SHAPE;
  call.bf16 = conv->bf16 != 0;
  call.frame_keep = frame_keep, call.channel_keep = channel_keep, call.feature_keep = feature_keep;
  return guarded([&](dance::Workspace& workspace) {
    const dance::Costs costs = costs_of(*conv);
    call.costs = &costs;
    dance::PackedWeights packed;
    packed.isa = &dance::isa_current();  // weights as a session has them; none are read
    call.packed = &packed;
    dance::VariantSteps found{};
    *chosen = int32_t(dance::chosen_variant(call, 0, workspace, &found));
    steps[0] = found.direct, steps[1] = found.winograd2, steps[2] = found.winograd4;
  });
}

int dance_gated_conv3d(const DanceConv* conv, const void* x, const void* w, const void* b, const void* frame_keep,
                       const void* channel_keep, const void* feature_keep, const void* z, void* y, double* times_s) {
  dance::ConvCall call{};
  if (!geometry_of(*conv, call.geometry)) return DANCE_BAD_SHAPE;
  call.x = x, call.w = w, call.b = b, call.z = z, call.y = y;
  call.frame_keep = frame_keep, call.channel_keep = channel_keep, call.feature_keep = feature_keep;
  call.mask_type = conv->mask_type ? dance::MaskType::f32 : dance::MaskType::byte;
  call.minimum = conv->minimum;
  call.variant = dance::Variant(conv->variant);
  call.bf16 = conv->bf16 != 0;
  call.magnitudes = magnitudes_of(&conv->magnitudes);
  dance::Variant used = dance::Variant::direct;
  call.used = &used;
  return guarded([&](dance::Workspace& workspace) {
    const dance::Costs costs = costs_of(*conv);
    call.costs = &costs;
    dance::PackedWeights packed;
    if (conv->prepack && !conv->packed) packed.pack(call.geometry, dance::isa_current(), w, call.bf16), call.packed = &packed;
    if (conv->packed) call.packed = static_cast<const dance::PackedWeights*>(conv->packed);
    Team team(conv->threads);
    const dance::Parallel parallel = team.parallel();
    timed(conv->repeats, times_s, [&] { dance::gated_conv3d(call, workspace, parallel); });
    if (conv->used) *conv->used = int32_t(used);
  });
}

int dance_expand_depthwise(const DanceConv* expand, const DanceConv* depthwise, int32_t swish, const void* x, const void* w,
                           const void* b, const void* frame_keep, const void* channel_keep, const void* feature_keep,
                           const void* depthwise_w, const void* depthwise_b, void* y, double* times_s) {
  dance::ExpandDepthwiseCall call{};
  if (!geometry_of(*expand, call.expand.geometry) || !geometry_of(*depthwise, call.depthwise.geometry)) return DANCE_BAD_SHAPE;
  call.expand.x = x, call.expand.w = w, call.expand.b = b;
  call.expand.frame_keep = frame_keep, call.expand.channel_keep = channel_keep, call.expand.feature_keep = feature_keep;
  call.expand.mask_type = expand->mask_type ? dance::MaskType::f32 : dance::MaskType::byte;
  call.expand.minimum = expand->minimum;
  call.depthwise.w = depthwise_w, call.depthwise.b = depthwise_b, call.depthwise.y = y;
  call.depthwise.minimum = depthwise->minimum;
  call.swish = swish != 0;
  return guarded([&](dance::Workspace& workspace) {
    dance::PackedWeights packed, depthwise_packed;
    const dance::IsaKernels& isa = dance::isa_current();
    if (expand->prepack) packed.pack(call.expand.geometry, isa, w), call.expand.packed = &packed;
    if (depthwise->prepack) {
      depthwise_packed.pack(call.depthwise.geometry, isa, depthwise_w);
      call.depthwise.packed = &depthwise_packed;
    }
    Team team(expand->threads);
    const dance::Parallel parallel = team.parallel();
    timed(expand->repeats, times_s, [&] { dance::expand_depthwise(call, workspace, parallel); });
  });
}

void* dance_pack(const DanceConv* conv, const void* w) {
  dance::ConvGeometry g{};
  if (!geometry_of(*conv, g)) return nullptr;
  try {
    std::unique_ptr<dance::PackedWeights> packed(new dance::PackedWeights);
    packed->pack(g, dance::isa_current(), w, conv->bf16 != 0);
    return packed.release();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

void dance_unpack(void* packed) { delete static_cast<dance::PackedWeights*>(packed); }

int64_t dance_packed_bytes(const DanceConv* conv, const void* w) {
  dance::ConvGeometry g{};
  if (!geometry_of(*conv, g)) return 0;
  try {
    dance::PackedWeights packed;
    packed.pack(g, dance::isa_current(), w, conv->bf16 != 0);
    const bool possible = g.group == 1 && g.kernel[1] == 3 && g.kernel[2] == 3;
    const int size = possible && (conv->variant == 2 || conv->variant == 4) ? conv->variant : 0;
    if (conv->bf16 && dance::pairs_possible(g, dance::isa_current())) packed.pairs(g, size, w);
    else if (size) packed.winograd(g, size);
    return int64_t(packed.bytes());
  } catch (const std::bad_alloc&) {
    return 0;
  }
}

int dance_to_channels_last(const int64_t* s, int32_t type, const void* x, void* y, const DanceMagnitudes* magnitudes,
                           int32_t threads) {
  const dance::ToChannelsLastCall call{x, y, type ? dance::Type::f16 : dance::Type::f32, s[0], s[1], s[2], s[3], s[4],
                                        magnitudes_of(magnitudes)};
  return guarded([&](dance::Workspace& workspace) {
    dance::to_channels_last(call, workspace, dance::Parallel{run_on_threads, nullptr, threads});
  });
}

int dance_scaled_swish(const int64_t* s, int32_t type, const void* x, const void* scale, void* y, int32_t threads) {
  return guarded([&](dance::Workspace& workspace) {
    dance::scaled_swish({x, scale, y, type ? dance::Type::f16 : dance::Type::f32, s[0], s[2] * s[3] * s[4], s[1]}, workspace,
                        dance::Parallel{run_on_threads, nullptr, threads});
  });
}

int dance_max_pool3d(const int64_t* s, const int64_t* kernel, const int64_t* strides, const int64_t* pads, int32_t type,
                     const void* x, void* y, const DanceMagnitudes* magnitudes, int32_t threads) {
  dance::MaxPoolCall call{x, y, {}, magnitudes_of(magnitudes)};
  dance::ConvGeometry& g = call.geometry;
  g.n = s[0], g.c = g.m = s[1], g.t = s[2], g.h = s[3], g.w = s[4];
  for (int i = 0; i < 3; ++i) g.kernel[i] = kernel[i], g.strides[i] = strides[i], g.dilations[i] = 1;
  for (int i = 0; i < 6; ++i) g.pads[i] = pads[i];
  g.group = 1, g.channels_last = true;
  g.type = type ? dance::Type::f16 : dance::Type::f32;
  if (!dance::conv_out_size(g) || !dance::conv_fits(g)) return DANCE_BAD_SHAPE;
  return guarded([&](dance::Workspace& workspace) {
    dance::max_pool3d(call, workspace, dance::Parallel{run_on_threads, nullptr, threads});
  });
}

int dance_activation_gate(const int64_t* x_shape, int32_t channels_last, int32_t type, const void* x, const float* tau,
                          uint8_t* frame_keep, uint8_t* channel_keep, uint8_t* feature_keep, const DanceMagnitudes* magnitudes,
                          int64_t* kept, int32_t threads) {
  const dance::MagnitudeOutputs given = magnitudes_of(magnitudes);
  const dance::GateCall call{x, type ? dance::Type::f16 : dance::Type::f32, channels_last != 0,
                             x_shape[0], x_shape[1], x_shape[2], x_shape[3], x_shape[4],
                             tau, frame_keep, channel_keep, feature_keep, given.channel, given.pixel, kept};
  return guarded([&](dance::Workspace& workspace) {
    dance::activation_gate(call, workspace, dance::Parallel{run_on_threads, nullptr, threads});
  });
}
