// TensorRT 8: this program plays libnvinfer. It exports getPluginRegistry, getLogger and getInferLibVersion, and the
// plugin library, once loaded, registers itself.
#include "tensorrt_fakes.h"
#ifndef DANCE_TRT_V3
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>

namespace checks {
namespace {

class Registry final : public IPluginRegistry {
 public:
  bool registerCreator(IPluginCreator& creator, const char* const name) noexcept override {
    if (find(creator.getPluginName()) || *name) return false;
    creator.setPluginNamespace(name);
    list.push_back(&creator);
    return true;
  }
  IPluginCreator* const* getPluginCreatorList(int32_t* const count) const noexcept override {
    *count = int32_t(list.size());
    return list.data();
  }
  IPluginCreator* getPluginCreator(const char* const name, const char* const, const char* const) noexcept override {
    return find(name);
  }
  void setErrorRecorder(IErrorRecorder* const) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  bool deregisterCreator(const IPluginCreator&) noexcept override { return false; }
  // from TensorRT 8.6 on
  virtual bool isParentSearchEnabled() const { return false; }
  virtual void setParentSearchEnabled(bool const) {}
  virtual void* loadLibrary(const char*) noexcept { return nullptr; }
  virtual void deregisterLibrary(void*) noexcept {}

  IPluginCreator* find(const std::string& name) const {
    for (IPluginCreator* creator : list)
      if (name == creator->getPluginName()) return creator;
    return nullptr;
  }
  std::vector<IPluginCreator*> list;
};

Registry& registry() {
  static Registry instance;
  return instance;
}
void* library_handle = nullptr;

class NodeV2 final : public Node {
 public:
  explicit NodeV2(IPluginV2DynamicExt* plugin) : plugin_(plugin) {}
  ~NodeV2() override {
    if (attached_) plugin_->detachFromContext();
    plugin_->destroy();
  }
  bool shapes(const std::vector<Dims>& in, std::vector<Dims>* out) override {
    Builder builder;
    const std::vector<DimsExprs> expressions = expressions_of(in, builder);
    out->clear();
    for (int i = 0; i < plugin_->getNbOutputs(); ++i) {
      const DimsExprs dims = plugin_->getOutputDimensions(i, expressions.data(), int32_t(in.size()), builder);
      if (dims.nbDims < 0) return false;
      out->push_back(values_of(dims));
    }
    return true;
  }
  bool supports(int position, const Tensors& tensors, int inputs, bool linear) override {
    std::vector<PluginTensorDesc> descs = descs_of(tensors);
    descs[position] = desc_of(tensors[position], linear);
    return plugin_->supportsFormatCombination(position, descs.data(), inputs, int32_t(tensors.size()) - inputs);
  }
  Type output_type(const Tensors& in, int output) override {
    std::vector<DataType> types;
    for (const Tensor& tensor : in) types.push_back(data_type(tensor.type));
    return type_of(plugin_->getOutputDataType(output, types.data(), int32_t(types.size())));
  }
  bool configure(const Tensors& least, const Tensors& most, const Tensors& out) override {
    const auto in = ranges_of(least, most), results = ranges_of(out, out);
    const std::size_t before = logger().lines.size();
    plugin_->configurePlugin(in.data(), int32_t(in.size()), results.data(), int32_t(results.size()));
    return logger().lines.size() == before;
  }
  std::size_t workspace(const Tensors& in, const Tensors& out) override {
    const auto descs = descs_of(in), results = descs_of(out);
    return plugin_->getWorkspaceSize(descs.data(), int32_t(in.size()), results.data(), int32_t(out.size()));
  }
  bool initialize() override { return plugin_->initialize() == 0; }
  void terminate() override { plugin_->terminate(); }
  std::unique_ptr<Node> clone() override {
    IPluginV2DynamicExt* copy = plugin_->clone();
    return std::unique_ptr<Node>(copy ? new NodeV2(copy) : nullptr);
  }
  std::unique_ptr<Node> attached() override {
    std::unique_ptr<NodeV2> node(new NodeV2(plugin_->clone()));
    node->plugin_->attachToContext(nullptr, nullptr, nullptr);
    node->attached_ = true;
    return node;
  }
  bool announce(const Tensors& in, const Tensors& out) override { return configure(in, in, out); }
  bool enqueue(const Tensors& in, const Tensors& out, const std::vector<const void*>& inputs,
               const std::vector<void*>& outputs, void* workspace) override {
    const auto descs = descs_of(in), results = descs_of(out);
    return plugin_->enqueue(descs.data(), results.data(), inputs.data(), outputs.data(), workspace, nullptr) == 0;
  }
  std::vector<unsigned char> save() override {
    std::vector<unsigned char> bytes(plugin_->getSerializationSize());
    plugin_->serialize(bytes.data());
    return bytes;
  }

 private:
  IPluginV2DynamicExt* plugin_;
  bool attached_ = false;
};

class ApiV2 final : public Api {
 public:
  const char* name() override { return "IPluginV2DynamicExt"; }
  bool float_masks() override { return true; }
  std::vector<std::string> creators() override {
    std::vector<std::string> out;
    for (IPluginCreator* c : registry().list)
      out.push_back(std::string(c->getPluginName()) + " " + c->getPluginVersion() + field_names(c->getFieldNames()));
    return out;
  }
  std::unique_ptr<Node> create(const std::string& op, const std::string& node,
                               const std::vector<Field>& fields) override {
    const std::vector<PluginField> list = plugin_fields(fields);
    PluginFieldCollection collection{};
    collection.nbFields = int32_t(list.size());
    collection.fields = list.data();
    return wrap(registry().find(op)->createPlugin(node.c_str(), &collection));
  }
  std::unique_ptr<Node> restore(const std::string& op, const std::vector<unsigned char>& bytes) override {
    // a copy of the exact size: reading past it shows under the address sanitizer
    const std::unique_ptr<unsigned char[]> copy(new unsigned char[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), copy.get());
    return wrap(registry().find(op)->deserializePlugin("", copy.get(), bytes.size()));
  }

 private:
  static std::unique_ptr<Node> wrap(IPluginV2* plugin) {
    return std::unique_ptr<Node>(plugin ? new NodeV2(static_cast<IPluginV2DynamicExt*>(plugin)) : nullptr);
  }
};

}  // namespace

Logger& logger() {
  static Logger instance;
  return instance;
}

std::unique_ptr<Api> load(const char* library) {
  library_handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!library_handle || registry().list.empty()) {
    std::fprintf(stderr, "cannot load %s, or it registered nothing: %s\n", library, dlerror());
    std::exit(1);
  }
  return std::unique_ptr<Api>(new ApiV2);
}
void* symbol(const char* name) { return dlsym(library_handle, name); }
std::vector<std::string> logged() {
  std::vector<std::string> lines;
  lines.swap(logger().lines);
  return lines;
}

}  // namespace checks

extern "C" __attribute__((visibility("default"))) nvinfer1::IPluginRegistry* getPluginRegistry() noexcept {
  return &checks::registry();
}
extern "C" __attribute__((visibility("default"))) nvinfer1::ILogger* getLogger() noexcept { return &checks::logger(); }
extern "C" __attribute__((visibility("default"))) int dance_registered_plugins() {
  return int(checks::registry().list.size());
}
extern "C" __attribute__((visibility("default"))) int32_t getInferLibVersion() noexcept {
  const char* other = std::getenv("DANCE_TRT_PRETEND");  // to play another version
  return other ? std::atoi(other) : NV_TENSORRT_MAJOR * 1000 + NV_TENSORRT_MINOR * 100 + NV_TENSORRT_PATCH;
}
#endif
