#include "tensorrt.h"

#include <algorithm>

#define DANCE_TEXT_OF(x) #x
#define DANCE_TEXT(x) DANCE_TEXT_OF(x)
#define DANCE_HEADERS DANCE_TEXT(NV_TENSORRT_MAJOR) "." DANCE_TEXT(NV_TENSORRT_MINOR) "." DANCE_TEXT(NV_TENSORRT_PATCH)

// For whoever loads the library: the API that it was built for, "2" (TensorRT 8) or "3" (10, 11, RTX), and the headers.
#ifdef DANCE_TRT_V3
#define DANCE_TRT_API "3"
#else
#define DANCE_TRT_API "2"
#endif
DANCE_TRT_EXPORT const char* dance_trt_built_for() { return "IPluginV" DANCE_TRT_API ", TensorRT " DANCE_HEADERS; }

namespace dance {
namespace trt {

using namespace nvinfer1;

Element element_of(DataType type) {
  switch (type) {
    case DataType::kFLOAT: return Element::f32;
    case DataType::kHALF: return Element::f16;
    case DataType::kBOOL: return Element::boolean;
    default: return Element::other;
  }
}

Desc desc_of(const Dims& dims, DataType type) {
  Desc desc{element_of(type), std::max(0, std::min<int>(dims.nbDims, kMaxRank)), {}};
  for (int i = 0; i < desc.rank; ++i) desc.dims[i] = dims.d[i];
  return desc;
}

std::vector<Desc> descs_of(const PluginTensorDesc* tensors, int count) {
  std::vector<Desc> out;
  for (int i = 0; i < count; ++i) out.push_back(desc_of(tensors[i].dims, tensors[i].type));
  return out;
}

std::vector<Desc> descs_of(const DimsExprs* tensors, int count) {
  std::vector<Desc> out;
  for (int i = 0; i < count; ++i) {
    Desc desc{Element::other, std::max(0, std::min<int>(tensors[i].nbDims, kMaxRank)), {}};
    for (int axis = 0; axis < desc.rank; ++axis) {
      const IDimensionExpr* extent = tensors[i].d[axis];
      desc.dims[axis] = extent && extent->isConstant() ? int64_t(extent->getConstantValue()) : -1;
    }
    out.push_back(desc);
  }
  return out;
}

Range range_of(const DynamicPluginTensorDesc* tensors, int count) {
  Range range;
  for (int i = 0; i < count; ++i) {
    const DynamicPluginTensorDesc& tensor = tensors[i];
    // outside of a profile min and max may be left empty, and desc.dims holds the shape
    const bool profile = tensor.min.nbDims == tensor.desc.dims.nbDims && tensor.max.nbDims == tensor.desc.dims.nbDims;
    range.least.push_back(desc_of(profile ? tensor.min : tensor.desc.dims, tensor.desc.type));
    range.most.push_back(desc_of(profile ? tensor.max : tensor.desc.dims, tensor.desc.type));
  }
  return range;
}

namespace {

const IDimensionExpr* extent_expression(const Extent& extent, const DimsExprs* inputs, IExprBuilder& builder) {
  const IDimensionExpr* source = inputs[extent.input].d[extent.axis];
  if (!extent.formula) return source;
  // in this order no step is below zero: Conv's (extent + padding - reach) / stride + 1
  const IDimensionExpr* padded =
      builder.operation(DimensionOperation::kSUM, *source, *builder.constant(int32_t(extent.padding)));
  const IDimensionExpr* moves =
      builder.operation(DimensionOperation::kSUB, *padded, *builder.constant(int32_t(extent.reach)));
  const IDimensionExpr* strides =
      builder.operation(DimensionOperation::kFLOOR_DIV, *moves, *builder.constant(int32_t(extent.stride)));
  return builder.operation(DimensionOperation::kSUM, *strides, *builder.constant(1));
}

FieldType field_type(PluginFieldType type) {
  switch (type) {
    case PluginFieldType::kINT32: return FieldType::i32;
    case PluginFieldType::kFLOAT32: return FieldType::f32;
#ifdef DANCE_TRT_V3
    case PluginFieldType::kINT64: return FieldType::i64;
#endif
    default: return FieldType::other;
  }
}

}  // namespace

DimsExprs expressions(const OutputShape& shape, const DimsExprs* inputs, IExprBuilder& builder) {
  DimsExprs out{};
  out.nbDims = shape.rank;
  for (int i = 0; i < shape.rank; ++i) out.d[i] = extent_expression(shape.extents[i], inputs, builder);
  return out;
}

std::vector<Field> fields_of(const PluginFieldCollection* collection) {
  std::vector<Field> out;
  for (int i = 0; collection && collection->fields && i < collection->nbFields; ++i) {
    const PluginField& field = collection->fields[i];
    out.push_back({field.name, field_type(field.type), field.data, field.length});
  }
  return out;
}

State state_of(const OpKind& kind, const char* node, const PluginFieldCollection* collection) {
  State state;
  state.kind = &kind;
  state.node = std::string(node ? node : "").substr(0, kLongestNode);
  state.attributes = read_attributes(kind, place(kind, state.node), fields_of(collection));
  return state;
}

FieldNames::FieldNames(const OpKind& kind) {
  for (int i = 0; !kind.gate && i < kFieldCount; ++i) {
    const FieldSpec& spec = kFields[i];
    const PluginFieldType type = spec.type == FieldType::f32 ? PluginFieldType::kFLOAT32 : PluginFieldType::kINT32;
    fields_.emplace_back(spec.name, nullptr, type, spec.length);
  }
  collection_.nbFields = int32_t(fields_.size());
  collection_.fields = fields_.empty() ? nullptr : fields_.data();
}

}  // namespace trt
}  // namespace dance
