// The few TensorRT objects that plugins are handed, without TensorRT: dimension expressions, a logger, descriptors.
#pragma once
#include <NvInferRuntime.h>
#include <NvInferVersion.h>

#include <deque>
#include <mutex>

#include "node.h"

#if defined(TRT_MAJOR_RTX) || NV_TENSORRT_MAJOR >= 10
#define DANCE_TRT_V3 1
#endif

namespace checks {

using namespace nvinfer1;

#ifdef DANCE_TRT_V3
using Extent = int64_t;
#else
using Extent = int32_t;
#endif

class Expression final : public IDimensionExpr, public apiv::VDimensionExpr {
 public:
  explicit Expression(int64_t value) : value_(value) { IDimensionExpr::mImpl = this; }
  bool isConstant() const noexcept override { return value_ != -1; }
  Extent getConstantValue() const noexcept override { return Extent(value_); }
#ifdef DANCE_TRT_V3
  bool isSizeTensor() const noexcept override { return false; }
#endif
  int64_t value() const { return value_; }

 private:
  int64_t value_;
};

// Unknown stays unknown. A step below zero is an error of the plugin: TensorRT's extents never are.
class Builder final : public IExprBuilder, public apiv::VExprBuilder {
 public:
  Builder() { IExprBuilder::mImpl = this; }
  const IDimensionExpr* constant(Extent value) noexcept override { return make(value); }
  const IDimensionExpr* operation(DimensionOperation op, const IDimensionExpr& first,
                                  const IDimensionExpr& second) noexcept override {
    const int64_t a = static_cast<const Expression&>(first).value(), b = static_cast<const Expression&>(second).value();
    if (a == -1 || b == -1) return make(-1);
    switch (op) {
      case DimensionOperation::kSUM: return make(checked(a + b));
      case DimensionOperation::kSUB: return make(checked(a - b));
      case DimensionOperation::kFLOOR_DIV: return make(checked(a / b));
      default: std::abort();
    }
  }
#ifdef DANCE_TRT_V3
  const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) noexcept override {
    std::abort();
  }
#endif
  const Expression* make(int64_t value) {
    made_.emplace_back(value);
    return &made_.back();
  }

 private:
  static int64_t checked(int64_t value) {
    if (value < 0 || value > INT32_MAX) std::abort();
    return value;
  }
  std::deque<Expression> made_;
};

class Logger final : public ILogger {
 public:
  void log(Severity severity, const char* line) noexcept override {
    std::lock_guard<std::mutex> lock(mutex_);
    if (severity != Severity::kERROR) std::abort();
    lines.push_back(line);
  }
  std::vector<std::string> lines;

 private:
  std::mutex mutex_;
};
Logger& logger();

inline DataType data_type(Type type) {
  switch (type) {
    case Type::f32: return DataType::kFLOAT;
    case Type::f16: return DataType::kHALF;
    case Type::boolean: return DataType::kBOOL;
    default: return DataType::kINT32;
  }
}
inline Type type_of(DataType type) {
  for (Type ours : {Type::f32, Type::f16, Type::boolean})
    if (data_type(ours) == type) return ours;
  return Type::i32;
}

inline nvinfer1::Dims dims_of(const Dims& dims) {
  nvinfer1::Dims out{};
  out.nbDims = int32_t(dims.size());
  for (std::size_t i = 0; i < dims.size(); ++i) out.d[i] = Extent(dims[i]);
  return out;
}
inline PluginTensorDesc desc_of(const Tensor& tensor, bool linear = true) {
  PluginTensorDesc desc{};
  desc.dims = dims_of(tensor.dims);
  desc.type = data_type(tensor.type);
  desc.format = linear ? TensorFormat::kLINEAR : TensorFormat::kHWC8;
  desc.scale = -1.f;
  return desc;
}
inline std::vector<PluginTensorDesc> descs_of(const Tensors& tensors) {
  std::vector<PluginTensorDesc> out;
  for (const Tensor& tensor : tensors) out.push_back(desc_of(tensor));
  return out;
}
inline std::vector<DynamicPluginTensorDesc> ranges_of(const Tensors& least, const Tensors& most) {
  std::vector<DynamicPluginTensorDesc> out(most.size());
  for (std::size_t i = 0; i < most.size(); ++i) {
    out[i].desc = desc_of(most[i]);
    out[i].min = dims_of(least[i].dims);
    out[i].max = dims_of(most[i].dims);
    for (int axis = 0; axis < out[i].max.nbDims; ++axis)
      if (least[i].dims[axis] != most[i].dims[axis]) out[i].desc.dims.d[axis] = -1;
#ifdef DANCE_TRT_V3
    out[i].opt = out[i].max;
#endif
  }
  return out;
}
inline std::vector<DimsExprs> expressions_of(const std::vector<Dims>& in, Builder& builder) {
  std::vector<DimsExprs> out(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    out[i].nbDims = int32_t(in[i].size());
    for (std::size_t axis = 0; axis < in[i].size(); ++axis) out[i].d[axis] = builder.make(in[i][axis]);
  }
  return out;
}
inline Dims values_of(const DimsExprs& dims) {
  Dims out;
  for (int i = 0; i < dims.nbDims; ++i) out.push_back(static_cast<const Expression*>(dims.d[i])->value());
  return out;
}

// PluginFields that point into `fields`.
inline std::vector<PluginField> plugin_fields(const std::vector<Field>& fields) {
  std::vector<PluginField> out;
  for (const Field& f : fields) {
    const void* data = f.chars.data();
    std::size_t length = f.chars.size();
    PluginFieldType type = PluginFieldType::kCHAR;
    if (f.kind == Field::integers) data = f.ints.data(), length = f.ints.size(), type = PluginFieldType::kINT32;
    if (f.kind == Field::floats) data = f.reals.data(), length = f.reals.size(), type = PluginFieldType::kFLOAT32;
    out.emplace_back(f.name.c_str(), f.no_data ? nullptr : data, type, f.length >= 0 ? f.length : int32_t(length));
  }
  return out;
}

inline std::string field_names(const PluginFieldCollection* names) {
  std::string out;
  for (int i = 0; i < names->nbFields; ++i) out += std::string(" ") + names->fields[i].name;
  return out;
}

}  // namespace checks
