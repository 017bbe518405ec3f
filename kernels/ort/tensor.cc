#include "tensor.h"

#include <cstring>

namespace dance_ort {

void check(const OrtApi* api, OrtStatus* status) {
  if (!status) return;
  Error error{ORT_FAIL, ort::GetErrorMessage(api)(status)};
  ort::ReleaseStatus(api)(status);
  throw error;
}

std::string text(const std::vector<int64_t>& shape) {
  std::string result = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) result += (i ? "," : "") + std::to_string(shape[i]);
  return result + "]";
}

Tensor tensor_of(const OrtApi* api, const OrtValue* value) {
  Tensor tensor;
  if (!value) throw Error{ORT_INVALID_ARGUMENT, "an input is missing, expected every input to be given"};
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, ort::GetTensorTypeAndShape(api)(value, &info));
  std::size_t rank = 0;
  OrtStatus* status = ort::GetTensorElementType(api)(info, &tensor.type);
  if (!status) status = ort::GetDimensionsCount(api)(info, &rank);
  if (!status) {
    tensor.shape.resize(rank);
    status = ort::GetDimensions(api)(info, tensor.shape.data(), rank);
  }
  ort::ReleaseTensorTypeAndShapeInfo(api)(info);
  check(api, status);
  // there is no read-only access below API 24; nothing writes through an input's pointer
  check(api, ort::GetTensorMutableData(api)(const_cast<OrtValue*>(value), &tensor.data));
  return tensor;
}

Tensor input(const OrtApi* api, const OrtKernelContext* context, std::size_t index) {
  const OrtValue* value = nullptr;
  check(api, ort::KernelContext_GetInput(api)(context, index, &value));
  return tensor_of(api, value);
}

void* output(const OrtApi* api, OrtKernelContext* context, std::size_t index, const std::vector<int64_t>& shape) {
  OrtValue* value = nullptr;
  check(api, ort::KernelContext_GetOutput(api)(context, index, shape.data(), shape.size(), &value));
  void* data = nullptr;
  check(api, ort::GetTensorMutableData(api)(value, &data));
  return data;
}

std::string node_name(const OrtApi* api, const OrtKernelInfo* info) {
  std::size_t size = 0;
  check(api, ort::KernelInfo_GetNodeName(api)(info, nullptr, &size));
  std::vector<char> name(size + 1);
  check(api, ort::KernelInfo_GetNodeName(api)(info, name.data(), &size));
  return name.data();
}

// True: found. False: no such attribute. Throws the status otherwise.
static bool found(const OrtApi* api, const char* name, OrtStatus* status) {
  if (!status) return true;
  const std::string message = ort::GetErrorMessage(api)(status);
  ort::ReleaseStatus(api)(status);
  // absence has no error code of its own, in any version
  if (message.find("No attribute") != std::string::npos) return false;
  throw Error{ORT_INVALID_ARGUMENT, std::string("attribute ") + name + ": " + message};
}

bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, std::vector<int64_t>& values) {
  std::size_t count = 0;
  if (!found(api, name, ort::KernelInfoGetAttributeArray_int64(api)(info, name, nullptr, &count))) return false;
  values.assign(count, 0);
  if (count) check(api, ort::KernelInfoGetAttributeArray_int64(api)(info, name, values.data(), &count));
  return true;
}

bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t& value) {
  return found(api, name, ort::KernelInfoGetAttribute_int64(api)(info, name, &value));
}

bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, float& value) {
  return found(api, name, ort::KernelInfoGetAttribute_float(api)(info, name, &value));
}

}  // namespace dance_ort
