// dance::ExpandDepthwiseCl and ExpandDepthwiseSwishCl for ONNX Runtime: reads attributes, checks shapes, calls,
// translates errors.
#include "../cpu/expand_depthwise.h"

#include "conv_shape.h"
#include "op.h"

namespace dance_ort {
namespace {

enum Input { X, W, B, FrameKeep, ChannelKeep, FeatureKeep, DepthwiseW, DepthwiseB };

struct ExpandKernel : ConvShape {  // attributes: of the depthwise convolution
  const Op& op;
  float minimum = kMinimumDefault, depthwise_minimum = kMinimumDefault;
  Constant w, depthwise_w;

  ExpandKernel(const Op& o, const Api& a, const OrtKernelInfo* info, const std::string& place)
      : ConvShape(a, info, place, dance::Type::f32, true), op(o), w(a, info, W), depthwise_w(a, info, DepthwiseW) {
    attribute(api, info, "min", minimum);
    attribute(api, info, "depthwise_min", depthwise_minimum);
  }

  // Of the 1x1x1 convolution, which has no attributes of its own.
  dance::ConvGeometry expansion(const Tensor& x, const Tensor& weights, const Tensor& b) const {
    ConvShape plain = *this;
    for (int64_t& pad : plain.attributes.pads) pad = 0;
    for (int axis = 0; axis < 3; ++axis) plain.attributes.strides[axis] = plain.attributes.dilations[axis] = 1;
    plain.attributes.group = 1;
    const dance::ConvGeometry g = plain.geometry({"X", x.shape}, {"W", weights.shape}, {"B", b.shape});
    check_shape(where, "W", weights.shape, {g.m, g.c, 1, 1, 1}, [] { return "a 1x1x1 kernel"; });
    return g;
  }

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, X), weights = input(api, context, W), b = input(api, context, B);
    const Tensor frame = input(api, context, FrameKeep), channel = input(api, context, ChannelKeep),
                 feature = input(api, context, FeatureKeep);
    const Tensor taps = input(api, context, DepthwiseW), depthwise_b = input(api, context, DepthwiseB);
    dance::ExpandDepthwiseCall call{};
    call.expand.geometry = expansion(x, weights, b);
    const dance::ConvGeometry& g = call.expand.geometry;
    check_masks(g, x.shape, frame.shape, channel.shape, feature.shape);
    const Shape map{g.n, g.t, g.h, g.w, g.m};
    call.depthwise.geometry = geometry({"the expanded X", map}, {"depthwise_W", taps.shape}, {"depthwise_B", depthwise_b.shape});
    const dance::ConvGeometry& d = call.depthwise.geometry;
    if (d.group != g.m || d.m != g.m)
      refuse(where, "depthwise_W", text(taps.shape) + " with group=" + std::to_string(d.group),
             text(Shape{g.m, 1, d.kernel[0], d.kernel[1], d.kernel[2]}) + " with group=" + std::to_string(g.m) + " (M of W)");
    call.expand.x = x.data, call.expand.w = weights.data, call.expand.b = b.data;
    call.expand.packed = w.packed(g, weights.data, false, op.weights_once);
    call.expand.frame_keep = frame.data, call.expand.channel_keep = channel.data, call.expand.feature_keep = feature.data;
    call.expand.mask_type = op.mask_type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL ? dance::MaskType::byte : dance::MaskType::f32;
    call.expand.minimum = minimum;
    call.depthwise.w = taps.data, call.depthwise.b = depthwise_b.data;
    call.depthwise.packed = depthwise_w.packed(d, taps.data, false, false);
    call.depthwise.minimum = depthwise_minimum;
    call.depthwise.y = output(api, context, 0, y_shape(d));
    call.swish = op.swish;
    Borrowed workspace;
    PoolCall pool{};
    dance::expand_depthwise(call, *workspace, parallel_of(op, api, context, pool));
  }
};

}  // namespace

void init_expand_depthwise(Op& op) {
  op.GetInputTypeCount = [](const OrtCustomOp*) { return std::size_t(DepthwiseB + 1); };
  op.GetInputType = [](const OrtCustomOp* self, std::size_t index) {
    const Op& own = *static_cast<const Op*>(self);
    return index >= FrameKeep && index <= FeatureKeep ? own.mask_type : own.float_type;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return std::size_t(1); };
  op.GetOutputType = [](const OrtCustomOp* self, std::size_t) { return static_cast<const Op*>(self)->float_type; };
  set_kernel<ExpandKernel>(op);
}

}  // namespace dance_ort
