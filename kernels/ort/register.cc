// What `SessionOptions.register_custom_ops_library(path)` calls.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "../cpu/isa.h"
#include "../cpu/refused_isa.h"
#include "op.h"

namespace dance_ort {
namespace {

constexpr const char* kDomain = "dance";

// Session config entries. "0" computes every convolution directly, for the smallest rounding error.
constexpr const char* kWinogradKey = "dance.winograd";
// "bf16": convolutions multiply in bfloat16 where they can, and sum in float32; "fp32", the default: they do not.
constexpr const char* kPrecisionKey = "dance.precision";
// "1" gives the memory of W, where it is a constant, back to the system as soon as the packed copy is made, which alone is
// read from then on. W is lost: for sessions made from the bytes of a model in which nothing but our ops reads it.
constexpr const char* kWeightsOnceKey = "dance.weights_once";
// What the choice between direct and Winograd goes by on this machine, such as "in=12.5 out=20" (costs.h); what is not named,
// or all where the entry is not there, is as built in.
constexpr const char* kCostsKey = "dance.costs";

struct Wanted {
  bool winograd, bf16, weights_once;
  dance::Costs costs;
  bool operator==(const Wanted& other) const {
    return winograd == other.winograd && bf16 == other.bf16 && weights_once == other.weights_once && costs == other.costs;
  }
};

struct Library {
  const OrtApiBase* base;
  uint32_t offered;  // version of its functions
  Wanted wanted;
  OrtCustomOpDomain* domain;  // lives as long as the process: sessions keep using it
  std::vector<std::unique_ptr<Op>> ops;
};

Op& add_op(Library& library, const char* name, bool channels_last, ONNXTensorElementDataType float_type, bool parallel,
           bool magnitudes) {
  library.ops.emplace_back(new Op);
  Op& op = *library.ops.back();
  init(op, name, channels_last, float_type, parallel, magnitudes);
  op.winograd = library.wanted.winograd;
  op.bf16 = library.wanted.bf16;
  op.weights_once = library.wanted.weights_once;
  op.shape_reference = library.offered >= DANCE_ORT_SHAPE_API;
  op.costs = &library.wanted.costs;
  return op;
}

void add(Library& library, const char* name, bool channels_last, bool conv, bool adds, bool parallel, bool magnitudes = false,
         bool counts = false) {
  const ONNXTensorElementDataType floats[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16};
  const ONNXTensorElementDataType masks[] = {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT};
  for (ONNXTensorElementDataType float_type : floats)
    for (ONNXTensorElementDataType mask_type : masks) {
      if (!conv && mask_type != ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL) continue;  // a gate writes bool
      Op& op = add_op(library, name, channels_last, float_type, parallel, magnitudes);
      op.mask_type = mask_type;
      op.adds = adds;
      op.counts = counts;
      if (conv) init_conv(op); else init_gate(op);
    }
}

// Between our own ops only, and so of floats.
void add_expand_depthwise(Library& library, const char* name, bool swish, bool parallel) {
  for (ONNXTensorElementDataType mask_type : {ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT}) {
    Op& op = add_op(library, name, true, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, parallel, false);
    op.mask_type = mask_type;
    op.swish = swish;
    init_expand_depthwise(op);
  }
}

// Ops without masks.
void add_layout(Library& library, const char* name, void (*init_op)(Op&), bool parallel, bool magnitudes = false) {
  for (ONNXTensorElementDataType float_type : {ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16})
    init_op(add_op(library, name, true, float_type, parallel, magnitudes));
}

void add_thresholds(Library& library, const char* name, bool clock) {
  Op& op = add_op(library, name, true, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, false, false);
  op.clock = clock;
  init_thresholds(op);
}

void fill(Library& library, const OrtApi* api, bool parallel) {
  add(library, "ActivationGate", false, false, false, parallel);
  add(library, "ActivationGateCl", true, false, false, parallel);
  add(library, "GatedConv3d", false, true, false, parallel);
  add(library, "GatedConv3dCl", true, true, false, parallel);
  add(library, "GatedConv3dAdd", false, true, true, parallel);
  add(library, "GatedConv3dAddCl", true, true, true, parallel);
  add_layout(library, "ToChannelsLast", init_to_channels_last, parallel);
  add_layout(library, "MaxPool3dCl", init_max_pool, parallel);
  add(library, "ActivationGateCountsCl", true, false, false, parallel, false, true);
  add(library, "ActivationGateMagnitudesCl", true, false, false, parallel, true, true);
  add(library, "GatedConv3dMagnitudes", false, true, false, parallel, true);
  add(library, "GatedConv3dMagnitudesCl", true, true, false, parallel, true);
  add(library, "GatedConv3dAddMagnitudesCl", true, true, true, parallel, true);
  add_layout(library, "ToChannelsLastMagnitudes", init_to_channels_last, parallel, true);
  add_layout(library, "MaxPool3dMagnitudesCl", init_max_pool, parallel, true);
  add_layout(library, "ScaledSwishCl", init_scaled_swish, parallel);
  add_expand_depthwise(library, "ExpandDepthwiseCl", false, parallel);
  add_expand_depthwise(library, "ExpandDepthwiseSwishCl", true, parallel);
  add_thresholds(library, "Thresholds", false);
  add_thresholds(library, "ThresholdsClock", true);
  check(api, ort::CreateCustomOpDomain(api)(kDomain, &library.domain));
  for (const std::unique_ptr<Op>& op : library.ops) check(api, ort::CustomOpDomain_Add(api)(library.domain, op.get()));
}

// One domain for each copy of ONNX Runtime in the process and what a session may want.
Library& library_for(const OrtApiBase* base, const OrtApi* api, uint32_t offered, const Wanted& wanted) {
  static std::mutex mutex;
  static std::vector<std::unique_ptr<Library>>* const libraries = new std::vector<std::unique_ptr<Library>>;
  std::lock_guard<std::mutex> lock(mutex);
  for (const std::unique_ptr<Library>& library : *libraries)
    if (library->base == base && library->wanted == wanted) return *library;
  std::unique_ptr<Library> library(new Library{base, offered, wanted, nullptr, {}});
  fill(*library, api, offered >= DANCE_ORT_PARALLEL_API);
  libraries->push_back(std::move(library));
  return *libraries->back();
}

// Sets `value` and returns true where the entry `key` is there. Entries must be there before the library is registered: this
// is when they are read.
bool has_entry(const OrtApi* api, const OrtSessionOptions* options, const char* key, std::string& value) {
  int has = 0;
  check(api, ort::HasSessionConfigEntry(api)(options, key, &has));
  if (!has) return false;
  std::size_t size = 0;
  check(api, ort::GetSessionConfigEntry(api)(options, key, nullptr, &size));
  value.assign(size, '\0');  // with the final zero
  check(api, ort::GetSessionConfigEntry(api)(options, key, &value[0], &size));
  value.resize(std::strlen(value.c_str()));
  return true;
}

// Whether the entry `key` is `yes`, or, where it is not there, whether `yes` is the default; any value but `yes` and `no` is
// refused.
bool wants(const OrtApi* api, const OrtSessionOptions* options, const char* key, const char* yes, const char* no,
           bool by_default, const char* expected) {
  std::string value;
  if (!has_entry(api, options, key, value)) return by_default;
  if (value == yes || value == no) return value == yes;
  throw Error{ORT_INVALID_ARGUMENT, std::string("dance ops: session config entry ") + key + " is '" + value +
                                        "', expected " + expected};
}

dance::Costs costs_wanted(const OrtApi* api, const OrtSessionOptions* options) {
  std::string value;
  dance::Costs costs;
  if (!has_entry(api, options, kCostsKey, value)) return costs;
  const std::string wrong = dance::read_costs(value.c_str(), costs);
  if (!wrong.empty())
    throw Error{ORT_INVALID_ARGUMENT, std::string("dance ops: session config entry ") + kCostsKey + ": " + wrong};
  return costs;
}

Wanted wanted_by(const OrtApi* api, const OrtSessionOptions* options) {
  const Wanted wanted{wants(api, options, kWinogradKey, "1", "0", true, "0 (every convolution directly) or 1"),
                      wants(api, options, kPrecisionKey, "bf16", "fp32", false, "fp32 or bf16"),
                      wants(api, options, kWeightsOnceKey, "1", "0", false, "0 or 1"), costs_wanted(api, options)};
  const std::string refusal = dance::isa_refusal();
  if (!refusal.empty()) throw Error{ORT_INVALID_ARGUMENT, "dance ops: " + refusal};
  if (wanted.bf16 && !dance::bf16_offered())
    throw Error{ORT_NOT_IMPLEMENTED, std::string("dance ops: session config entry ") + kPrecisionKey + " is 'bf16', but " +
                                         "this processor, or this build of the library, has no AVX512-BF16; expected fp32"};
  return wanted;
}

// Minor version of "1.31.1"; 0 where it reads otherwise.
uint32_t api_version(const char* version) {
  char* rest = nullptr;
  const long major = std::strtol(version, &rest, 10);
  if (major != 1 || !rest || *rest != '.') return major > 1 ? DANCE_ORT_SHAPE_API : 0;
  return uint32_t(std::strtol(rest + 1, nullptr, 10));
}

}  // namespace
}  // namespace dance_ort

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const OrtApiBase* base) {
  const uint32_t offered = dance_ort::api_version(base->GetVersionString());
  const OrtApi* api = offered >= DANCE_ORT_MIN_API ? base->GetApi(std::min<uint32_t>(offered, DANCE_ORT_SHAPE_API)) : nullptr;
  if (!api) {
    const std::string text = std::string("dance ops: ONNX Runtime is ") + base->GetVersionString() + ", expected 1." +
                             std::to_string(DANCE_ORT_MIN_API) + " or newer; without this library the model's own functions run";
    return ort::CreateStatus(base->GetApi(1))(ORT_NOT_IMPLEMENTED, text.c_str());
  }
  return dance_ort::guarded(api, "dance ops", [&] {
    dance_ort::Library& library = dance_ort::library_for(base, api, offered, dance_ort::wanted_by(api, options));
    dance_ort::check(api, ort::AddCustomOpDomain(api)(options, library.domain));
  });
}
