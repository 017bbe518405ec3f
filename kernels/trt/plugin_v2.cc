// TensorRT 8: IPluginV2DynamicExt. Masks are float32, bool cannot cross a plugin's border there.
// The library names no TensorRT library: it finds the one of the process when it is loaded, and registers its creators.
#include "tensorrt.h"
#ifdef DANCE_TRT_V2
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"  // from 8.5 on, without a successor before TensorRT 10
#include <dlfcn.h>

#include <cstdio>

namespace dance {
namespace trt {
namespace {

using namespace nvinfer1;

// A symbol of the TensorRT 8 in this process. Python loads it with local scope, so the libraries are asked by name too;
// the last resort is to load it.
void* runtime_symbol(const char* name) {
  if (void* symbol = dlsym(RTLD_DEFAULT, name)) return symbol;
  for (int mode : {RTLD_LAZY | RTLD_NOLOAD, RTLD_LAZY})
    for (const char* library : {"libnvinfer.so.8", "libnvinfer_lean.so.8", "libnvinfer_dispatch.so.8"})
      if (void* handle = dlopen(library, mode))  // never closed: TensorRT stays while this library does
        if (void* symbol = dlsym(handle, name)) return symbol;
  return nullptr;
}

ILogger* tensorrt_logger() {
  using GetLogger = ILogger* (*)();
  static const GetLogger get = reinterpret_cast<GetLogger>(runtime_symbol("getLogger"));
  return get ? get() : nullptr;
}

class Plugin final : public IPluginV2DynamicExt {
 public:
  explicit Plugin(const State& state) : layer_(state) {}

  // ---- what it is ----
  const char* getPluginType() const noexcept override { return layer_.kind().name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  void setPluginNamespace(const char* name) noexcept override {
    guarded(layer_.where(), 0, [&] { return namespace_ = name ? name : "", 0; });
  }
  const char* getPluginNamespace() const noexcept override { return namespace_.c_str(); }
  int32_t getNbOutputs() const noexcept override { return layer_.kind().outputs(); }

  DataType getOutputDataType(int32_t, const DataType* types, int32_t count) const noexcept override {
    return layer_.kind().gate || count < 1 ? DataType::kFLOAT : types[0];
  }

  DimsExprs getOutputDimensions(int32_t output, const DimsExprs* inputs, int32_t count,
                                IExprBuilder& builder) noexcept override {
    DimsExprs none{};
    none.nbDims = -1;
    return guarded(layer_.where(), none, [&] {
      if (output < 0 || output >= layer_.kind().outputs()) return none;
      return expressions(layer_.shape(descs_of(inputs, count).data(), count, output), inputs, builder);
    });
  }

  bool supportsFormatCombination(int32_t position, const PluginTensorDesc* tensors, int32_t inputs,
                                 int32_t outputs) noexcept override {
    return guarded(layer_.where(), false, [&] {
      if (inputs != layer_.kind().inputs() || outputs != layer_.kind().outputs()) return false;
      if (position < 0 || position >= inputs + outputs) return false;
      return layer_.supports(position, descs_of(tensors, position + 1).data(),
                             tensors[position].format == TensorFormat::kLINEAR, Element::f32);
    });
  }

  // ---- its life ----
  void configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs, const DynamicPluginTensorDesc* out,
                       int32_t outputs) noexcept override {
    guarded(layer_.where(), 0, [&] {
      const Range range = range_of(in, inputs);
      layer_.configure(range.least.data(), range.most.data(), inputs);
      if (attached_ && outputs == layer_.kind().outputs()) {
        std::vector<Desc> now, results;
        for (int i = 0; i < inputs; ++i) now.push_back(desc_of(in[i].desc.dims, in[i].desc.type));
        for (int i = 0; i < outputs; ++i) results.push_back(desc_of(out[i].desc.dims, out[i].desc.type));
        layer_.prepare(now.data(), results.data());
      }
      return 0;
    });
  }

  size_t getWorkspaceSize(const PluginTensorDesc* inputs, int32_t count, const PluginTensorDesc*,
                          int32_t) const noexcept override {
    return guarded(layer_.where(), size_t(0), [&] { return layer_.workspace(descs_of(inputs, count).data(), count); });
  }

