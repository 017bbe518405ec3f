// dance::ToChannelsLast, MaxPool3dCl and ScaledSwishCl for ONNX Runtime: read shapes, call, translate errors.
#include "../cpu/channels_last.h"

#include "op.h"

namespace dance_ort {
namespace {

void extents(const std::string& where, const Shape& shape, const char* order) {
  if (!has_extents(shape, 5)) refuse(where, "X", text(shape), std::string(order) + " with every extent at least 1");
}

struct ToChannelsLastKernel : PlainKernel {
  using PlainKernel::PlainKernel;

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, 0);
    const Shape& s = x.shape;
    extents(where, s, "[N,C,T,H,W]");
    void* y = output(api, context, 0, {s[0], s[2], s[3], s[4], s[1]});
    Borrowed workspace;
    PoolCall pool{};
    dance::to_channels_last({x.data, y, type_of(op), s[0], s[1], s[2], s[3], s[4],
                             magnitudes_of(op, api, context, s[0], s[2], s[1], s[3], s[4])},
                            *workspace, parallel_of(op, api, context, pool));
  }
};

struct MaxPoolKernel : PlainKernel {
  dance::ConvGeometry attributes{};

  MaxPoolKernel(const Op& o, const Api& a, const OrtKernelInfo* info, const std::string& place)
      : PlainKernel(o, a, info, place) {
    attributes.type = type_of(op);
    attributes.channels_last = true;
    attributes.group = 1;
    for (int64_t& dilation : attributes.dilations) dilation = 1;
    integers(info, "kernel_shape", 3, 1, attributes.kernel);
    integers(info, "strides", 3, 1, attributes.strides);
    integers(info, "pads", 6, 0, attributes.pads);
    for (int axis = 0; axis < 6; ++axis)  // or a window could hold nothing but padding
      if (attributes.pads[axis] >= attributes.kernel[axis % 3])
        refuse(where, "pads", text(Shape(attributes.pads, attributes.pads + 6)),
               "less than kernel_shape " + text(Shape(attributes.kernel, attributes.kernel + 3)));
  }

  void integers(const OrtKernelInfo* info, const char* name, std::size_t count, int64_t least, int64_t* out) const {
    std::vector<int64_t> values;
    const bool found = attribute(api, info, name, values);
    bool good = found && values.size() == count;
    for (int64_t value : values) good = good && value >= least && value <= dance::kLargestExtent;
    if (!good)
      refuse(where, name, found ? text(values) : "missing",
             std::to_string(count) + " integers, each at least " + std::to_string(least));
    for (std::size_t i = 0; i < count; ++i) out[i] = values[i];
  }

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, 0);
    extents(where, x.shape, "[N,T,H,W,C]");
    dance::MaxPoolCall call{x.data, nullptr, attributes, {}};
    dance::ConvGeometry& g = call.geometry;
    g.n = x.shape[0], g.t = x.shape[1], g.h = x.shape[2], g.w = x.shape[3], g.c = g.m = x.shape[4];
    if (!dance::conv_out_size(g) || !dance::conv_fits(g))
      refuse(where, "kernel_shape", text(Shape(g.kernel, g.kernel + 3)), "a window that fits into X " + text(x.shape));
    call.y = output(api, context, 0, {g.n, g.out[0], g.out[1], g.out[2], g.c});
    call.magnitudes = magnitudes_of(op, api, context, g.n, g.out[0], g.c, g.out[1], g.out[2]);
    Borrowed workspace;
    PoolCall pool{};
    dance::max_pool3d(call, *workspace, parallel_of(op, api, context, pool));
  }
};

struct ScaledSwishKernel : PlainKernel {
  using PlainKernel::PlainKernel;

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, 0), scale = input(api, context, 1);
    const Shape& s = x.shape;
    extents(where, s, "[N,T,H,W,C]");
    check_shape(where, "S", scale.shape, {s[0], 1, 1, 1, s[4]}, [&] { return "X is " + text(s); });
    void* y = output(api, context, 0, s);
    Borrowed workspace;
    PoolCall pool{};
    dance::scaled_swish({x.data, scale.data, y, type_of(op), s[0], s[1] * s[2] * s[3], s[4]}, *workspace,
                        parallel_of(op, api, context, pool));
  }
};

template <class Kernel>
void init(Op& op) {
  op.GetInputTypeCount = [](const OrtCustomOp*) { return std::size_t(1); };
  op.GetInputType = [](const OrtCustomOp* self, std::size_t) { return static_cast<const Op*>(self)->float_type; };
  op.GetOutputTypeCount = [](const OrtCustomOp* self) { return std::size_t(static_cast<const Op*>(self)->magnitudes ? 3 : 1); };
  op.GetOutputType = [](const OrtCustomOp* self, std::size_t index) {
    return index == 0 ? static_cast<const Op*>(self)->float_type : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  set_kernel<Kernel>(op);
}

}  // namespace

void init_to_channels_last(Op& op) { init<ToChannelsLastKernel>(op); }
void init_max_pool(Op& op) { init<MaxPoolKernel>(op); }
void init_scaled_swish(Op& op) {
  init<ScaledSwishKernel>(op);
  op.GetInputTypeCount = [](const OrtCustomOp*) { return std::size_t(2); };
}

}  // namespace dance_ort
