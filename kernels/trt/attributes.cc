#include "attributes.h"

#include <algorithm>
#include <cstring>

#include "../cpu/geometry.h"

namespace dance {
namespace trt {

const FieldSpec kFields[kFieldCount] = {{"strides", FieldType::i32, 3}, {"pads", FieldType::i32, 6},
                                        {"dilations", FieldType::i32, 3}, {"group", FieldType::i32, 1},
                                        {"min", FieldType::f32, 1}};

namespace {

const char* type_name(FieldType type) {
  static const char* const names[] = {"32-bit integers", "64-bit integers", "float32", "another type"};
  return names[int(type)];
}

const FieldSpec* spec_of(const OpKind& kind, const char* name) {
  if (kind.gate) return nullptr;
  for (const FieldSpec& spec : kFields)
    if (!std::strcmp(spec.name, name)) return &spec;
  return nullptr;
}

bool ignored(const char* name) {
  return !std::strcmp(name, "plugin_version") || !std::strcmp(name, "plugin_namespace");
}

[[noreturn]] void refuse_unknown(const OpKind& kind, const std::string& where, const char* name) {
  std::string valid = kind.gate ? "none" : "";
  for (int i = 0; !kind.gate && i < kFieldCount; ++i) valid += (i ? ", " : "") + std::string(kFields[i].name);
  throw Refusal{where + ": unknown attribute '" + name + "', expected " + valid};
}

void check_field(const std::string& where, const FieldSpec& spec, const Field& field) {
  const bool integers = spec.type == FieldType::i32;
  const bool type = field.type == spec.type || (integers && field.type == FieldType::i64);
  if (!type || field.length != spec.length || !field.data)
    refuse(where, spec.name,
           std::to_string(field.length) + " x " + type_name(field.type) + (field.data ? "" : " (no data)"),
           std::to_string(spec.length) + " x " + (integers ? "integers" : "float32"));
}

// The fields' memory need not be aligned.
int64_t integer(const Field& field, int index) {
  if (field.type == FieldType::i64) {
    int64_t value;
    std::memcpy(&value, static_cast<const char*>(field.data) + index * sizeof value, sizeof value);
    return value;
  }
  int32_t value;
  std::memcpy(&value, static_cast<const char*>(field.data) + index * sizeof value, sizeof value);
  return value;
}

void integers(const Field& field, int count, int64_t* out) {
  for (int i = 0; i < count; ++i) out[i] = integer(field, i);
}

void in_range(const std::string& where, const char* name, const int64_t* values, int count, int64_t least) {
  for (int i = 0; i < count; ++i)
    if (values[i] < least || values[i] > INT32_MAX)
      refuse(where, name, numbers(values, count),
             std::to_string(count) + " integer(s), each at least " + std::to_string(least) + " and at most " +
                 std::to_string(INT32_MAX));
}

}  // namespace

void check_attributes(const std::string& where, const Attributes& attributes) {
  in_range(where, "strides", attributes.strides, 3, 1);
  in_range(where, "pads", attributes.pads, 6, 0);
  in_range(where, "dilations", attributes.dilations, 3, 1);
  in_range(where, "group", &attributes.group, 1, 1);
  if (attributes.minimum != attributes.minimum) refuse(where, "min", "NaN", "a number");
}

Attributes read_attributes(const OpKind& kind, const std::string& where, const std::vector<Field>& fields) {
  Attributes out;
  std::vector<std::string> seen;
  for (const Field& field : fields) {
    if (!field.name) throw Refusal{where + ": an attribute without a name"};
    if (ignored(field.name)) continue;
    const FieldSpec* spec = spec_of(kind, field.name);
    if (!spec) refuse_unknown(kind, where, field.name);
    if (std::find(seen.begin(), seen.end(), field.name) != seen.end())
      throw Refusal{where + ": attribute '" + field.name + "' is given twice"};
    seen.push_back(field.name);
    check_field(where, *spec, field);
    const std::string name = field.name;
    if (name == "strides") integers(field, 3, out.strides);
    if (name == "pads") integers(field, 6, out.pads);
    if (name == "dilations") integers(field, 3, out.dilations);
    if (name == "group") integers(field, 1, &out.group);
    if (name == "min") std::memcpy(&out.minimum, field.data, sizeof out.minimum);
  }
  check_attributes(where, out);
  return out;
}

}  // namespace trt
}  // namespace dance
