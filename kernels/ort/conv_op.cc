// dance::GatedConv3d, GatedConv3dAdd and their channels-last forms for ONNX Runtime: reads attributes, checks shapes,
// calls the kernel, translates errors.
#include "../cpu/gated_conv3d.h"

#include <map>
#include <mutex>

#include "op.h"

namespace dance_ort {
namespace {

enum Input { X, W, B, FrameKeep, ChannelKeep, FeatureKeep, Z };
constexpr float kMinimumDefault = -3.4028234663852886e38f;

// Which kernels have a constant W in common: what several read none may give away.
class Readers {
 public:
  void add(const void* w) {
    std::lock_guard<std::mutex> lock(mutex_);
    ++count_[w];
  }
  void remove(const void* w) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (--count_[w] == 0) count_.erase(w);
  }
  bool alone(const void* w) {
    std::lock_guard<std::mutex> lock(mutex_);
    return count_[w] == 1;
  }

 private:
  std::mutex mutex_;
  std::map<const void*, int> count_;
};

Readers& readers() {
  static Readers* const instance = new Readers;  // outlives sessions closed at exit
  return *instance;
}

struct ConvKernel {
  const Op& op;
  const OrtApi* api;
  std::string where;
  dance::ConvGeometry attributes{};  // strides, pads, dilations, group, type, layout
  float minimum = kMinimumDefault;
  const void* constant = nullptr;    // W, where it is a constant of the graph
  // By the first call and not at load: then the file that was loaded is still in memory, once or twice.
  mutable std::once_flag once;
  mutable dance::PackedWeights packed;

  ConvKernel(const Op& o, const OrtApi* a, const OrtKernelInfo* info, const std::string& place)
      : op(o), api(a), where(place) {
    attributes.type = type_of(op);
    attributes.channels_last = op.channels_last;
    integers(info, "strides", 3, 1, 1, attributes.strides);
    integers(info, "pads", 6, 0, 0, attributes.pads);
    integers(info, "dilations", 3, 1, 1, attributes.dilations);
    attributes.group = 1;
    attribute(api, info, "group", attributes.group);
    in_range("group", {attributes.group}, 1, 1);
    attribute(api, info, "min", minimum);
    int is_constant = 0;
    const OrtValue* value = nullptr;
    check(api, ort::KernelInfoGetConstantInput_tensor(api)(info, W, &is_constant, &value));
    if (is_constant && value) constant = tensor_of(api, value).data;
    if (constant) readers().add(constant);
  }

  ~ConvKernel() {
    if (constant) readers().remove(constant);
  }

  void in_range(const char* name, const std::vector<int64_t>& values, std::size_t count, int64_t least) const {
    bool good = values.size() == count;
    for (int64_t value : values) good = good && value >= least && value <= dance::kLargestExtent;
    if (!good)
      refuse(where, name, text(values), std::to_string(count) + " integer(s), each at least " + std::to_string(least) +
             " and at most " + std::to_string(dance::kLargestExtent));
  }

  void integers(const OrtKernelInfo* info, const char* name, std::size_t count, int64_t least, int64_t standard,
                int64_t* out) const {
    std::vector<int64_t> values(count, standard);
    attribute(api, info, name, values);
    in_range(name, values, count, least);
    for (std::size_t i = 0; i < count; ++i) out[i] = values[i];
  }

  dance::ConvGeometry geometry(const Tensor& x, const Tensor& w, const Tensor& b) const {
    dance::ConvGeometry g = attributes;
    const char* order = op.channels_last ? "[N,T,H,W,C]" : "[N,C,T,H,W]";
    extents("X", x.shape, order);
    const int c = op.channels_last ? 4 : 1, t = op.channels_last ? 1 : 2;
    g.n = x.shape[0], g.c = x.shape[c], g.t = x.shape[t], g.h = x.shape[t + 1], g.w = x.shape[t + 2];
    const std::string because = "C=" + std::to_string(g.c) + " of X " + text(x.shape) + ", group=" + std::to_string(g.group);
    if (g.c % g.group != 0) refuse(where, "X", text(x.shape), "C divisible by group=" + std::to_string(g.group));
    extents("W", w.shape, ("[M," + std::to_string(g.c / g.group) + ",kT,kH,kW] (" + because + ")").c_str());
    g.m = w.shape[0];
    check_shape(where, "W", w.shape, {g.m, g.c / g.group, w.shape[2], w.shape[3], w.shape[4]}, because);
    if (g.m % g.group != 0) refuse(where, "W", text(w.shape), "M divisible by group=" + std::to_string(g.group));
    check_shape(where, "B", b.shape, {g.m}, "M of W " + text(w.shape));
    for (int axis = 0; axis < 3; ++axis) g.kernel[axis] = w.shape[2 + axis];
    if (!dance::conv_out_size(g))
      refuse(where, "W", text(w.shape), "a kernel that fits into X " + text(x.shape) + " (pads " +
             text({g.pads, g.pads + 6}) + ", dilations " + text({g.dilations, g.dilations + 3}) + ")");
    if (!dance::conv_fits(g))
      refuse(where, "Y", text(y_shape(g)), "a smaller output: its pads, or X, are too large for this machine");
    return g;
  }

  void extents(const char* tensor, const std::vector<int64_t>& shape, const std::string& expected) const {
    bool good = shape.size() == 5;
    for (int64_t extent : shape) good = good && extent >= 1 && extent <= dance::kLargestExtent;
    if (!good) refuse(where, tensor, text(shape), expected + " with every extent at least 1");
  }

  std::vector<int64_t> y_shape(const dance::ConvGeometry& g) const {
    if (op.channels_last) return {g.n, g.out[0], g.out[1], g.out[2], g.m};
    return {g.n, g.m, g.out[0], g.out[1], g.out[2]};
  }

  void compute(OrtKernelContext* context) const {
    const Tensor x = input(api, context, X), w = input(api, context, W), b = input(api, context, B);
    const Tensor frame = input(api, context, FrameKeep), channel = input(api, context, ChannelKeep),
                 feature = input(api, context, FeatureKeep);
    dance::ConvCall call{};
    call.geometry = geometry(x, w, b);
    const dance::ConvGeometry& g = call.geometry;
    const std::string because = "X is " + text(x.shape);
    check_shape(where, "frame_keep", frame.shape, {g.n, g.t}, because);
    check_shape(where, "channel_keep", channel.shape, {g.n, g.c}, because);
    check_shape(where, "feature_keep", feature.shape, {g.n, g.h, g.w}, because);
    if (op.adds) {
      const Tensor z = input(api, context, Z);
      check_shape(where, "Z", z.shape, y_shape(g), "Y for X " + text(x.shape) + ", W " + text(w.shape));
      call.z = z.data;
    }
    call.x = x.data, call.w = w.data, call.b = b.data;
    if (constant)
      std::call_once(once, [&] {
        packed.pack(g, dance::isa_current(), w.data, op.bf16, op.weights_once && readers().alone(constant));
      });
    call.packed = constant ? &packed : nullptr;
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

OrtStatus* create(const OrtCustomOp* self, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
  const Op& op = *static_cast<const Op*>(self);
  std::string where = op.op_name;
  return guarded(api, where, [&] {
    where = place(op, node_name(api, info));
    *kernel = new ConvKernel(op, api, info, where);
    kernel_created();
  });
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const ConvKernel& conv = *static_cast<ConvKernel*>(kernel);
  return guarded(conv.api, conv.where, [&] { conv.compute(context); });
}

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
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* kernel) {
    delete static_cast<ConvKernel*>(kernel);
    kernel_destroyed();
  };
}

}  // namespace dance_ort
