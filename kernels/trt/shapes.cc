#include "shapes.h"

namespace dance {
namespace trt {
namespace {

bool fits(const Desc& came, const std::vector<int64_t>& wanted) {
  if (came.rank != int(wanted.size())) return false;
  for (int i = 0; i < came.rank; ++i)
    if (came.dims[i] != -1 && wanted[i] != -1 && came.dims[i] != wanted[i]) return false;
  return true;
}

void check_shape(const std::string& where, const char* tensor, const Desc& came, const std::vector<int64_t>& wanted,
                 const std::string& because) {
  if (!fits(came, wanted)) refuse(where, tensor, text(came), text(wanted) + " (" + because + ")");
}

void check_extents(const std::string& where, const char* tensor, const Desc& came, const std::string& expected) {
  bool good = came.rank == 5;
  for (int i = 0; good && i < came.rank; ++i)
    good = came.dims[i] == -1 || (came.dims[i] >= 1 && came.dims[i] <= INT32_MAX);
  if (!good) refuse(where, tensor, text(came), expected + " with every extent at least 1");
}

const char* order(const OpKind& kind) { return kind.channels_last ? "[N,T,H,W,C]" : "[N,C,T,H,W]"; }

int64_t reach_of(const Attributes& attributes, const Desc& w, int axis) {
  return attributes.dilations[axis] * (w.dims[2 + axis] - 1) + 1;
}

void check_weights(const std::string& where, const Attributes& attributes, int64_t c, const Desc& x, const Desc& w,
                   const Desc& b) {
  const int64_t group = attributes.group;
  const std::string because = "C=" + text({c}) + " of X " + text(x) + ", group=" + std::to_string(group);
  if (c != -1 && c % group != 0) refuse(where, "X", text(x), "C divisible by group=" + std::to_string(group));
  const std::string inputs = c == -1 ? "C/group" : std::to_string(c / group);
  check_extents(where, "W", w, "[M," + inputs + ",kT,kH,kW] (" + because + ")");
  for (int i = 0; i < w.rank; ++i)
    if (w.dims[i] == -1) refuse(where, "W", text(w), "an initializer, whose shape is known");
  check_shape(where, "W", w, {w.dims[0], c == -1 ? -1 : c / group, w.dims[2], w.dims[3], w.dims[4]}, because);
  if (w.dims[0] % group != 0) refuse(where, "W", text(w), "M divisible by group=" + std::to_string(group));
  check_shape(where, "B", b, {w.dims[0]}, "M of W " + text(w));
}

void check_kernel(const std::string& where, const Attributes& a, const Desc& x, const Desc& w, int t) {
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t extent = x.dims[t + axis], padding = a.pads[axis] + a.pads[axis + 3];
    // of an extent that is not known only what cannot be written down is refused
    const int64_t longest = extent == -1 ? INT32_MAX : extent + padding;
    if (reach_of(a, w, axis) > longest || padding > INT32_MAX || longest > INT32_MAX)
      refuse(where, "W", text(w), "a kernel that fits into X " + text(x) + " (pads " +
             numbers(a.pads, 6) + ", dilations " + numbers(a.dilations, 3) + ")");
  }
}

void check_conv(const OpKind& kind, const std::string& where, const Attributes& attributes, const Desc* inputs) {
  const Desc& x = inputs[X];
  const Layout at = layout_of(kind);
  check_weights(where, attributes, x.dims[at.c], x, inputs[W], inputs[B]);
  check_kernel(where, attributes, x, inputs[W], at.t);
  const std::string because = "X is " + text(x);
  check_shape(where, "frame_keep", inputs[FrameKeep], {x.dims[0], x.dims[at.t]}, because);
  check_shape(where, "channel_keep", inputs[ChannelKeep], {x.dims[0], x.dims[at.c]}, because);
  check_shape(where, "feature_keep", inputs[FeatureKeep], {x.dims[0], x.dims[at.t + 1], x.dims[at.t + 2]}, because);
  if (kind.adds) {
    const Desc y = output_desc(output_shape(kind, attributes, inputs, 0), x.type, inputs);
    check_shape(where, "Z", inputs[Z], std::vector<int64_t>(y.dims, y.dims + y.rank),
                "Y for X " + text(x) + ", W " + text(inputs[W]));
  }
}

Extent copied(int input, int axis) {
  Extent extent;
  extent.input = input, extent.axis = axis;
  return extent;
}

}  // namespace

void check_inputs(const OpKind& kind, const std::string& where, const Attributes& attributes, const Desc* inputs) {
  check_extents(where, "X", inputs[X], order(kind));
  if (kind.gate)
    check_shape(where, "tau", inputs[Tau], {inputs[X].dims[0], 3}, "N of X " + text(inputs[X]));
  else
    check_conv(kind, where, attributes, inputs);
}

OutputShape output_shape(const OpKind& kind, const Attributes& attributes, const Desc* inputs, int output) {
  const Layout at = layout_of(kind);
  OutputShape shape;
  shape.extents[0] = copied(X, 0);
  if (kind.gate) {
    shape.rank = output == 2 ? 3 : 2;
    shape.extents[1] = copied(X, output == 0 ? at.t : output == 1 ? at.c : at.t + 1);
    if (output == 2) shape.extents[2] = copied(X, at.t + 2);
    return shape;
  }
  shape.rank = 5;
  shape.extents[at.c] = copied(W, 0);
  for (int axis = 0; axis < 3; ++axis) {
    Extent& extent = shape.extents[at.t + axis];
    extent = copied(X, at.t + axis);
    extent.formula = true;
    extent.padding = attributes.pads[axis] + attributes.pads[axis + 3];
    extent.reach = reach_of(attributes, inputs[W], axis);
    extent.stride = attributes.strides[axis];
  }
  return shape;
}

Desc output_desc(const OutputShape& shape, Element type, const Desc* inputs) {
  Desc desc{type, shape.rank, {}};
  for (int i = 0; i < shape.rank; ++i) {
    const Extent& extent = shape.extents[i];
    const int64_t source = inputs[extent.input].dims[extent.axis];
    const bool computed = extent.formula && source != -1;
    desc.dims[i] = computed ? (source + extent.padding - extent.reach) / extent.stride + 1 : source;
  }
  return desc;
}

ConvGeometry conv_geometry(const OpKind& kind, const std::string& where, const Attributes& a, const Desc* inputs) {
  const Desc &x = inputs[X], &w = inputs[W];
  const Layout at = layout_of(kind);
  ConvGeometry g{};
  g.n = x.dims[0], g.c = x.dims[at.c], g.t = x.dims[at.t], g.h = x.dims[at.t + 1], g.w = x.dims[at.t + 2];
  g.m = w.dims[0], g.group = a.group;
  for (int axis = 0; axis < 3; ++axis) {
    g.kernel[axis] = w.dims[2 + axis], g.strides[axis] = a.strides[axis], g.dilations[axis] = a.dilations[axis];
    g.pads[axis] = a.pads[axis], g.pads[axis + 3] = a.pads[axis + 3];
  }
  g.channels_last = kind.channels_last;
  g.type = x.type == Element::f16 ? Type::f16 : Type::f32;
  check_kernel(where, a, x, w, at.t);
  if (!conv_out_size(g) || !conv_fits(g)) {
    const Desc y = output_desc(output_shape(kind, a, inputs, 0), x.type, inputs);
    refuse(where, "Y", text(y), "a smaller output: its pads, or X, are too large for this library");
  }
  return g;
}

}  // namespace trt
}  // namespace dance
