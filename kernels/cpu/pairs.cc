#include "pairs.h"

#include <algorithm>

#include "pack.h"
#include "pointwise.h"

namespace dance {
namespace {

constexpr int64_t kLoadPixels = 1024;       // of a frame, converted as one work item
constexpr int64_t kPassFloats = 8 << 10;    // converted at a time: they stay in the L1 cache

constexpr double kGatherRows = 200;         // rows of a product from which on it had better find its weights in order
// Kept units, of all, from which on AMX tiles had better multiply all of them than picked ones; measured from L1 to L4 of
// R3D-18 and at 16 to 64 channels.
constexpr double kAllUnits = 0.65;          // where weights are put together once a call ...
constexpr double kAllUnitsOfFewRows = 0.4;  // ... and where the inner loop does that
constexpr int64_t kTileVector = 16;         // a pixel's channels fill whole ones of these where Winograd can have all of them

ConvGeometry geometry_of_units(ConvGeometry g) {
  g.c = (g.c + 1) / 2;
  return g;
}

// All ones for each kept channel of `pixels` pixels, channels last, 0 for the others.
const uint32_t* select_kept(const Kept& kept, int64_t channels, int64_t pixels, Workspace& ws) {
  uint32_t* select = ws.float_mask.of<uint32_t>(std::size_t(channels * pixels));
  std::fill(select, select + channels * pixels, 0u);
  for (int64_t p = 0; p < pixels; ++p)
    for (int32_t i = 0; i < kept.channels; ++i) select[p * channels + kept.channel[i]] = ~0u;
  return select;
}

}  // namespace

bool pairs_possible(const ConvGeometry& g, const IsaKernels& isa) {
  return isa.bf16() && g.type == Type::f32 && g.group == 1 && !g.pointwise();
}

Pairs::Pairs(const ConvCall& came, const Kept& kept_before, const IsaKernels& isa)
    : channels(came), kept_channels(kept_before), kernels(*isa.bf16()), all_units(geometry_of_units(came.geometry)),
      call(came), kept(kept_before), first{0, (kept_before.channels + 1) / 2} {
  kept.channels = first[1];
  kept.channel = nullptr;  // of a unit there is no one channel
  kept.first = first;
  call.geometry = all_units;
  call.pairs = this;
}

bool Pairs::many_rows(int size) const {
  const ConvGeometry& g = call.geometry;
  return double(g.out[0]) * double(g.out[1]) * double(g.out[2]) >= kGatherRows * std::max(1, size * size);
}

bool Pairs::multiplies_all(int size) const {
  const ConvGeometry& g = channels.geometry;
  const double share = many_rows(size) ? kAllUnits : kAllUnitsOfFewRows;
  return by_tiles() && !kept.all_channels && g.channels_last && g.c % (size ? kTileVector : 2) == 0 &&
         double(kept.channels) >= share * double(all_units.c);
}

void Pairs::decide_channels(int size) {
  if (kept.all_channels) return;
  zero_channels = multiplies_all(size);
  gathered = !zero_channels && many_rows(size);
  if (zero_channels) kept.channels = first[1] = int32_t(all_units.c);
  else if (gathered) call.geometry.c = kept.channels;
  kept.all_channels = zero_channels || gathered;
}

const float* Pairs::weights(int size, const IsaKernels& isa, Workspace& ws, const Parallel& parallel) const {
  const float* all = call.packed->pairs(channels.geometry, size, call.w);
  if (!gathered) return all;
  const auto layout_of = [&](const ConvGeometry& g) {
    return size ? PackedLayout(WinogradLayout(g, isa, size)) : PackedLayout(g, isa);
  };
  const PackedLayout from = layout_of(all_units), to = layout_of(call.geometry);
  float* out = ws.weights.of<float>(std::size_t(to.floats()));
  const int32_t* channel = kept_channels.channel;
  for_items(parallel, from.blocks() * from.taps, [&](int, int64_t item) {
    const int64_t index = item / from.taps, tap = item % from.taps, width = int64_t(from.vectors(index)) * isa.vector;
    const float* rows = all + from.offset(0, index) + tap * from.inputs * width;
    float* row = out + to.offset(0, index) + tap * to.inputs * width;
    for (int32_t i = 0; i < kept_channels.channels; i += 2, row += width) {
      const int32_t even = channel[i], odd = i + 1 < kept_channels.channels ? channel[i + 1] : even;
      kernels.merge(rows + even / 2 * width, rows + odd / 2 * width, even % 2 + odd % 2 * 2, width, row);
    }
  });
  return out;
}

Loaded Pairs::load(int64_t n, const IsaKernels& isa, bool zero_dropped, Workspace& ws, const Parallel& parallel) const {
  const ConvGeometry& g = channels.geometry;
  const int64_t pixels = g.h * g.w, units = kept.channels, parts = (pixels + kLoadPixels - 1) / kLoadPixels;
  const bool in_place = g.channels_last && kept_channels.all_channels && g.c % 2 == 0;
  const int64_t pass = std::max<int64_t>(1, kPassFloats / (2 * units));
  const uint32_t* select = zero_channels ? select_kept(kept_channels, g.c, pass, ws) : nullptr;
  const std::size_t workers = std::size_t(std::min<int64_t>(std::max(1, parallel.workers), g.t * parts));
  float* x = ws.activation.of<float>(std::size_t(g.t * pixels * units));
  float* floats = in_place ? nullptr : ws.components.of<float>(workers * std::size_t(2 * units * pass));
  for_items(parallel, g.t * parts, [&](int worker, int64_t item) {
    const int64_t t = item / parts, end = std::min(pixels, (item % parts + 1) * kLoadPixels);
    if (!kept.read_frame[t]) return;
    LoadArgs a{};
    a.x = static_cast<const float*>(channels.x) + n * g.c * g.t * pixels + t * pixels * (g.channels_last ? g.c : 1);
    a.type = Type::f32;
    a.channels_last = g.channels_last;
    a.channel_stride = g.channels_last ? g.c : g.t * pixels;
    a.channels = kept_channels.channel;
    a.count = kept_channels.channels;
    a.keep = kept.read_pixel;
    a.out_stride = 2 * units;
    for (int64_t begin = item % parts * kLoadPixels; begin < end; begin += pass) {
      const int64_t stop = std::min(end, begin + pass);
      const float* from = static_cast<const float*>(a.x) + begin * g.c;
      if (!in_place) {
        float* out = floats + worker * 2 * units * pass;
        a.begin = begin, a.end = stop;
        a.out = out - begin * 2 * units;
        if (select) isa.select(from, select, (stop - begin) * g.c, out);
        else isa.load(a);
        from = out;
      }
      for (int64_t p = begin; p < stop; ++p) {
        float* to = x + (t * pixels + p) * units;
        if (a.keep[p]) kernels.round(from + (p - begin) * 2 * units, 2 * units, to);
        else if (zero_dropped) std::fill(to, to + units, 0.0f);
      }
    }
  });
  return {x, units};
}

Loaded Pairs::load_floats(int64_t n, int64_t stride, const IsaKernels& isa, Workspace& ws, const Parallel& parallel) const {
  if (!zero_channels) return load_kept(channels, n, isa, kept_channels, {1, stride, false}, ws, parallel);
  const ConvGeometry& g = channels.geometry;
  const int64_t pixels = g.h * g.w, pass = std::min(pixels, std::max<int64_t>(1, kPassFloats / g.c));
  const uint32_t* select = select_kept(kept_channels, g.c, pass, ws);
  const float* from = static_cast<const float*>(channels.x) + n * g.t * pixels * g.c;
  float* x = ws.activation.of<float>(std::size_t(g.t * pixels * g.c));
  for_items(parallel, g.t, [&](int, int64_t t) {
    for (int64_t p = 0; p < pixels && kept.read_frame[t]; p += pass) {
      const int64_t at = (t * pixels + p) * g.c;
      isa.select(from + at, select, std::min(pass, pixels - p) * g.c, x + at);
    }
  });
  return {x, g.c};
}

int64_t pair_floats(const ConvGeometry& g, const IsaKernels& isa, int size) {
  const ConvGeometry of_units = geometry_of_units(g);
  return size ? WinogradLayout(of_units, isa, size).floats() : PackedLayout(of_units, isa).floats();
}

void pack_pairs(const ConvGeometry& g, const IsaKernels& isa, int size, const void* w, float* out) {
  Buffer direct, transformed;
  const PackedLayout layout(g, isa);
  float* floats = direct.of<float>(std::size_t(layout.floats()));
  pack_weights(layout, w, g.type, floats);
  int64_t positions = layout.taps;
  if (size) {
    const WinogradLayout larger(g, isa, size);
    float* components = transformed.of<float>(std::size_t(larger.floats()));
    pack_winograd(layout, g.kernel[0], floats, size, components);
    floats = components, positions = larger.taps;
  }
  for (int64_t index = 0; index < layout.blocks(); ++index) {
    const int64_t width = int64_t(layout.vectors(index)) * isa.vector;
    for (int64_t position = 0; position < positions; ++position, floats += g.c * width)
      for (int64_t c = 0; c < g.c; c += 2)
        for (int64_t column = 0; column < width; ++column, ++out) {
          const float both[2] = {floats[c * width + column], c + 1 < g.c ? floats[(c + 1) * width + column] : 0.0f};
          isa.bf16()->round(both, 2, out);
        }
  }
}

}  // namespace dance
