// dance::ActivationGate, ActivationGateCl, ActivationGateCountsCl and ActivationGateMagnitudesCl for ONNX Runtime: reads
// shapes, calls the kernel, translates errors.
#include "../cpu/activation_gate.h"

#include "op.h"

namespace dance_ort {
namespace {

struct GateKernel : PlainKernel {
  using PlainKernel::PlainKernel;

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, 0), tau = input(api, context, 1);
    dance::GateCall call = checked(x, tau);
    call.frame_keep = static_cast<uint8_t*>(output(api, context, 0, {call.n, call.t}));
    call.channel_keep = static_cast<uint8_t*>(output(api, context, 1, {call.n, call.c}));
    call.feature_keep = static_cast<uint8_t*>(output(api, context, 2, {call.n, call.h, call.w}));
    if (op.magnitudes) take_magnitudes(context, x, call);
    if (op.counts) call.kept = static_cast<int64_t*>(output(api, context, 3, {call.n, 3}));
    Borrowed workspace;
    PoolCall pool{};
    dance::activation_gate(call, *workspace, parallel_of(op, api, context, pool));
  }

  void take_magnitudes(OrtKernelContext* context, const Tensor& x, dance::GateCall& call) const {
    const Tensor by_channel = input(api, context, 2), by_pixel = input(api, context, 3);
    const auto because = [&] { return "X is " + text(x.shape); };
    check_shape(where, "channel_magnitude", by_channel.shape, {call.n, call.t, call.c}, because);
    check_shape(where, "pixel_magnitude", by_pixel.shape, {call.n, call.t, call.h, call.w}, because);
    call.channel_magnitude = static_cast<const float*>(by_channel.data);
    call.pixel_magnitude = static_cast<const float*>(by_pixel.data);
  }

  dance::GateCall checked(const Tensor& x, const Tensor& tau) const {
    const char* order = op.channels_last ? "[N,T,H,W,C]" : "[N,C,T,H,W]";
    bool extents = x.shape.size() == 5;
    for (int64_t extent : x.shape) extents = extents && extent >= 1;
    if (!extents) refuse(where, "X", text(x.shape), std::string(order) + " with every extent at least 1");
    const Shape& s = x.shape;
    check_shape(where, "tau", tau.shape, {s[0], 3}, [&] { return "N of X " + text(s); });
    const int c = op.channels_last ? 4 : 1, t = op.channels_last ? 1 : 2;
    return {x.data, type_of(op), op.channels_last, s[0], s[c], s[t], s[t + 1], s[t + 2],
            static_cast<const float*>(tau.data), nullptr, nullptr, nullptr, nullptr, nullptr, nullptr};
  }
};

}  // namespace

void init_gate(Op& op) {
  op.GetInputTypeCount = [](const OrtCustomOp* self) { return std::size_t(static_cast<const Op*>(self)->magnitudes ? 4 : 2); };
  op.GetInputType = [](const OrtCustomOp* self, std::size_t index) {
    return index == 0 ? static_cast<const Op*>(self)->float_type : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp* self) { return std::size_t(static_cast<const Op*>(self)->counts ? 4 : 3); };
  op.GetOutputType = [](const OrtCustomOp*, std::size_t index) {
    return index < 3 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  };
  set_kernel<GateKernel>(op);
}

}  // namespace dance_ort
