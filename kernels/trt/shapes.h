// Which shapes go together, and what comes out. Extents that are not known yet (-1) fit anything.
#pragma once
#include "../cpu/geometry.h"
#include "attributes.h"

namespace dance {
namespace trt {

// One extent of an output: that of an input, or by a convolution's formula, or of constant size.
struct Extent {
  int input = 0, axis = 0;    // where it comes from
  bool formula = false;       // (extent + padding - reach) / stride + 1
  int64_t padding = 0, reach = 0, stride = 1;
};
struct OutputShape {
  int rank = 0;
  Extent extents[5];
};

// Throws Refusal naming op, tensor and both shapes where `inputs` (kind.inputs() of them) do not fit together, and
// where the extents of W are not known: W has to be an initializer.
void check_inputs(const OpKind& kind, const std::string& where, const Attributes& attributes, const Desc* inputs);
// For inputs that were checked.
OutputShape output_shape(const OpKind& kind, const Attributes& attributes, const Desc* inputs, int output);
// What `shape` comes to; -1 where the input's extent is not known.
Desc output_desc(const OutputShape& shape, Element type, const Desc* inputs);

// For checked inputs of which every extent is known. `out` is filled in too; throws Refusal where the kernel does not
// fit into X or sizes are too large.
ConvGeometry conv_geometry(const OpKind& kind, const std::string& where, const Attributes& attributes,
                           const Desc* inputs);

struct Layout {
  int c, t;  // axes of X; H and W follow T
};
inline Layout layout_of(const OpKind& kind) { return kind.channels_last ? Layout{4, 1} : Layout{1, 2}; }

}  // namespace trt
}  // namespace dance
