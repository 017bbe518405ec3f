// A node's attributes, read from the fields that TensorRT's ONNX parser makes of them.
#pragma once
#include "op.h"

namespace dance {
namespace trt {

// Names and defaults: docs/ops.md. Of a gate all stay at their defaults.
struct Attributes {
  int64_t strides[3] = {1, 1, 1};
  int64_t pads[6] = {0, 0, 0, 0, 0, 0};
  int64_t dilations[3] = {1, 1, 1};
  int64_t group = 1;
  float minimum = -3.4028234663852886e38f;
};

enum class FieldType : int { i32, i64, f32, other };
struct Field {
  const char* name;
  FieldType type;
  const void* data;
  int64_t length;  // values, not bytes
};

// One attribute that a convolution reads.
struct FieldSpec {
  const char* name;
  FieldType type;
  int length;
};
constexpr int kFieldCount = 5;
extern const FieldSpec kFields[kFieldCount];

// A missing field keeps its default, plugin_version and plugin_namespace are ignored; throws Refusal for an unknown or
// repeated name, a wrong type or length, and values out of range.
Attributes read_attributes(const OpKind& kind, const std::string& where, const std::vector<Field>& fields);
// Throws Refusal where a value is out of range.
void check_attributes(const std::string& where, const Attributes& attributes);

}  // namespace trt
}  // namespace dance
