// TensorRT 10, 11 and RTX: this program does what IPluginRegistry::loadLibrary does.
#include "tensorrt_fakes.h"
#ifdef DANCE_TRT_V3
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace checks {
namespace {

class Finder final : public ILoggerFinder {
 public:
  virtual ~Finder() = default;
  ILogger* findLogger() override { return &logger(); }
};

class Context final : public IPluginResourceContext {
 public:
  IGpuAllocator* getGpuAllocator() const noexcept override { return nullptr; }
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
};

void* library_handle = nullptr;

class NodeV3 final : public Node {
 public:
  explicit NodeV3(IPluginV3* plugin)
      : plugin_(plugin),
        build_(static_cast<IPluginV3OneBuild*>(plugin->getCapabilityInterface(PluginCapabilityType::kBUILD))),
        runtime_(static_cast<IPluginV3OneRuntime*>(plugin->getCapabilityInterface(PluginCapabilityType::kRUNTIME))) {
    if (std::strcmp(build_->getInterfaceInfo().kind, "PLUGIN_V3ONE_BUILD")) std::abort();
    if (std::strcmp(runtime_->getInterfaceInfo().kind, "PLUGIN_V3ONE_RUNTIME")) std::abort();
  }

  bool shapes(const std::vector<Dims>& in, std::vector<Dims>* out) override {
    Builder builder;
    const std::vector<DimsExprs> expressions = expressions_of(in, builder);
    std::vector<DimsExprs> results(build_->getNbOutputs());
    out->clear();
    if (build_->getOutputShapes(expressions.data(), int32_t(in.size()), nullptr, 0, results.data(),
                                int32_t(results.size()), builder) != 0)
      return false;
    for (const DimsExprs& dims : results) out->push_back(values_of(dims));
    return true;
  }
  bool supports(int position, const Tensors& tensors, int inputs, bool linear) override {
    std::vector<DynamicPluginTensorDesc> descs = ranges_of(tensors, tensors);
    descs[position].desc = desc_of(tensors[position], linear);
    return build_->supportsFormatCombination(position, descs.data(), inputs, int32_t(tensors.size()) - inputs);
  }
  Type output_type(const Tensors& in, int output) override {
    std::vector<DataType> types, out(build_->getNbOutputs());
    for (const Tensor& tensor : in) types.push_back(data_type(tensor.type));
    if (build_->getOutputDataTypes(out.data(), int32_t(out.size()), types.data(), int32_t(types.size())) != 0)
      std::abort();
    return type_of(out[output]);
  }
  bool configure(const Tensors& least, const Tensors& most, const Tensors& out) override {
    const auto in = ranges_of(least, most), results = ranges_of(out, out);
    return build_->configurePlugin(in.data(), int32_t(in.size()), results.data(), int32_t(results.size())) == 0;
  }
  std::size_t workspace(const Tensors& in, const Tensors& out) override {
    const auto descs = ranges_of(in, in), results = ranges_of(out, out);
    return build_->getWorkspaceSize(descs.data(), int32_t(in.size()), results.data(), int32_t(out.size()));
  }
  bool initialize() override { return true; }
  void terminate() override {}
  std::unique_ptr<Node> clone() override { return wrap(plugin_->clone()); }
  std::unique_ptr<Node> attached() override { return wrap(runtime_->attachToContext(&context_)); }
  bool announce(const Tensors& in, const Tensors& out) override {
    const auto descs = descs_of(in), results = descs_of(out);
    return runtime_->onShapeChange(descs.data(), int32_t(in.size()), results.data(), int32_t(out.size())) == 0;
  }
  bool enqueue(const Tensors& in, const Tensors& out, const std::vector<const void*>& inputs,
               const std::vector<void*>& outputs, void* workspace) override {
    const auto descs = descs_of(in), results = descs_of(out);
    return runtime_->enqueue(descs.data(), results.data(), inputs.data(), outputs.data(), workspace, nullptr) == 0;
  }
  // The bytes of its one field.
  std::vector<unsigned char> save() override {
    const PluginFieldCollection* fields = runtime_->getFieldsToSerialize();
    if (fields->nbFields != 1 || fields->fields[0].type != PluginFieldType::kUNKNOWN) std::abort();
    const unsigned char* bytes = static_cast<const unsigned char*>(fields->fields[0].data);
    field_name_ = fields->fields[0].name;
    return std::vector<unsigned char>(bytes, bytes + fields->fields[0].length);
  }
  static std::unique_ptr<Node> wrap(IPluginV3* plugin) {
    return std::unique_ptr<Node>(plugin ? new NodeV3(plugin) : nullptr);
  }
  static std::string field_name_;

 private:
  std::unique_ptr<IPluginV3> plugin_;
  IPluginV3OneBuild* build_;
  IPluginV3OneRuntime* runtime_;
  Context context_;
};
std::string NodeV3::field_name_ = "dance_state";

class ApiV3 final : public Api {
 public:
  ApiV3(IPluginCreatorInterface* const* creators, int32_t count) {
    for (int i = 0; i < count; ++i) {
      if (std::strcmp(creators[i]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE")) std::abort();
      list_.push_back(static_cast<IPluginCreatorV3One*>(creators[i]));
    }
  }
  const char* name() override { return "IPluginV3"; }
  bool float_masks() override { return std::getenv("DANCE_TRT_FLOAT_MASKS") != nullptr; }
  std::vector<std::string> creators() override {
    std::vector<std::string> out;
    for (IPluginCreatorV3One* c : list_)
      out.push_back(std::string(c->getPluginName()) + " " + c->getPluginVersion() + field_names(c->getFieldNames()));
    return out;
  }
  std::unique_ptr<Node> create(const std::string& op, const std::string& node,
                               const std::vector<Field>& fields) override {
    const std::vector<PluginField> list = plugin_fields(fields);
    const PluginFieldCollection collection{int32_t(list.size()), list.data()};
    return NodeV3::wrap(find(op)->createPlugin(node.c_str(), &collection, TensorRTPhase::kBUILD));
  }
  std::unique_ptr<Node> restore(const std::string& op, const std::vector<unsigned char>& bytes) override {
    const std::unique_ptr<unsigned char[]> copy(new unsigned char[bytes.size()]);
    std::copy(bytes.begin(), bytes.end(), copy.get());
    const PluginField field(NodeV3::field_name_.c_str(), copy.get(), PluginFieldType::kUNKNOWN, int32_t(bytes.size()));
    const PluginFieldCollection collection{1, &field};
    return NodeV3::wrap(find(op)->createPlugin("", &collection, TensorRTPhase::kRUNTIME));
  }

 private:
  IPluginCreatorV3One* find(const std::string& op) const {
    for (IPluginCreatorV3One* creator : list_)
      if (op == creator->getPluginName()) return creator;
    std::abort();
  }
  std::vector<IPluginCreatorV3One*> list_;
};

}  // namespace

Logger& logger() {
  static Logger instance;
  return instance;
}

std::unique_ptr<Api> load(const char* library) {
  library_handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  using GetCreators = IPluginCreatorInterface* const* (*)(int32_t&);
  using SetLoggerFinder = void (*)(ILoggerFinder*);
  const GetCreators get = library_handle ? reinterpret_cast<GetCreators>(symbol("getCreators")) : nullptr;
  const SetLoggerFinder set = get ? reinterpret_cast<SetLoggerFinder>(symbol("setLoggerFinder")) : nullptr;
  if (!set) {
    std::fprintf(stderr, "cannot load %s: %s\n", library, dlerror());
    std::exit(1);
  }
  static Finder finder;
  set(&finder);
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = get(count);
  return std::unique_ptr<Api>(new ApiV3(creators, count));
}
void* symbol(const char* name) { return dlsym(library_handle, name); }
std::vector<std::string> logged() {
  std::vector<std::string> lines;
  lines.swap(logger().lines);
  return lines;
}

}  // namespace checks
#endif
