// TensorRT's types and ours: what the adaptors of both API generations share.
#pragma once
#include <NvInferRuntime.h>

#include "layer.h"

// TensorRT for RTX counts its own versions from 1; its plugin API is that of TensorRT 10 and 11.
#if defined(TRT_MAJOR_RTX) || NV_TENSORRT_MAJOR >= 10
#define DANCE_TRT_V3 1
#elif NV_TENSORRT_MAJOR == 8
#define DANCE_TRT_V2 1
#else
#error "dance plugins are written for TensorRT 8, 10, 11 and TensorRT-RTX"
#endif

#define DANCE_TRT_EXPORT extern "C" __attribute__((visibility("default")))

namespace dance {
namespace trt {

Element element_of(nvinfer1::DataType type);
Desc desc_of(const nvinfer1::Dims& dims, nvinfer1::DataType type);
std::vector<Desc> descs_of(const nvinfer1::PluginTensorDesc* tensors, int count);
// Extents that depend on the call are -1; the type is not known.
std::vector<Desc> descs_of(const nvinfer1::DimsExprs* tensors, int count);
// The least and the largest shapes of a profile.
struct Range {
  std::vector<Desc> least, most;
};
Range range_of(const nvinfer1::DynamicPluginTensorDesc* tensors, int count);

nvinfer1::DimsExprs expressions(const OutputShape& shape, const nvinfer1::DimsExprs* inputs,
                                nvinfer1::IExprBuilder& builder);

std::vector<Field> fields_of(const nvinfer1::PluginFieldCollection* collection);
// State of a new node.
State state_of(const OpKind& kind, const char* node, const nvinfer1::PluginFieldCollection* collection);

// The attributes that a creator reads, as TensorRT wants them listed.
class FieldNames {
 public:
  explicit FieldNames(const OpKind& kind);
  FieldNames(const FieldNames&) = delete;
  FieldNames& operator=(const FieldNames&) = delete;
  const nvinfer1::PluginFieldCollection* get() const { return &collection_; }

 private:
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_;
};

}  // namespace trt
}  // namespace dance
