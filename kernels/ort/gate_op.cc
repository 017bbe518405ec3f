// dance::ActivationGate and ActivationGateCl for ONNX Runtime: reads shapes, calls the kernel, translates errors.
#include "../cpu/activation_gate.h"

#include "op.h"

namespace dance_ort {
namespace {

struct GateKernel {
  const Op& op;
  const OrtApi* api;
  std::string where;

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, 0), tau = input(api, context, 1);
    dance::GateCall call = checked(x, tau);
    call.frame_keep = static_cast<uint8_t*>(output(api, context, 0, {call.n, call.t}));
    call.channel_keep = static_cast<uint8_t*>(output(api, context, 1, {call.n, call.c}));
    call.feature_keep = static_cast<uint8_t*>(output(api, context, 2, {call.n, call.h, call.w}));
    Borrowed workspace;
    PoolCall pool{};
    dance::activation_gate(call, *workspace, parallel_of(op, api, context, pool));
  }

  dance::GateCall checked(const Tensor& x, const Tensor& tau) const {
    const char* order = op.channels_last ? "[N,T,H,W,C]" : "[N,C,T,H,W]";
    bool extents = x.shape.size() == 5;
    for (int64_t extent : x.shape) extents = extents && extent >= 1;
    if (!extents) refuse(where, "X", text(x.shape), std::string(order) + " with every extent at least 1");
    const std::vector<int64_t>& s = x.shape;
    check_shape(where, "tau", tau.shape, {s[0], 3}, "N of X " + text(s));
    const int c = op.channels_last ? 4 : 1, t = op.channels_last ? 1 : 2;
    return {x.data, type_of(op), op.channels_last, s[0], s[c], s[t], s[t + 1], s[t + 2],
            static_cast<const float*>(tau.data), nullptr, nullptr, nullptr};
  }
};

OrtStatus* create(const OrtCustomOp* self, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  const Op& op = *static_cast<const Op*>(self);
  return guarded(api, op.op_name, [&] {
    *kernel = new GateKernel{op, api, place(op, node_name(api, info))};
    kernel_created();
  });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const GateKernel& gate = *static_cast<GateKernel*>(kernel);
  return guarded(gate.api, gate.where, [&] { gate.compute(context); });
}

}  // namespace

void init_gate(Op& op) {
  op.GetInputTypeCount = [](const OrtCustomOp*) { return std::size_t(2); };
  op.GetInputType = [](const OrtCustomOp* self, std::size_t index) {
    return index == 0 ? static_cast<const Op*>(self)->float_type : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) { return std::size_t(3); };
  op.GetOutputType = [](const OrtCustomOp*, std::size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* kernel) {
    delete static_cast<GateKernel*>(kernel);
    kernel_destroyed();
  };
}

}  // namespace dance_ort
