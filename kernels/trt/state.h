// What an engine file keeps of one plugin. One format for both API generations, with a version and a checksum.
#pragma once
#include <cstddef>

#include "attributes.h"

namespace dance {
namespace trt {

// Everything that a plugin needs at run time besides its tensors.
struct State {
  const OpKind* kind = nullptr;
  std::string node;                     // its name in the ONNX file, for messages; at most kLongestNode bytes of it
  Attributes attributes;
  bool configured = false;              // what follows is known
  Element type = Element::f32;          // of X
  int64_t multiprocessors = 0;          // of the device that the engine was built on; it decides about split sums
  // By type: bytes that the engine sets aside for a call, and bytes of packed weights. 0: not configured for that type.
  uint64_t workspace[2] = {0, 0};
  uint64_t packed[2] = {0, 0};
};

constexpr uint32_t kStateVersion = 1;
constexpr std::size_t kLongestNode = 127;
constexpr std::size_t kStateBytes = 344;

void save(const State& state, void* bytes);
// Throws Refusal where `bytes` are not what `save` wrote for an op of this kind.
State restore(const OpKind& kind, const void* bytes, std::size_t size);

}  // namespace trt
}  // namespace dance
