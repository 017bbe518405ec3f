#include "pairs.h"

#include <algorithm>

#include "pack.h"
#include "pointwise.h"

namespace dance {
namespace {

constexpr int64_t kLoadPixels = 1024;       // of a frame, converted as one work item
constexpr int64_t kPassFloats = 8 << 10;    // converted at a time: they stay in the L1 cache

ConvGeometry geometry_of_units(ConvGeometry g) {
  g.c = (g.c + 1) / 2;
  return g;
}

}  // namespace

bool pairs_possible(const ConvGeometry& g, const IsaKernels& isa) {
  return isa.bf16() && g.type == Type::f32 && g.group == 1 && !is_pointwise(g);
}

Pairs::Pairs(const ConvCall& came, const Kept& kept_before, const IsaKernels& isa, Workspace& ws)
    : channels(came), kept_channels(kept_before), kernels(*isa.bf16()), call(came), kept(kept_before) {
  const uint8_t* keep = kept_before.masks.channel;
  const int64_t c = came.geometry.c, pairs = (c + 1) / 2;
  int32_t* list = ws.pairs.of<int32_t>(std::size_t(6 * pairs + 2));
  int32_t *even = list, *other = even + pairs, *half = other + pairs, *hole = half + 2 * pairs, *first = hole + pairs;
  int32_t* single = first + 2;  // odd channels whose even one is dropped
  const auto kept_odd = [&](int64_t pair) { return 2 * pair + 1 < c && keep[2 * pair + 1]; };
  int32_t count = 0, holes = 0;
  const auto add = [&](int64_t even_pair, int64_t odd_pair) {
    even[count] = int32_t(even_pair), other[count] = int32_t(odd_pair);
    half[2 * count] = int32_t(2 * even_pair), half[2 * count + 1] = int32_t(2 * odd_pair + 1);
    ++count;
  };
  const auto add_half = [&](int64_t pair, bool odd_half) {
    add(pair, pair);
    hole[holes++] = 2 * count - (odd_half ? 2 : 1);
    half[hole[holes - 1]] = int32_t(2 * pair + odd_half);
  };
  int64_t singles = 0;
  for (int64_t pair = 0; pair < pairs; ++pair)
    if (kept_odd(pair)) {
      if (keep[2 * pair]) add(pair, pair);
      else single[singles++] = int32_t(pair);
    }
  int64_t taken = 0;
  for (int64_t pair = 0; pair < pairs; ++pair)
    if (keep[2 * pair] && !kept_odd(pair)) {
      if (taken < singles) add(pair, single[taken++]);
      else add_half(pair, false);
    }
  while (taken < singles) add_half(single[taken++], true);
  first[0] = 0, first[1] = count;
  kept.channels = count;
  kept.channel = even;
  kept.first = first;
  odd = other, halves = half, empty = hole, empty_count = holes;
  call.geometry = geometry_of_units(came.geometry);
  call.pairs = this;
}

Loaded Pairs::load(int64_t n, const IsaKernels& isa, bool zero_dropped, Workspace& ws, const Parallel& parallel) const {
  const ConvGeometry& g = channels.geometry;
  const int64_t pixels = g.h * g.w, units = kept.channels, parts = (pixels + kLoadPixels - 1) / kLoadPixels;
  const bool in_place = g.channels_last && kept_channels.all_channels && g.c % 2 == 0;
  const int64_t pass = std::max<int64_t>(1, kPassFloats / (2 * units));
  const std::size_t workers = std::size_t(std::min<int64_t>(std::max(1, parallel.workers), g.t * parts));
  float* x = ws.activation.of<float>(std::size_t(g.t * pixels * units));
  float* floats = in_place ? nullptr : ws.components.of<float>(workers * std::size_t(2 * units * pass));
  const uint8_t* read = kept.read_pixel;
  for_items(parallel, g.t * parts, [&](int worker, int64_t item) {
    const int64_t t = item / parts, end = std::min(pixels, (item % parts + 1) * kLoadPixels);
    if (!kept.read_frame[t]) return;
    for (int64_t begin = item % parts * kLoadPixels; begin < end; begin += pass) {
      const int64_t stop = std::min(end, begin + pass);
      const float* from = static_cast<const float*>(channels.x) + ((n * g.t + t) * pixels + begin) * g.c;
      if (!in_place) {
        float* out = floats + worker * 2 * units * pass;
        load_halves(n, isa, t, begin, stop, 2 * units, out - begin * 2 * units);
        from = out;
      }
      for (int64_t p = begin; p < stop; ++p) {
        float* to = x + (t * pixels + p) * units;
        if (read[p]) kernels.round(from + (p - begin) * 2 * units, 2 * units, to);
        else if (zero_dropped) std::fill(to, to + units, 0.0f);
      }
    }
  });
  return {x, units};
}

Loaded Pairs::load_floats(int64_t n, const IsaKernels& isa, int64_t stride, Workspace& ws, const Parallel& parallel) const {
  const ConvGeometry& g = channels.geometry;
  const int64_t pixels = g.h * g.w, parts = (pixels + kLoadPixels - 1) / kLoadPixels;
  if (g.channels_last && kept_channels.all_channels && stride == g.c)
    return {static_cast<const float*>(channels.x) + n * g.t * pixels * g.c, g.c};
  float* x = ws.activation.of<float>(std::size_t(g.t * pixels * stride));
  for_items(parallel, g.t * parts, [&](int, int64_t item) {
    const int64_t t = item / parts, begin = item % parts * kLoadPixels;
    if (kept.read_frame[t])
      load_halves(n, isa, t, begin, std::min(pixels, begin + kLoadPixels), stride, x + t * pixels * stride);
  });
  return {x, stride};
}

void Pairs::load_halves(int64_t n, const IsaKernels& isa, int64_t t, int64_t begin, int64_t end, int64_t stride,
                        float* out) const {
  const ConvGeometry& g = channels.geometry;
  const int64_t pixels = g.h * g.w;
  LoadArgs a{};
  a.x = static_cast<const float*>(channels.x) + n * g.c * g.t * pixels + (g.channels_last ? t * pixels * g.c : t * pixels);
  a.type = Type::f32;
  a.channels_last = g.channels_last;
  a.channel_stride = g.channels_last ? g.c : g.t * pixels;
  a.channels = halves;
  a.count = 2 * kept.channels;
  a.reordered = true;
  a.keep = kept.read_pixel;
  a.begin = begin, a.end = end;
  a.out = out;
  a.out_stride = stride;
  isa.load(a);
  for (int64_t p = begin; p < end; ++p)
    for (int32_t i = 0; i < empty_count && kept.read_pixel[p]; ++i) out[p * stride + empty[i]] = 0.0f;
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
