#include "conv_shape.h"

#include <map>

namespace dance_ort {
namespace {

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

}  // namespace

ConvShape::ConvShape(const Api& a, const OrtKernelInfo* info, const std::string& place, dance::Type type, bool channels_last)
    : api(a), where(place) {
  attributes.type = type;
  attributes.channels_last = channels_last;
  integers(info, "strides", 3, 1, 1, attributes.strides);
  integers(info, "pads", 6, 0, 0, attributes.pads);
  integers(info, "dilations", 3, 1, 1, attributes.dilations);
  attributes.group = 1;
  attribute(api, info, "group", attributes.group);
  in_range("group", {attributes.group}, 1, 1);
}

void ConvShape::in_range(const char* name, const std::vector<int64_t>& values, std::size_t count, int64_t least) const {
  bool good = values.size() == count;
  for (int64_t value : values) good = good && value >= least && value <= dance::kLargestExtent;
  if (!good)
    refuse(where, name, text(values), std::to_string(count) + " integer(s), each at least " + std::to_string(least) +
           " and at most " + std::to_string(dance::kLargestExtent));
}

void ConvShape::integers(const OrtKernelInfo* info, const char* name, std::size_t count, int64_t least, int64_t standard,
                         int64_t* out) const {
  std::vector<int64_t> values(count, standard);
  attribute(api, info, name, values);
  in_range(name, values, count, least);
  for (std::size_t i = 0; i < count; ++i) out[i] = values[i];
}

dance::ConvGeometry ConvShape::geometry(const Shaped& x, const Shaped& w, const Shaped& b) const {
  dance::ConvGeometry g = attributes;
  const auto axes = [&](const Shaped& tensor, const std::string& expected) {
    refuse(where, tensor.name, text(tensor.shape), expected + " with every extent at least 1");
  };
  if (!has_extents(x.shape, 5)) axes(x, g.channels_last ? "[N,T,H,W,C]" : "[N,C,T,H,W]");
  const int c = g.channels_last ? 4 : 1, t = g.channels_last ? 1 : 2;
  g.n = x.shape[0], g.c = x.shape[c], g.t = x.shape[t], g.h = x.shape[t + 1], g.w = x.shape[t + 2];
  const auto of = [](const Shaped& tensor) { return tensor.name + (" " + text(tensor.shape)); };
  const auto because = [&] { return "C=" + std::to_string(g.c) + " of " + of(x) + ", group=" + std::to_string(g.group); };
  if (g.c % g.group != 0) refuse(where, x.name, text(x.shape), "C divisible by group=" + std::to_string(g.group));
  if (!has_extents(w.shape, 5)) axes(w, "[M," + std::to_string(g.c / g.group) + ",kT,kH,kW] (" + because() + ")");
  g.m = w.shape[0];
  check_shape(where, w.name, w.shape, {g.m, g.c / g.group, w.shape[2], w.shape[3], w.shape[4]}, because);
  if (g.m % g.group != 0) refuse(where, w.name, text(w.shape), "M divisible by group=" + std::to_string(g.group));
  check_shape(where, b.name, b.shape, {g.m}, [&] { return "M of " + of(w); });
  for (int axis = 0; axis < 3; ++axis) g.kernel[axis] = w.shape[2 + axis];
  if (!dance::conv_out_size(g))
    refuse(where, w.name, text(w.shape), "a kernel that fits into " + of(x) + " (pads " + text(Shape(g.pads, g.pads + 6)) +
           ", dilations " + text(Shape(g.dilations, g.dilations + 3)) + ")");
  if (!dance::conv_fits(g))
    refuse(where, "Y", text(y_shape(g)), std::string("a smaller output: its pads, or ") + x.name +
           ", are too large for this machine");
  return g;
}

void ConvShape::check_masks(const dance::ConvGeometry& g, const Shape& x, const Shape& frame, const Shape& channel,
                            const Shape& feature) const {
  const auto because = [&] { return "X is " + text(x); };
  check_shape(where, "frame_keep", frame, {g.n, g.t}, because);
  check_shape(where, "channel_keep", channel, {g.n, g.c}, because);
  check_shape(where, "feature_keep", feature, {g.n, g.h, g.w}, because);
}

Shape ConvShape::y_shape(const dance::ConvGeometry& g) const {
  if (g.channels_last) return {g.n, g.out[0], g.out[1], g.out[2], g.m};
  return {g.n, g.m, g.out[0], g.out[1], g.out[2]};
}

Constant::Constant(const Api& api, const OrtKernelInfo* info, std::size_t input) {
  int is_constant = 0;
  const OrtValue* value = nullptr;
  check(api, ort::KernelInfoGetConstantInput_tensor(api)(info, input, &is_constant, &value));
  if (is_constant && value) data_ = tensor_of(api, value).data;
  if (data_) readers().add(data_);
}

Constant::~Constant() {
  if (data_) readers().remove(data_);
}

const dance::PackedWeights* Constant::packed(const dance::ConvGeometry& g, const void* w, bool bf16, bool weights_once) const {
  if (!data_) return nullptr;
  std::call_once(once_, [&] { packed_.pack(g, dance::isa_current(), w, bf16, weights_once && readers().alone(data_)); });
  return &packed_;
}

}  // namespace dance_ort
