// TensorRT 10, 11 and TensorRT-RTX: IPluginV3. To be loaded by IPluginRegistry::loadLibrary, which calls the two
// exported functions at the end; no TensorRT library is linked.
#include "tensorrt.h"
#ifdef DANCE_TRT_V3
#include <atomic>
#include <cstdio>

namespace dance {
namespace trt {
namespace {

using namespace nvinfer1;

// Type of the masks that a gate writes. A convolution takes bool and float32 masks either way.
#ifdef DANCE_TRT_MASK_float
constexpr Element kMask = Element::f32;
constexpr DataType kMaskType = DataType::kFLOAT;
#else
constexpr Element kMask = Element::boolean;
constexpr DataType kMaskType = DataType::kBOOL;
#endif

// The one field that an engine keeps of a plugin.
constexpr const char* kStateField = "dance_state";

std::atomic<ILoggerFinder*> logger_finder{nullptr};

class Plugin final : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime {
 public:
  explicit Plugin(const State& state) : layer_(state) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  IPluginV3* clone() noexcept override {
    return guarded(layer_.where(), static_cast<Plugin*>(nullptr), [&] { return new Plugin(*this); });
  }

  // ---- what it is ----
  const char* getPluginName() const noexcept override { return layer_.kind().name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }
  int32_t getNbOutputs() const noexcept override { return layer_.kind().outputs(); }

  int32_t getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in,
                             int32_t inputs) const noexcept override {
    if (outputs != layer_.kind().outputs() || inputs != layer_.kind().inputs()) return 1;
    for (int i = 0; i < outputs; ++i) out[i] = layer_.kind().gate ? kMaskType : in[0];
    return 0;
  }

  int32_t getOutputShapes(const DimsExprs* in, int32_t inputs, const DimsExprs*, int32_t, DimsExprs* out,
                          int32_t outputs, IExprBuilder& builder) noexcept override {
    return guarded(layer_.where(), 1, [&] {
      const std::vector<Desc> known = descs_of(in, inputs);
      if (outputs != layer_.kind().outputs()) return 1;
      for (int i = 0; i < outputs; ++i) out[i] = expressions(layer_.shape(known.data(), inputs, i), in, builder);
      return 0;
    });
  }

  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t inputs,
                                 int32_t outputs) noexcept override {
    return guarded(layer_.where(), false, [&] {
      if (inputs != layer_.kind().inputs() || outputs != layer_.kind().outputs()) return false;
      if (position < 0 || position >= inputs + outputs) return false;
      std::vector<Desc> known;
      for (int i = 0; i <= position; ++i) known.push_back(desc_of(tensors[i].desc.dims, tensors[i].desc.type));
      return layer_.supports(position, known.data(), tensors[position].desc.format == TensorFormat::kLINEAR, kMask);
    });
  }

  // ---- building ----
  int32_t configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs, const DynamicPluginTensorDesc*,
                          int32_t) noexcept override {
    return guarded(layer_.where(), 1, [&] {
      const Range range = range_of(in, inputs);
      layer_.configure(range.least.data(), range.most.data(), inputs);
      return 0;
    });
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* in, int32_t inputs, const DynamicPluginTensorDesc*,
                          int32_t) const noexcept override {
    return guarded(layer_.where(), size_t(0),
                   [&] { return layer_.workspace(range_of(in, inputs).most.data(), inputs); });
  }

  // ---- running ----
  int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                        int32_t outputs) noexcept override {
    return guarded(layer_.where(), 1, [&] {
      if (inputs != layer_.kind().inputs() || outputs != layer_.kind().outputs()) return 1;
      layer_.prepare(descs_of(in, inputs).data(), descs_of(out, outputs).data());
      return 0;
    });
  }

  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override {
    return guarded(layer_.where(), static_cast<Plugin*>(nullptr), [&] {
      std::unique_ptr<Plugin> attached(new Plugin(*this));
      attached->layer_.attach();
      return attached.release();
    });
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

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    save(layer_.state(), saved_);
    saved_field_ = PluginField(kStateField, saved_, PluginFieldType::kUNKNOWN, int32_t(kStateBytes));
    saved_fields_.nbFields = 1;
    saved_fields_.fields = &saved_field_;
    return &saved_fields_;
  }

 private:
  Plugin(const Plugin& other) : layer_(other.layer_) {}

  Layer layer_;
  unsigned char saved_[kStateBytes];
  PluginField saved_field_;
  PluginFieldCollection saved_fields_{0, nullptr};
};

State saved_state(const OpKind& kind, const PluginFieldCollection* fields) {
  for (int i = 0; fields && fields->fields && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (field.name && std::string(field.name) == kStateField)
      return restore(kind, field.data, field.length < 0 ? 0 : std::size_t(field.length));
  }
  throw Refusal{std::string(kind.name) + ": the engine holds no data for it; rebuild the engine"};
}

class Creator final : public IPluginCreatorV3One {
 public:
  explicit Creator(const OpKind& kind) : kind_(kind), names_(kind) {}

  const char* getPluginName() const noexcept override { return kind_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return ""; }
  const PluginFieldCollection* getFieldNames() noexcept override { return names_.get(); }

  IPluginV3* createPlugin(const char* name, const PluginFieldCollection* fields,
                          TensorRTPhase phase) noexcept override {
    return guarded(kind_.name, static_cast<Plugin*>(nullptr), [&] {
      const bool building = phase == TensorRTPhase::kBUILD;
      return new Plugin(building ? state_of(kind_, name, fields) : saved_state(kind_, fields));
    });
  }

 private:
  const OpKind& kind_;
  FieldNames names_;
};

}  // namespace

void log_error(const char* line) noexcept {
  ILoggerFinder* finder = logger_finder;
  ILogger* logger = finder ? finder->findLogger() : nullptr;
  if (logger)
    logger->log(ILogger::Severity::kERROR, line);
  else
    std::fprintf(stderr, "%s\n", line);
}

}  // namespace trt
}  // namespace dance

DANCE_TRT_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { dance::trt::logger_finder = finder; }

DANCE_TRT_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  using namespace dance::trt;
  // never destroyed: TensorRT keeps pointers to them
  static nvinfer1::IPluginCreatorInterface* const* const list = [] {
    auto* creators = new nvinfer1::IPluginCreatorInterface*[kOpCount];
    for (int i = 0; i < kOpCount; ++i) creators[i] = new Creator(kOps[i]);
    return creators;
  }();
  count = kOpCount;
  return list;
}
#endif
