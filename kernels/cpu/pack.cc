#include "pack.h"

#include <cstring>

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
  for (int j = 0; j < l.columns(index); ++j) {
    const int64_t from = source(l.block_begin(index) + j);
    for (int64_t c = 0; c < l.inputs; ++c)
      for (int64_t tap = 0; tap < l.taps; ++tap)
        out[(tap * l.inputs + c) * width + j] = element(w, type, from + c * l.taps + tap);
  }
}

void pack_weights(const PackedLayout& l, const void* w, Type type, float* out) {
  const int64_t row = l.inputs * l.taps;
  for (int64_t group = 0; group < l.groups; ++group)
    for (int64_t index = 0; index < l.blocks(); ++index)
      pack_block(l, index, w, type, [&](int64_t j) { return (group * l.outputs + j) * row; },
                 out + l.offset(group, index));
}

void pack_depthwise(const PackedLayout& l, const void* w, Type type, const int32_t* channels, float* out) {
  for (int64_t index = 0; index < l.blocks(); ++index)
    pack_block(l, index, w, type, [&](int64_t j) { return channels[j] * l.taps; }, out + l.offset(0, index));
}

}  // namespace dance