  int32_t initialize() noexcept override {
    return guarded(layer_.where(), 1, [&] { return layer_.reserve(), 0; });
  }
  void terminate() noexcept override {
    guarded(layer_.where(), 0, [&] { return layer_.release_reserve(), 0; });
  }
  void attachToContext(cudnnContext*, cublasContext*, IGpuAllocator*) noexcept override {
    attached_ = true;
    guarded(layer_.where(), 0, [&] { return layer_.attach(), 0; });  // enqueue refuses where this failed
  }
  void detachFromContext() noexcept override {
    attached_ = false;
    guarded(layer_.where(), 0, [&] { return layer_.detach(), 0; });
  }

  int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out, const void* const* inputs,
                  void* const* outputs, void* workspace, cudaStream_t stream) noexcept override {
    return guarded(layer_.where(), 1, [&] {
      Desc from[kMaxInputs], to[kMaxOutputs];
      for (int i = 0; i < layer_.kind().inputs(); ++i) from[i] = desc_of(in[i].dims, in[i].type);
      for (int i = 0; i < layer_.kind().outputs(); ++i) to[i] = desc_of(out[i].dims, out[i].type);
      layer_.enqueue(from, to, inputs, outputs, workspace, stream);
      return 0;
    });
  }

  size_t getSerializationSize() const noexcept override { return kStateBytes; }
  void serialize(void* buffer) const noexcept override {
    guarded(layer_.where(), 0, [&] { return save(layer_.state(), buffer), 0; });
  }
  IPluginV2DynamicExt* clone() const noexcept override {
    return guarded(layer_.where(), static_cast<Plugin*>(nullptr), [&] { return new Plugin(*this); });
  }
  void destroy() noexcept override { delete this; }

 private:
  Plugin(const Plugin& other) : IPluginV2DynamicExt(other), layer_(other.layer_), namespace_(other.namespace_) {}

  Layer layer_;
  std::string namespace_;
  bool attached_ = false;
};

class Creator final : public IPluginCreator {
 public:
  explicit Creator(const OpKind& kind) : kind_(kind), names_(kind) {}

  const char* getPluginName() const noexcept override { return kind_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const PluginFieldCollection* getFieldNames() noexcept override { return names_.get(); }
  void setPluginNamespace(const char* name) noexcept override {
    guarded(kind_.name, 0, [&] { return namespace_ = name ? name : "", 0; });
  }
  const char* getPluginNamespace() const noexcept override { return namespace_.c_str(); }

  IPluginV2* createPlugin(const char* name, const PluginFieldCollection* fields) noexcept override {
    return made([&] { return state_of(kind_, name, fields); });
  }
  IPluginV2* deserializePlugin(const char*, const void* data, size_t size) noexcept override {
    return made([&] { return restore(kind_, data, size); });
  }

 private:
  template <class MakeState>
  IPluginV2* made(const MakeState& make_state) noexcept {
    return guarded(kind_.name, static_cast<Plugin*>(nullptr), [&] {
      Plugin* plugin = new Plugin(make_state());
      plugin->setPluginNamespace(namespace_.c_str());
      return plugin;
    });
  }

  const OpKind& kind_;
  FieldNames names_;
  std::string namespace_;
};

// Why the creators cannot be registered with the TensorRT of this process, or null.
const char* register_creators() {
  using Version = int (*)();
  using Registry = IPluginRegistry* (*)();
  const Registry get = reinterpret_cast<Registry>(runtime_symbol("getPluginRegistry"));
  const Version version = reinterpret_cast<Version>(runtime_symbol("getInferLibVersion"));
  if (!get || !version) return "no TensorRT 8 in this process, none to load";
  if (version() / 1000 != NV_TENSORRT_MAJOR)
    return "the TensorRT of this process is not version 8, for which this was built";
  IPluginRegistry* registry = get();
  if (!registry) return "TensorRT gives no plugin registry";
  for (const OpKind& kind : kOps) {
    std::unique_ptr<Creator> creator(new Creator(kind));
    if (!registry->registerCreator(*creator, "")) return "a plugin of the same name is registered already";
    creator.release();  // never destroyed: TensorRT keeps a pointer to it until the process ends
  }
  return nullptr;
}

struct AtLoad {
  AtLoad() {
    const char* wrong = guarded("registering plugins", "registering failed", [] { return register_creators(); });
    if (wrong) std::fprintf(stderr, "dance plugins: not registered: %s\n", wrong);
  }
} at_load;

}  // namespace

void log_error(const char* line) noexcept {
  nvinfer1::ILogger* logger = tensorrt_logger();
  if (logger)
    logger->log(nvinfer1::ILogger::Severity::kERROR, line);
  else
    std::fprintf(stderr, "%s\n", line);
}

}  // namespace trt
}  // namespace dance
#endif
