// What ops with convolutions inside have in common: their attributes, the shapes that fit them, constant weights.
#pragma once
#include <mutex>
#include <string>
#include <vector>

#include "../cpu/gated_conv3d.h"
#include "op.h"

namespace dance_ort {

constexpr float kMinimumDefault = -3.4028234663852886e38f;  // of clamps: none

struct Shaped {
  const char* name;
  const Shape& shape;
};

struct ConvShape {
  Api api;
  std::string where;
  dance::ConvGeometry attributes{};  // strides, pads, dilations, group, type, layout

  // Reads the attributes; throws Error where they are none.
  ConvShape(const Api& api, const OrtKernelInfo* info, const std::string& where, dance::Type type, bool channels_last);

  // With these tensors; throws Error where one does not fit.
  dance::ConvGeometry geometry(const Shaped& x, const Shaped& w, const Shaped& b) const;
  void check_masks(const dance::ConvGeometry& g, const Shape& x, const Shape& frame, const Shape& channel,
                   const Shape& feature) const;
  Shape y_shape(const dance::ConvGeometry& g) const;

 private:
  void in_range(const char* name, const std::vector<int64_t>& values, std::size_t count, int64_t least) const;
  void integers(const OrtKernelInfo* info, const char* name, std::size_t count, int64_t least, int64_t standard,
                int64_t* out) const;
};

// Weights that may be a constant of the graph, which is packed by the first call and not at load: then the file that was loaded
// is still in memory, once or twice.
class Constant {
 public:
  Constant(const Api& api, const OrtKernelInfo* info, std::size_t input);
  ~Constant();
  Constant(const Constant&) = delete;
  Constant& operator=(const Constant&) = delete;
  // Null where w is no constant. weights_once: w may be lost where nobody else reads it.
  const dance::PackedWeights* packed(const dance::ConvGeometry& g, const void* w, bool bf16, bool weights_once) const;

 private:
  const void* data_ = nullptr;
  mutable std::once_flag once_;
  mutable dance::PackedWeights packed_;
};

}  // namespace dance_ort
