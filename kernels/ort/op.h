// One custom op as ONNX Runtime sees it: a name and a combination of tensor types. What is shared by gate and conv.
#pragma once
#include <memory>
#include <new>
#include <string>

#include "../cpu/costs.h"
#include "../cpu/geometry.h"
#include "../cpu/magnitudes.h"
#include "../cpu/parallel.h"
#include "../cpu/workspace.h"
#include "ort_abi.h"
#include "tensor.h"

namespace dance_ort {

struct Op : OrtCustomOp {
  const char* op_name;
  bool channels_last;
  bool adds;                             // has the input Z
  bool magnitudes;                       // conv, layout: also writes means of |Y|; gate: reads those of X
  bool counts;                           // gate: also writes how much it keeps
  ONNXTensorElementDataType float_type;  // of X and all that go with it
  ONNXTensorElementDataType mask_type;
  bool parallel;                         // ONNX Runtime has KernelContext_ParallelFor
  bool shape_reference;                  // it has GetTensorElementTypeAndShapeDataReference
  bool winograd;                         // may be chosen for a convolution
  bool bf16;                             // convolutions multiply in bfloat16 where they can
  bool weights_once;                     // constant W may be lost once it is packed
  const dance::Costs* costs;             // that convolutions are estimated by; lives as long as the op
  bool swish;                            // of what an expanding op makes
  bool clock;                            // thresholds: also writes when they were there
};

// Fills in what gate and conv ops share, with empty defaults for the rest.
void init(Op& op, const char* name, bool channels_last, ONNXTensorElementDataType float_type, bool parallel, bool magnitudes);
void init_gate(Op& op);
void init_conv(Op& op);
void init_expand_depthwise(Op& op);
void init_to_channels_last(Op& op);
void init_max_pool(Op& op);
void init_scaled_swish(Op& op);
void init_thresholds(Op& op);

// How errors begin: GatedConv3d 'layer1.0.conv1'
std::string place(const Op& op, const std::string& node);
// Throws Error: `place`: `tensor` is `came`, expected `expected`.
[[noreturn]] void refuse(const std::string& place, const std::string& tensor, const std::string& came,
                         const std::string& expected);
[[noreturn]] void refuse_shape(const std::string& place, const char* tensor, const Shape& shape, const Shape& expected,
                               const std::string& because);
// because(): the words that say why, put together only where they are needed.
template <class Because>
void check_shape(const std::string& place, const char* tensor, const Shape& shape, const Shape& expected,
                 const Because& because) {
  if (shape != expected) refuse_shape(place, tensor, shape, expected, because());
}

// Outputs 1 and 2: means of |Y| per frame and channel and per frame and pixel, where the op has them.
dance::MagnitudeOutputs magnitudes_of(const Op& op, const OrtApi* api, OrtKernelContext* context, int64_t n, int64_t frames,
                             int64_t channels, int64_t h, int64_t w);

inline dance::Type type_of(const Op& op) {
  return op.float_type == ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT ? dance::Type::f32 : dance::Type::f16;
}

// What every kernel knows; enough for ops without attributes.
struct PlainKernel {
  const Op& op;
  Api api;
  std::string where;

  PlainKernel(const Op& o, const Api& a, const OrtKernelInfo*, const std::string& place) : op(o), api(a), where(place) {}
};

// Whether a shape has that many extents, each from 1 to the largest that the kernels take.
inline bool has_extents(const Shape& shape, std::size_t rank) {
  bool good = shape.size() == rank;
  for (int64_t extent : shape) good = good && extent >= 1 && extent <= dance::kLargestExtent;
  return good;
}

// ONNX Runtime's own threads, for the time of one call; `call` must outlive the result.
struct PoolCall {
  const OrtApi* api;
  const OrtKernelContext* context;
};
dance::Parallel parallel_of(const Op& op, const OrtApi* api, const OrtKernelContext* context, PoolCall& call);

// A workspace for the time of one call; the pool is shared by all kernels of the process and emptied with the last.
class Borrowed {
 public:
  Borrowed();
  ~Borrowed();
  dance::Workspace& operator*() { return *workspace_; }

 private:
  std::unique_ptr<dance::Workspace> workspace_;
};
void kernel_created();
void kernel_destroyed();

// body() with every exception turned into a status that begins with `where`: none crosses the C border.
template <class Body>
OrtStatus* guarded(const OrtApi* api, const std::string& where, const Body& body) {
  try {
    body();
    return nullptr;
  } catch (const Error& error) {
    const bool placed = error.text.compare(0, where.size(), where) == 0;
    return ort::CreateStatus(api)(error.code, (placed ? error.text : where + ": " + error.text).c_str());
  } catch (const std::bad_alloc&) {
    return ort::CreateStatus(api)(ORT_FAIL, (where + ": out of memory").c_str());
  } catch (const std::exception& error) {
    return ort::CreateStatus(api)(ORT_RUNTIME_EXCEPTION, (where + ": " + error.what()).c_str());
  } catch (...) {
    return ort::CreateStatus(api)(ORT_RUNTIME_EXCEPTION, where.c_str());
  }
}

// How ONNX Runtime makes, runs and drops a Kernel, which has `api` and `where`, is made of (op, api, info, where) and
// computes by compute(context).
template <class Kernel>
void set_kernel(Op& op) {
  op.CreateKernelV2 = [](const OrtCustomOp* self, const OrtApi* api, const OrtKernelInfo* info, void** kernel) {
    const Op& own = *static_cast<const Op*>(self);
    std::string where = own.op_name;
    return guarded(api, where, [&] {
      where = place(own, node_name(api, info));
      *kernel = new Kernel(own, Api{api, own.shape_reference}, info, where);
      kernel_created();
    });
  };
  op.KernelComputeV2 = [](void* kernel, OrtKernelContext* context) {
    const Kernel& own = *static_cast<Kernel*>(kernel);
    return guarded(own.api, own.where, [&] { own.compute(context); });
  };
  op.KernelDestroy = [](void* kernel) {
    delete static_cast<Kernel*>(kernel);
    kernel_destroyed();
  };
}

}  // namespace dance_ort
