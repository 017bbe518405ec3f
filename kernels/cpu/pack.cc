#include "pack.h"

#include <algorithm>
#include <cstring>

#include "workspace.h"

// halves through the portable variant: packing happens once a session
#define DANCE_ISA scalar
#define DANCE_VECTOR 4
#include "vec.h"

namespace dance {

void to_floats(const void* source, Type type, int64_t count, float* out) {
  if (type == Type::f32) {
    std::memcpy(out, source, std::size_t(count) * 4);
    return;
  }
  const uint16_t* halves = static_cast<const uint16_t*>(source);
  for (int64_t i = 0; i < count; ++i) out[i] = scalar::float_from_half(halves[i]);
}

static float element(const void* w, Type type, int64_t i) {
  return type == Type::f32 ? static_cast<const float*>(w)[i]
                           : scalar::float_from_half(static_cast<const uint16_t*>(w)[i]);
}

// Columns of one block; source(j): where the weights [C/group][taps] of column j begin.
template <class Source>
static void pack_block(const PackedLayout& l, int64_t index, const void* w, Type type, Source source, float* out) {
  const int64_t width = int64_t(l.vectors(index)) * l.vector;
  std::memset(out, 0, std::size_t(width * l.taps * l.inputs) * 4);
  for (int j = 0; j < width; ++j) {
    const int64_t output = l.output(index, j);
    if (output >= l.outputs) break;
    const int64_t from = source(output);
    for (int64_t c = 0; c < l.inputs; ++c)
      for (int64_t tap = 0; tap < l.taps; ++tap)
        out[(tap * l.inputs + c) * width + j] = element(w, type, from + c * l.taps + tap);
  }
}

void pack_weights(const PackedLayout& l, const void* w, Type type, float* out, bool discard) {
  const int64_t row = l.inputs * l.taps;
  for (int64_t group = 0; group < l.groups; ++group)
    for (int64_t index = 0; index < l.blocks(); ++index) {
      pack_block(l, index, w, type, [&](int64_t j) { return (group * l.outputs + j) * row; },
                 out + l.offset(group, index));
      const int64_t done = (group * l.outputs + l.block_begin(index) + l.columns(index)) * row;
      if (discard) discard_pages(const_cast<void*>(w), std::size_t(done) * (type == Type::f32 ? 4 : 2));
    }
}

void bias_by_column(const PackedLayout& l, const float* b, float* out) {
  for (int64_t group = 0; group < l.groups; ++group)
    for (int64_t index = 0; index < l.blocks(); ++index)
      for (int j = 0; j < l.vectors(index) * l.vector; ++j) {
        const int64_t output = l.output(index, j);
        *out++ = output < l.outputs ? b[group * l.outputs + output] : 0.0f;
      }
}

int narrow_registers(const ConvGeometry& g, int vector) {
  if (g.group == 1 || g.depthwise() || g.m < vector || g.c < vector) return 0;
  const bool slides = g.kernel[2] == 3 && depthwise_slides(g.kernel[2], g.strides[2], g.dilations[2]);
  if (g.outputs_per_group() * (slides ? 1 : 2) > vector) return 0;
  int64_t most = 0;  // channels that a vector of outputs reads
  for (int64_t first = 0; first < g.m; first += vector) {
    const int64_t m = std::min(first, g.m - vector);
    const int64_t groups = (m + vector - 1) / g.outputs_per_group() - m / g.outputs_per_group() + 1;
    most = std::max(most, groups * g.channels_per_group());
  }
  if (most > 2 * vector || (most > vector && g.c < 2 * vector)) return 0;
  return most > vector ? 2 : 1;
}

void pack_strips(const PackedLayout& l, const void* w, Type type, const int32_t* channels, float* out) {
  for (int64_t first = 0; first < l.outputs; first += l.vector) {
    const int64_t begin = std::max<int64_t>(0, std::min(first, l.outputs - l.vector));
    for (int64_t tap = 0; tap < l.taps; ++tap)
      for (int64_t c = 0; c < l.inputs; ++c)
        for (int64_t j = begin; j < begin + l.vector; ++j, ++out)
          *out = j < l.outputs ? element(w, type, ((channels ? channels[j] : j) * l.inputs + c) * l.taps + tap) : 0.0f;
  }
}

void pack_by_output(const PackedLayout& from, const float* packed, const int32_t* channels, int64_t count, float* out) {
  const ByOutputLayout to(from, count);
  std::memset(out, 0, std::size_t(to.floats()) * 4);
  for (int64_t block = 0; block < to.blocks(); ++block)
    for (int64_t m = to.block_begin(block); m < to.block_begin(block + 1); ++m) {
      const int64_t index = m / from.block, width = int64_t(from.vectors(index)) * from.vector;
      const float* weights = packed + from.offset(0, index) + m % from.block;
      float* column = out + to.offset(block) + (m - to.block_begin(block)) * to.vector;
      for (int64_t tap = 0; tap < to.taps; ++tap)
        for (int64_t i = 0; i < count; ++i)
          column[(tap * to.vectors + i / to.vector) * to.columns(block) * to.vector + i % to.vector] =
              weights[(tap * from.inputs + (channels ? channels[i] : i)) * width];
    }
}

void pack_by_pixel(const PackedLayout& from, const ByPixelLayout& to, const float* packed, float* out) {
  std::memset(out, 0, std::size_t(to.floats()) * 4);
  to.for_passes([&](int64_t index, const ByPixelPass& pass) {
    const int positions = to.positions(pass.column), columns = to.columns(index);
    for (int lane = 0; lane < pass.rows * pass.lanes; ++lane) {
      const int kh = to.kernel_row(pass.row, pass.first + lane / pass.lanes);
      const int kw = pass.column + (positions - 1 - lane % pass.lanes / columns) * to.strides[1];
      const int64_t m = to.block_begin(index) + lane % columns, block = m / from.block;
      const int64_t width = int64_t(from.vectors(block)) * from.vector;
      const float* weights = packed + from.offset(0, block) + m % from.block;
      for (int64_t kt = 0; kt < to.frames; ++kt)
        for (int64_t c = 0; c < to.inputs; ++c)
          out[pass.weights + (kt * to.inputs + c) * pass.vectors * to.vector + lane] =
              weights[(((kt * to.kernel[0] + kh) * to.kernel[1] + kw) * to.inputs + c) * width];
    }
  });
}

// G of F(size x size, 3x3): a kernel's polynomial at the interpolation points, over the product of the point's distances
// to the others. The transforms of pixels are in winograd.inc. Source: Toom-Cook with these points.
static const double kHalfRoot2 = 0.70710678118654752440, kRoot2 = 1.41421356237309504880;
static const double kPoints2[4][3] = {{-1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double kPoints4[6][3] = {{1, 0, 0},
                                      {-2.0 / 3, -2.0 / 3 * kHalfRoot2, -1.0 / 3},
                                      {-2.0 / 3, 2.0 / 3 * kHalfRoot2, -1.0 / 3},
                                      {1.0 / 6, kRoot2 / 6, 1.0 / 3},
                                      {1.0 / 6, -kRoot2 / 6, 1.0 / 3},
                                      {0, 0, 1}};

// One weight: 9 kernel positions, `from` apart, to (size + 2)^2 components, `to` apart.
static void transform_weight(const double (*points)[3], int n, const float* w, int64_t from, float* out, int64_t to) {
  for (int i = 0; i < n; ++i) {
    double row[3] = {0, 0, 0};
    for (int kh = 0; kh < 3; ++kh)
      for (int kw = 0; kw < 3; ++kw) row[kw] += points[i][kh] * w[(kh * 3 + kw) * from];
    for (int j = 0; j < n; ++j)
      out[(i * n + j) * to] = float(points[j][0] * row[0] + points[j][1] * row[1] + points[j][2] * row[2]);
  }
}

void pack_winograd(const PackedLayout& l, int64_t kernel_frames, const float* packed, int size, float* out) {
  const int n = size + 2;
  const double(*points)[3] = size == 4 ? kPoints4 : kPoints2;
  for (int64_t index = 0; index < l.blocks(); ++index) {
    const int64_t row = int64_t(l.vectors(index)) * l.vector * l.inputs;  // floats of one position
    const float* block = packed + l.offset(0, index);
    float* block_out = out + l.offset(0, index) / 9 * n * n;              // l.offset counts kT x 3 x 3 positions
    for (int64_t kt = 0; kt < kernel_frames; ++kt)
      for (int64_t i = 0; i < row; ++i)
        transform_weight(points, n, block + kt * 9 * row + i, row, block_out + kt * row + i, kernel_frames * row);
  }
}

}  // namespace dance
