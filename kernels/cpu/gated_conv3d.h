// dance::GatedConv3d and GatedConv3dAdd on a CPU, all layouts and types.
#pragma once
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>

#include "costs.h"
#include "geometry.h"
#include "isa.h"
#include "magnitudes.h"
#include "parallel.h"
#include "workspace.h"

namespace dance {

enum class MaskType : int { byte = 0, f32 = 1 };  // byte: bool

// Weights packed ahead for one instruction set; kept where W is a constant of the graph.
struct PackedWeights {
  const IsaKernels* isa = nullptr;
  Buffer data;
  const float* floats = nullptr;
  // Of g extents are not looked at. bf16: what can be computed in bfloat16 will be, and needs none of this.
  // discard: w is lost (pack.h); not where it is depthwise or bf16: such weights are read again. Throws std::bad_alloc.
  void pack(const ConvGeometry& g, const IsaKernels& isa, const void* w, bool bf16 = false, bool discard = false);

  // Transformed for Winograd tiles of `size`, by the first call that asks: 4 (size 4) or 16/9 times the memory, which
  // a layer that never chooses Winograd must not pay. Many threads may ask at once. Throws std::bad_alloc.
  const float* winograd(const ConvGeometry& g, int size) const;
  // As ByOutputLayout says, for all inputs. Otherwise as winograd.
  const float* by_output(const ConvGeometry& g) const;
  // As ByPixelLayout says. Otherwise as winograd.
  const float* by_pixel(const ConvGeometry& g) const;
  // In bfloat16 (pairs.h), from w; size 0: for the direct kernel. Otherwise as winograd.
  const float* pairs(const ConvGeometry& g, int size, const void* w) const;
  std::size_t bytes() const;

 private:
  struct Transformed {
    std::once_flag once;
    Buffer data;
    std::atomic<const float*> floats{nullptr};
  };
  mutable Transformed two, four, few_outputs, pixels, direct_pairs, two_pairs, four_pairs;
};

// How a convolution is computed. automatic: whatever an estimate from the masks says is fastest; the others are taken
// where the convolution allows them, else direct. mixed: Winograd, with tiles of few live pairs computed pixel by pixel; where
// it is asked for, all but in bfloat16 tiles with fewer than half of the pairs of a whole one.
enum class Variant : int { automatic = 0, direct = 1, winograd2 = 2, by_pixel = 3, winograd4 = 4, mixed2 = 12, mixed4 = 14 };

struct Pairs;

struct ConvCall {
  ConvGeometry geometry;         // checked, with its output size
  const void* x;
  const void* w;                 // [M, C/group, kT, kH, kW]; not read where `packed` is given, except depthwise
  const PackedWeights* packed;   // or null
  const void* b;                 // [M]
  const void* frame_keep;        // [N, T]
  const void* channel_keep;      // [N, C]
  const void* feature_keep;      // [N, H, W]
  MaskType mask_type;
  const void* z;                 // shaped like y, or null
  void* y;
  float minimum;
  MagnitudeOutputs magnitudes{};    // of y, where wanted
  Variant variant = Variant::automatic;
  Variant* used = nullptr;       // or what was taken for the last n, written here
  bool bf16 = false;             // multiply in bfloat16 where pairs_possible says so; as `packed` was packed
  const Costs* costs = nullptr;  // that `automatic` goes by; null: the built-in ones
  const Pairs* pairs = nullptr;  // given where this is a call of units, made by it
};

struct VariantSteps;
// Computes nothing: what call.variant `automatic` takes for one n, and the estimates that this is chosen from (winograd.h), or
// zeros where there is no choice. Throws std::bad_alloc.
Variant chosen_variant(const ConvCall& call, int64_t n, Workspace& workspace, VariantSteps* steps);

// Nothing but y and its magnitudes is written. Throws std::bad_alloc where the workspace cannot grow.
void gated_conv3d(const ConvCall& call, Workspace& workspace, const Parallel& parallel);

}  // namespace dance
