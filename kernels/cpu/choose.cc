// Which variant a call takes: an estimate of the work that the masks leave to each, in steps. One step multiplies one
// input channel of one row with one block of output channels: the innermost line of rows.inc.
#include <algorithm>

#include "winograd.h"

namespace dance {
namespace {

// Measured on AVX-512 and AVX2 for layers of R3D-18; what matters is where direct and Winograd cross.
constexpr double kInSteps = 14;    // transforming one input value of one component: this over a block's columns
constexpr double kOutSteps = 11;   // back, with the store, of one component of one block
constexpr double kWeightSteps = 0.2;  // reading a row of weights from outside the L2 cache: this times its columns
constexpr double kGain = 0.9;      // Winograd's estimate must be below this share of the direct one
constexpr int64_t kLeastChannels = 8;  // fewer: the bound on rounding, which grows with them, has no room for size 4

bool winograd_allowed(const ConvCall& call, const Kept& kept, const IsaKernels& isa, int size) {
  const ConvGeometry& g = call.geometry;
  return g.type == Type::f32 && g.group == 1 && g.kernel[1] == 3 && g.kernel[2] == 3 && g.strides[1] == 1 &&
         g.strides[2] == 1 && g.dilations[1] == 1 && g.dilations[2] == 1 && call.packed && call.packed->isa == &isa &&
         kept.channels > 0 && (size == 2 || g.c >= kLeastChannels);
}

// How many outputs read position i of an axis with a kernel of 3 and stride 1.
int64_t readers(int64_t i, int64_t pad, int64_t out) {
  return std::max<int64_t>(0, std::min(out - 1, i + pad) - std::max<int64_t>(0, i + pad - 2) + 1);
}

double direct_pixels(const ConvGeometry& g, const Kept& kept) {
  int64_t positions = 0;
  for (int64_t h = 0; h < g.h; ++h) {
    int64_t row = 0;
    for (int64_t w = 0; w < g.w; ++w)
      if (kept.masks.feature[h * g.w + w]) row += readers(w, g.pads[2], g.out[2]);
    positions += row * readers(h, g.pads[1], g.out[1]);
  }
  return double(positions);
}

double live_tiles(const ConvGeometry& g, const Kept& kept, int size) {
  int64_t live = 0;
  for (int64_t ho = 0; ho < g.out[1]; ho += size)
    for (int64_t wo = 0; wo < g.out[2]; wo += size) {
      const int64_t top = std::max<int64_t>(0, ho - g.pads[1]), left = std::max<int64_t>(0, wo - g.pads[2]);
      const int64_t bottom = std::min(g.h, ho - g.pads[1] + size + 2), right = std::min(g.w, wo - g.pads[2] + size + 2);
      bool any = false;
      for (int64_t h = top; h < bottom && !any; ++h)
        for (int64_t w = left; w < right && !any; ++w) any = kept.masks.feature[h * g.w + w];
      live += any;
    }
  return double(live);
}

struct Frames {
  double pairs = 0, outputs = 0, inputs = 0;  // live (output, kernel) frames; outputs that have one; inputs read
};

Frames count_frames(const ConvGeometry& g, const Kept& kept) {
  Frames frames;
  for (int64_t to = 0; to < g.out[0]; ++to) {
    int64_t live = 0;
    for (int64_t kt = 0; kt < g.kernel[0]; ++kt) {
      const int64_t t = to * g.strides[0] - g.pads[0] + kt * g.dilations[0];
      live += t >= 0 && t < g.t && kept.masks.frame[t];
    }
    frames.pairs += double(live);
    frames.outputs += live > 0;
  }
  for (int64_t t = 0; t < g.t; ++t) frames.inputs += kept.read_frame[t] != 0;
  return frames;
}

double winograd_steps(const ConvGeometry& g, const Kept& kept, const IsaKernels& isa, const Frames& frames, int size) {
  const double blocks = double((g.m + isa.block() - 1) / isa.block()), columns = isa.block();
  const double components = double(size + 2) * (size + 2), channels = kept.channels;
  const double tiles = live_tiles(g, kept, size);
  return components * (tiles * frames.pairs * channels * blocks + tiles * frames.inputs * channels * kInSteps / columns +
                       tiles * frames.outputs * blocks * kOutSteps +
                       double(g.kernel[0]) * channels * blocks * columns * kWeightSteps);
}

}  // namespace

Variant choose_variant(const ConvCall& call, const Kept& kept, const IsaKernels& isa) {
  const ConvGeometry& g = call.geometry;
  const bool two = winograd_allowed(call, kept, isa, 2), four = winograd_allowed(call, kept, isa, 4);
  if (call.variant == Variant::winograd2) return two ? Variant::winograd2 : Variant::direct;
  if (call.variant == Variant::winograd4) return four ? Variant::winograd4 : Variant::direct;
  if (call.variant == Variant::direct || !two) return Variant::direct;
  const Frames frames = count_frames(g, kept);
  const double blocks = double((g.m + isa.block() - 1) / isa.block());
  // no plan is made for this: the least that the direct kernel can take, so that what is chosen over it is faster
  const double direct = double(kept.channels) * blocks *
                        (direct_pixels(g, kept) * frames.pairs + 9.0 * double(g.kernel[0]) * isa.block() * kWeightSteps);
  const double steps2 = winograd_steps(g, kept, isa, frames, 2);
  const double steps4 = four ? winograd_steps(g, kept, isa, frames, 4) : steps2 + 1;
  if (std::min(steps2, steps4) >= kGain * direct) return Variant::direct;
  return steps4 <= steps2 ? Variant::winograd4 : Variant::winograd2;
}

}  // namespace dance
