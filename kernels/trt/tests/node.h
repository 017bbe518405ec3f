// One plugin as the checks see it, whichever API it is reached by. Every call goes through TensorRT's own classes.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace checks {

enum class Type { f32, f16, boolean, i32 };
inline std::size_t size_of(Type type) { return type == Type::boolean ? 1 : type == Type::f16 ? 2 : 4; }

using Dims = std::vector<int64_t>;  // -1: not known
struct Tensor {
  Type type;
  Dims dims;
};
using Tensors = std::vector<Tensor>;

// A field of a node, as the ONNX parser would make it.
struct Field {
  enum Kind { integers, floats, text } kind;
  std::string name;
  std::vector<int32_t> ints;
  std::vector<float> reals;
  std::string chars;
  int length = -1;          // or what is claimed
  bool no_data = false;
  static Field of(const std::string& name, std::vector<int32_t> values) {
    return {integers, name, values, {}, "", -1, false};
  }
  static Field of(const std::string& name, float value) { return {floats, name, {}, {value}, "", -1, false}; }
  static Field of(const std::string& name, const std::string& value) { return {text, name, {}, {}, value, -1, false}; }
};

class Node {
 public:
  virtual ~Node() = default;
  // False where the plugin refuses. What the plugin computes from `in` where extents may be unknown.
  virtual bool shapes(const std::vector<Dims>& in, std::vector<Dims>* out) = 0;
  virtual bool supports(int position, const Tensors& tensors, int inputs, bool linear) = 0;
  virtual Type output_type(const Tensors& in, int output) = 0;
  virtual bool configure(const Tensors& least, const Tensors& most, const Tensors& out) = 0;
  virtual std::size_t workspace(const Tensors& in, const Tensors& out) = 0;
  virtual bool initialize() = 0;  // TensorRT 8 alone knows these two
  virtual void terminate() = 0;
  virtual std::unique_ptr<Node> clone() = 0;
  virtual std::unique_ptr<Node> attached() = 0;  // a clone that belongs to an execution context
  virtual bool announce(const Tensors& in, const Tensors& out) = 0;
  virtual bool enqueue(const Tensors& in, const Tensors& out, const std::vector<const void*>& inputs,
                       const std::vector<void*>& outputs, void* workspace) = 0;
  virtual std::vector<unsigned char> save() = 0;
};

class Api {
 public:
  virtual ~Api() = default;
  virtual const char* name() = 0;
  virtual bool float_masks() = 0;
  virtual std::vector<std::string> creators() = 0;                     // "name version field field..."
  virtual std::unique_ptr<Node> create(const std::string& op, const std::string& node,
                                       const std::vector<Field>& fields) = 0;
  virtual std::unique_ptr<Node> restore(const std::string& op, const std::vector<unsigned char>& bytes) = 0;
};

// Loads the plugin library as TensorRT would; ends the program with a line where that fails.
std::unique_ptr<Api> load(const char* library);
// A symbol of the library.
void* symbol(const char* name);
// Lines logged since the last call.
std::vector<std::string> logged();

}  // namespace checks
