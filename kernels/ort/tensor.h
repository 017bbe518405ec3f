// Reading ONNX Runtime's values and attributes; every failure is an Error, turned into a status at the border.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "ort_abi.h"

namespace dance_ort {

struct Error {
  OrtErrorCode code;
  std::string text;
};

// Throws Error with the status' text, and releases it.
void check(const OrtApi* api, OrtStatus* status);

struct Tensor {
  void* data = nullptr;
  ONNXTensorElementDataType type = 0;
  std::vector<int64_t> shape;
};

std::string text(const std::vector<int64_t>& shape);  // [1,48,16,56,56]

Tensor tensor_of(const OrtApi* api, const OrtValue* value);
Tensor input(const OrtApi* api, const OrtKernelContext* context, std::size_t index);
void* output(const OrtApi* api, OrtKernelContext* context, std::size_t index, const std::vector<int64_t>& shape);

// The node's name, "" where it has none.
std::string node_name(const OrtApi* api, const OrtKernelInfo* info);
// False where the node lacks the attribute; throws where it is there and of another type.
bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, std::vector<int64_t>& values);
bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t& value);
bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, float& value);

}  // namespace dance_ort
