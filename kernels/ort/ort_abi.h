// The part of ONNX Runtime's C ABI that this library uses, declared by us so that building needs no ONNX Runtime
// headers (its Python wheel has none). The ABI only grows: functions are slots of a table whose positions never
// change, and OrtCustomOp is read only as far as its `version` says.
//
// The lists below are compared with the official onnxruntime_c_api.h, slot by slot and signature by signature, by
// tests/kernels/test_ort_abi.py where that header is installed.
#pragma once
#include <cstddef>
#include <cstdint>

// OrtCustomOp as of this version: the first that returns a status from Create and Compute instead of throwing.
#define DANCE_ORT_MIN_API 16
// The first version with KernelContext_ParallelFor; below it, kernels run on the calling thread.
#define DANCE_ORT_PARALLEL_API 17
// The first version of which it is certain that it has GetTensorElementTypeAndShapeDataReference; below it, shapes take longer.
#define DANCE_ORT_SHAPE_API 25

// name, slot, result, arguments
#define DANCE_ORT_SLOTS(X)                                                                                            \
  X(CreateStatus, 0, OrtStatus*, (OrtErrorCode, const char*))                                                         \
  X(GetErrorMessage, 2, const char*, (const OrtStatus*))                                                              \
  X(CreateCustomOpDomain, 26, OrtStatus*, (const char*, OrtCustomOpDomain**))                                         \
  X(CustomOpDomain_Add, 27, OrtStatus*, (OrtCustomOpDomain*, const OrtCustomOp*))                                     \
  X(AddCustomOpDomain, 28, OrtStatus*, (OrtSessionOptions*, OrtCustomOpDomain*))                                      \
  X(GetTensorMutableData, 51, OrtStatus*, (OrtValue*, void**))                                                        \
  X(GetDimensionsCount, 61, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, size_t*))                                  \
  X(GetDimensions, 62, OrtStatus*, (const OrtTensorTypeAndShapeInfo*, int64_t*, size_t))                              \
  X(GetTensorTypeAndShape, 65, OrtStatus*, (const OrtValue*, OrtTensorTypeAndShapeInfo**))                            \
  X(KernelInfoGetAttribute_float, 85, OrtStatus*, (const OrtKernelInfo*, const char*, float*))                        \
  X(KernelInfoGetAttribute_int64, 86, OrtStatus*, (const OrtKernelInfo*, const char*, int64_t*))                      \
  X(KernelContext_GetInput, 90, OrtStatus*, (const OrtKernelContext*, size_t, const OrtValue**))                      \
  X(KernelContext_GetOutput, 91, OrtStatus*, (OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**))         \
  X(ReleaseStatus, 93, void, (OrtStatus*))                                                                            \
  X(ReleaseValue, 96, void, (OrtValue*))                                                                              \
  X(ReleaseTensorTypeAndShapeInfo, 99, void, (OrtTensorTypeAndShapeInfo*))                                            \
  X(KernelInfoGetAttributeArray_int64, 163, OrtStatus*, (const OrtKernelInfo*, const char*, int64_t*, size_t*))       \
  X(HasSessionConfigEntry, 237, OrtStatus*, (const OrtSessionOptions*, const char*, int*))                            \
  X(GetSessionConfigEntry, 238, OrtStatus*, (const OrtSessionOptions*, const char*, char*, size_t*))                  \
  X(KernelInfo_GetNodeName, 244, OrtStatus*, (const OrtKernelInfo*, char*, size_t*))                                  \
  X(KernelInfoGetConstantInput_tensor, 249, OrtStatus*, (const OrtKernelInfo*, size_t, int*, const OrtValue**))       \
  X(KernelContext_ParallelFor, 274, OrtStatus*,                                                                       \
    (const OrtKernelContext*, void (*)(void*, size_t), size_t, size_t, void*))                                        \
  X(GetTensorElementTypeAndShapeDataReference, 414, OrtStatus*,                                                       \
    (const OrtValue*, ONNXTensorElementDataType*, const int64_t**, size_t*))

