#include "op.h"

#include <mutex>
#include <thread>

namespace dance_ort {

namespace {

dance::WorkspacePool& pool() {
  static dance::WorkspacePool* const instance = new dance::WorkspacePool;  // outlives sessions closed at exit
  return *instance;
}

std::mutex kernels_mutex;
int kernels = 0;

const Op& as_op(const OrtCustomOp* op) { return *static_cast<const Op*>(op); }

}  // namespace

void init(Op& op, const char* name, bool channels_last, ONNXTensorElementDataType float_type, bool parallel, bool magnitudes) {
  op = Op{};
  op.version = DANCE_ORT_MIN_API;
  op.op_name = name;
  op.channels_last = channels_last;
  op.float_type = float_type;
  op.parallel = parallel;
  op.magnitudes = magnitudes;
  op.GetName = [](const OrtCustomOp* self) { return as_op(self).op_name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // CPU
  op.GetInputCharacteristic = [](const OrtCustomOp*, std::size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, std::size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, std::size_t) { return OrtMemTypeDefault; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 1; };  // there are no variadic ones
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 1; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
}

std::string place(const Op& op, const std::string& node) {
  return node.empty() ? op.op_name : op.op_name + (" '" + node + "'");
}

void refuse(const std::string& place, const std::string& tensor, const std::string& came,
            const std::string& expected) {
  throw Error{ORT_INVALID_ARGUMENT, place + ": " + tensor + " is " + came + ", expected " + expected};
}

void refuse_shape(const std::string& place, const char* tensor, const Shape& shape, const Shape& expected,
                  const std::string& because) {
  refuse(place, tensor, text(shape), text(expected) + " (" + because + ")");
}

dance::MagnitudeOutputs magnitudes_of(const Op& op, const OrtApi* api, OrtKernelContext* context, int64_t n, int64_t frames,
                             int64_t channels, int64_t h, int64_t w) {
  if (!op.magnitudes) return {};
  return {static_cast<float*>(output(api, context, 1, {n, frames, channels})),
          static_cast<float*>(output(api, context, 2, {n, frames, h, w}))};
}

dance::Parallel parallel_of(const Op& op, const OrtApi* api, const OrtKernelContext* context, PoolCall& call) {
  call = {api, context};
  static const unsigned cores = std::thread::hardware_concurrency();  // the C library asks the system each time: 5 us
  const int workers = op.parallel && cores > 1 ? int(cores) : 1;
  return {[](void* self, void (*fn)(void*, std::size_t), std::size_t total, void* arg) {
            PoolCall& pool_call = *static_cast<PoolCall*>(self);
            OrtStatus* status =
                ort::KernelContext_ParallelFor(pool_call.api)(pool_call.context, fn, total, 0, arg);
            if (!status) return;
            // a refused call has started nothing, and one worker alone can do all items
            ort::ReleaseStatus(pool_call.api)(status);
            fn(arg, 0);
          },
          &call, workers};
}

Borrowed::Borrowed() : workspace_(pool().take()) {}
Borrowed::~Borrowed() {
  try {
    pool().give_back(std::move(workspace_));
  } catch (...) {  // no memory to remember it: it is freed
  }
}

void kernel_created() {
  std::lock_guard<std::mutex> lock(kernels_mutex);
  ++kernels;
}

void kernel_destroyed() {
  std::lock_guard<std::mutex> lock(kernels_mutex);
  if (--kernels == 0) pool().clear();
}

}  // namespace dance_ort
