// dance::GatedConv3d, GatedConv3dAdd and their channels-last forms for ONNX Runtime: reads attributes, checks shapes,
// calls the kernel, translates errors.
#include "../cpu/gated_conv3d.h"

#include "conv_shape.h"
#include "op.h"

namespace dance_ort {
namespace {

enum Input { X, W, B, FrameKeep, ChannelKeep, FeatureKeep, Z };

struct ConvKernel : ConvShape {
  const Op& op;
  float minimum = kMinimumDefault;
  Constant w;

  ConvKernel(const Op& o, const Api& a, const OrtKernelInfo* info, const std::string& place)
      : ConvShape(a, info, place, type_of(o), o.channels_last), op(o), w(a, info, W) {
    attribute(api, info, "min", minimum);
  }

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, X), weights = input(api, context, W), b = input(api, context, B);
    const Tensor frame = input(api, context, FrameKeep), channel = input(api, context, ChannelKeep),
                 feature = input(api, context, FeatureKeep);
    dance::ConvCall call{};
    call.geometry = geometry({"X", x.shape}, {"W", weights.shape}, {"B", b.shape});
    const dance::ConvGeometry& g = call.geometry;
    check_masks(g, x.shape, frame.shape, channel.shape, feature.shape);
    if (op.adds) {
      const Tensor z = input(api, context, Z);
      check_shape(where, "Z", z.shape, y_shape(g),
                  [&] { return "Y for X " + text(x.shape) + ", W " + text(weights.shape); });
      call.z = z.data;
    }
    call.x = x.data, call.w = weights.data, call.b = b.data;
    call.packed = w.packed(g, weights.data, op.bf16, op.weights_once);
    call.frame_keep = frame.data, call.channel_keep = channel.data, call.feature_keep = feature.data;
    call.mask_type = op.mask_type == ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL ? dance::MaskType::byte : dance::MaskType::f32;
    call.minimum = minimum;
    call.variant = op.winograd ? dance::Variant::automatic : dance::Variant::direct;
    call.costs = op.costs;
    call.bf16 = op.bf16;
    call.y = output(api, context, 0, y_shape(g));
    call.magnitudes = magnitudes_of(op, api, context, g.n, g.out[0], g.m, g.out[1], g.out[2]);
    Borrowed workspace;
    PoolCall pool{};
    dance::gated_conv3d(call, *workspace, parallel_of(op, api, context, pool));
  }
};

}  // namespace

void init_conv(Op& op) {
  op.GetInputTypeCount = [](const OrtCustomOp* self) { return std::size_t(static_cast<const Op*>(self)->adds ? 7 : 6); };
  op.GetInputType = [](const OrtCustomOp* self, std::size_t index) {
    const Op& conv = *static_cast<const Op*>(self);
    return index >= FrameKeep && index <= FeatureKeep ? conv.mask_type : conv.float_type;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp* self) { return std::size_t(static_cast<const Op*>(self)->magnitudes ? 3 : 1); };
  op.GetOutputType = [](const OrtCustomOp* self, std::size_t index) {
    return index == 0 ? static_cast<const Op*>(self)->float_type : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  set_kernel<ConvKernel>(op);
}

}  // namespace dance_ort
