// Geometry of one gated convolution, as plain numbers. Meaning of every field: ONNX Conv over three axes.
#pragma once
#include <cstdint>

namespace dance {

enum class Type : int { f32 = 0, f16 = 1 };

// Y = max(conv(X kept, W) + B (+ Z), min);  X [N,C,T,H,W] or [N,T,H,W,C], Y and Z [N,M,T',H',W'] or [N,T',H',W',M]
struct ConvGeometry {
  int64_t n, c, t, h, w;           // X
  int64_t m;                       // output channels
  int64_t kernel[3];               // T, H, W
  int64_t strides[3];
  int64_t pads[6];                 // begins, then ends
  int64_t dilations[3];
  int64_t group;
  int64_t out[3];                  // T', H', W'; filled in by conv_out_size
  bool channels_last;              // layout of X, Y and Z
  Type type;                       // of X, W, B, Y, Z; sums are float32

  int64_t channels_per_group() const { return c / group; }
  int64_t outputs_per_group() const { return m / group; }
  // An output pixel reads one pixel, where it lies as floats.
  bool pointwise() const {
    bool padded = false;
    for (int64_t pad : pads) padded = padded || pad != 0;
    return channels_last && type == Type::f32 && kernel[0] * kernel[1] * kernel[2] == 1 && !padded;
  }
  bool depthwise() const { return group > 1 && group == c && group == m; }
};

// Largest extent, pad, stride or dilation accepted: products of two stay far inside int64.
constexpr int64_t kLargestExtent = int64_t(1) << 31;

// Fills g.out; false where the kernel does not fit into the padded input.
inline bool conv_out_size(ConvGeometry& g) {
  const int64_t in[3] = {g.t, g.h, g.w};
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t padded = in[axis] + g.pads[axis] + g.pads[axis + 3];
    const int64_t reach = g.dilations[axis] * (g.kernel[axis] - 1) + 1;
    if (padded < reach) return false;
    g.out[axis] = (padded - reach) / g.strides[axis] + 1;
  }
  return true;
}

// False where sizes overflow the kernels' arithmetic: 32 bits for pixels of a frame, 48 for elements of a tensor.
inline bool conv_fits(const ConvGeometry& g) {
  const auto fits = [](int64_t a, int64_t b, int64_t limit) { return a <= limit / (b < 1 ? 1 : b); };
  const int64_t pixels_limit = int64_t(1) << 30, elements_limit = int64_t(1) << 48;
  if (!fits(g.out[1], g.out[2], pixels_limit) || !fits(g.h, g.w, pixels_limit)) return false;
  if (!fits(g.out[0], g.kernel[0], pixels_limit)) return false;
  const int64_t in_frames = g.n * g.t, out_frames = g.n * g.out[0];
  if (!fits(g.n, g.t, pixels_limit) || !fits(g.n, g.out[0], pixels_limit)) return false;
  if (!fits(in_frames, g.c, pixels_limit) || !fits(out_frames, g.m, pixels_limit)) return false;
  return fits(in_frames * g.c, g.h * g.w, elements_limit) && fits(out_frames * g.m, g.out[1] * g.out[2], elements_limit);
}

// The three masks of one n, one byte an entry, nonzero means keep.
struct Masks {
  const uint8_t* frame;    // [T]
  const uint8_t* channel;  // [C]
  const uint8_t* feature;  // [H, W]
};

}  // namespace dance