// field, result, arguments; in the struct's order, after `uint32_t version`
#define DANCE_ORT_CUSTOM_OP(X)                                                                                        \
  X(CreateKernel, void*, (const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*))                                   \
  X(GetName, const char*, (const OrtCustomOp*))                                                                       \
  X(GetExecutionProviderType, const char*, (const OrtCustomOp*))                                                      \
  X(GetInputType, ONNXTensorElementDataType, (const OrtCustomOp*, size_t))                                            \
  X(GetInputTypeCount, size_t, (const OrtCustomOp*))                                                                  \
  X(GetOutputType, ONNXTensorElementDataType, (const OrtCustomOp*, size_t))                                           \
  X(GetOutputTypeCount, size_t, (const OrtCustomOp*))                                                                 \
  X(KernelCompute, void, (void*, OrtKernelContext*))                                                                  \
  X(KernelDestroy, void, (void*))                                                                                     \
  X(GetInputCharacteristic, OrtCustomOpInputOutputCharacteristic, (const OrtCustomOp*, size_t))                       \
  X(GetOutputCharacteristic, OrtCustomOpInputOutputCharacteristic, (const OrtCustomOp*, size_t))                      \
  X(GetInputMemoryType, OrtMemType, (const OrtCustomOp*, size_t))                                                     \
  X(GetVariadicInputMinArity, int, (const OrtCustomOp*))                                                              \
  X(GetVariadicInputHomogeneity, int, (const OrtCustomOp*))                                                           \
  X(GetVariadicOutputMinArity, int, (const OrtCustomOp*))                                                             \
  X(GetVariadicOutputHomogeneity, int, (const OrtCustomOp*))                                                          \
  X(CreateKernelV2, OrtStatus*, (const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*, void**))                    \
  X(KernelComputeV2, OrtStatus*, (void*, OrtKernelContext*))

// enum, name, value
#define DANCE_ORT_ENUMS(X)                                                                                            \
  X(OrtErrorCode, ORT_FAIL, 1)                                                                                        \
  X(OrtErrorCode, ORT_INVALID_ARGUMENT, 2)                                                                            \
  X(OrtErrorCode, ORT_RUNTIME_EXCEPTION, 6)                                                                           \
  X(OrtErrorCode, ORT_NOT_IMPLEMENTED, 9)                                                                             \
  X(ONNXTensorElementDataType, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 1)                                                \
  X(ONNXTensorElementDataType, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 7)                                                \
  X(ONNXTensorElementDataType, ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL, 9)                                                 \
  X(ONNXTensorElementDataType, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16, 10)                                             \
  X(OrtCustomOpInputOutputCharacteristic, INPUT_OUTPUT_REQUIRED, 0)                                                   \
  X(OrtMemType, OrtMemTypeDefault, 0)

#ifndef DANCE_ORT_OFFICIAL_HEADER  // the test compiles the lists against the official declarations instead

struct OrtStatus;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;
struct OrtValue;
struct OrtTensorTypeAndShapeInfo;
typedef int OrtErrorCode;  // C enums: plain ints at this border
typedef int ONNXTensorElementDataType;
typedef int OrtCustomOpInputOutputCharacteristic;
typedef int OrtMemType;

#define DANCE_ORT_VALUE(type, name, value) constexpr type name = value;
DANCE_ORT_ENUMS(DANCE_ORT_VALUE)
#undef DANCE_ORT_VALUE

struct OrtApi {
  void* slots[1];  // as many as the version has
};

struct OrtApiBase {
  const OrtApi* (*GetApi)(uint32_t version);  // null where the library is older
  const char* (*GetVersionString)(void);      // "1.31.1"
};

struct OrtCustomOp {
  uint32_t version;
#define DANCE_ORT_FIELD(name, result, arguments) result(*name) arguments;
  DANCE_ORT_CUSTOM_OP(DANCE_ORT_FIELD)
#undef DANCE_ORT_FIELD
};

// ort::CreateStatus(api) is the function itself, typed.
namespace ort {
#define DANCE_ORT_FUNCTION(name, slot, result, arguments)                                    \
  inline auto name(const OrtApi* api)->result(*) arguments {                                 \
    typedef result(*Function) arguments;                                                     \
    return reinterpret_cast<Function>(const_cast<void*>(static_cast<void* const*>(api->slots)[slot])); \
  }
DANCE_ORT_SLOTS(DANCE_ORT_FUNCTION)
#undef DANCE_ORT_FUNCTION
}  // namespace ort

#endif  // DANCE_ORT_OFFICIAL_HEADER
