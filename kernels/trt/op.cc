#include "op.h"

#include <algorithm>

namespace dance {
namespace trt {

const OpKind kOps[kOpCount] = {
    {"ActivationGate", true, false, false}, {"ActivationGateCl", true, false, true},
    {"GatedConv3d", false, false, false},   {"GatedConv3dCl", false, false, true},
    {"GatedConv3dAdd", false, true, false}, {"GatedConv3dAddCl", false, true, true},
};
const char* const kPluginVersion = "1";

const char* input_name(const OpKind& kind, int index) {
  static const char* const conv[kMaxInputs] = {"X", "W", "B", "frame_keep", "channel_keep", "feature_keep", "Z"};
  return kind.gate && index == Tau ? "tau" : conv[index];
}

const char* output_name(const OpKind& kind, int index) {
  static const char* const masks[kMaxOutputs] = {"frame_keep", "channel_keep", "feature_keep"};
  return kind.gate ? masks[index] : "Y";
}

const char* element_name(Element element) {
  static const char* const names[] = {"float32", "float16", "bool", "another type"};
  return names[int(element)];
}

bool operator==(const Desc& a, const Desc& b) {
  return a.type == b.type && a.rank == b.rank && std::equal(a.dims, a.dims + a.rank, b.dims);
}

std::string text(const std::vector<int64_t>& extents) {
  std::string line = "[";
  for (std::size_t i = 0; i < extents.size(); ++i)
    line += (i ? "," : "") + (extents[i] == -1 ? "?" : std::to_string(extents[i]));
  return line + "]";
}

std::string numbers(const int64_t* values, int count) {
  std::string line = "[";
  for (int i = 0; i < count; ++i) line += (i ? "," : "") + std::to_string(values[i]);
  return line + "]";
}

std::string text(const Desc& desc) { return text(std::vector<int64_t>(desc.dims, desc.dims + desc.rank)); }

void refuse(const std::string& where, const std::string& tensor, const std::string& came,
            const std::string& expected) {
  throw Refusal{where + ": " + tensor + " is " + came + ", expected " + expected};
}

std::string place(const OpKind& kind, const std::string& node) {
  return node.empty() ? std::string(kind.name) : std::string(kind.name) + " '" + node + "'";
}

}  // namespace trt
}  // namespace dance
