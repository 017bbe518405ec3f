// One call described on stdin, its outputs on stdout: so that tests in Python may compare with the definition.
//   op NAME, attribute NAME i VALUES..., attribute NAME f VALUE, input TYPE EXTENTS..., output TYPE EXTENTS..., data
// on lines of their own, then the bytes of all inputs. The plugin goes through all its life: created, configured,
// saved, restored, attached.
#include <iostream>
#include <sstream>

#include "checks.h"

namespace checks {
namespace {

[[noreturn]] void end(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  for (const std::string& line : logged()) std::fprintf(stderr, "%s\n", line.c_str());
  std::exit(1);
}

Tensor tensor_of(std::istringstream& line) {
  std::string type;
  line >> type;
  Tensor tensor{type == "f32" ? Type::f32 : type == "f16" ? Type::f16 : type == "bool" ? Type::boolean : Type::i32, {}};
  for (int64_t extent; line >> extent;) tensor.dims.push_back(extent);
  return tensor;
}

Field field_of(std::istringstream& line) {
  std::string name, kind;
  line >> name >> kind;
  Field field = Field::of(name, std::vector<int32_t>());
  if (kind == "f") {
    double value = 0;
    line >> value;
    return Field::of(name, float(value));
  }
  for (int32_t value; line >> value;) field.ints.push_back(value);
  return field;
}

}  // namespace

void run_case() {
  std::string op, line;
  std::vector<Field> fields;
  Tensors in, out;
  while (std::getline(std::cin, line) && line != "data") {
    std::istringstream words(line);
    std::string word;
    words >> word;
    if (word == "op") words >> op;
    else if (word == "attribute") fields.push_back(field_of(words));
    else if (word == "input") in.push_back(tensor_of(words));
    else if (word == "output") out.push_back(tensor_of(words));
    else end("what is " + word);
  }
  Call call(in, out), again(in, out);
  for (Memory& memory : call.inputs) std::cin.read(static_cast<char*>(memory.data()), std::streamsize(memory.bytes()));
  if (!std::cin) end("the data end early");
  again.inputs = call.inputs;

  const std::unique_ptr<Node> created = api->create(op, "a node", fields);
  std::vector<Dims> shapes;
  if (!created || !created->shapes(dims_of_all(in), &shapes)) end("refused");
  if (shapes != dims_of_all(out)) end("other output shapes than expected");
  const Tensors all = both(in, out);
  for (std::size_t i = 0; i < all.size(); ++i)
    if (!created->supports(int(i), all, int(in.size()), true)) end("unsupported types");
  if (!created->configure(in, in, out)) end("not configured");
  const std::size_t workspace = created->workspace(in, out);
  const std::unique_ptr<Node> restored = api->restore(op, created->save());
  if (!restored || !restored->initialize()) end("not restored");
  const std::unique_ptr<Node> attached = restored->attached();
  if (!attached || !attached->announce(in, out) || !call.run(*attached, workspace)) end("the call failed");
  call.outputs.swap(again.outputs);
  if (!call.run(*attached, workspace) || !(call.outputs == again.outputs)) end("the second call gives another result");
  for (const Memory& memory : call.outputs)
    std::cout.write(reinterpret_cast<const char*>(memory.data()), std::streamsize(memory.bytes()));
  std::cout.flush();
}

}  // namespace checks
