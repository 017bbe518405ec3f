// What a plugin answers before it runs: creation from attributes, output shapes, formats.
#include <cmath>

#include "checks.h"

namespace checks {
namespace {

Field named(std::vector<Field>& fields, const std::string& name, Field with) {
  for (Field& field : fields)
    if (field.name == name) field = with;
  return with;
}

void refuse_with(const Op& op, const std::string& name, const Field& field, const std::string& part) {
  std::vector<Field> fields = fields_of(op);
  named(fields, name, field);
  check_refused(op, api->create(op.name, "a node", fields) == nullptr, part);
}

using Ints = std::vector<int32_t>;

}  // namespace

void check_creation(const Op& op) {
  CHECK(made(op), op.name);
  std::vector<Field> fields = fields_of(op);
  fields.push_back(Field::of("plugin_version", std::string("1")));
  fields.push_back(Field::of("plugin_namespace", std::string()));
  CHECK(api->create(op.name, "a node", fields), "plugin_version and plugin_namespace are ignored");
  CHECK(api->create(op.name, std::string(3000, 'n'), fields_of(op)), "a long name");
  CHECK(logged().empty(), op.name);

  fields.push_back(Field::of("stride", Ints{1, 1, 1}));
  check_refused(op, !api->create(op.name, "a node", fields), "'a node': unknown attribute 'stride', expected " +
                std::string(op.gate ? "none" : "strides, pads"));
  if (op.gate) {
    check_refused(op, !api->create(op.name, "", {Field::of("group", Ints{1})}), "unknown attribute 'group'");
    return;
  }

  const std::unique_ptr<Node> implicit = api->create(op.name, "a node", {});
  const std::unique_ptr<Node> given = api->create(
      op.name, "a node",
      {Field::of("strides", Ints{1, 1, 1}), Field::of("pads", Ints(6, 0)), Field::of("group", Ints{1}),
       Field::of("dilations", Ints{1, 1, 1}), Field::of("min", -3.4028234663852886e38f)});
  CHECK(implicit && given && implicit->save() == given->save(), "missing attributes have the defaults of docs/ops.md");

  for (const char* name : {"strides", "dilations"}) {
    refuse_with(op, name, Field::of(name, Ints{1, 0, 1}), std::string(name) + " is [1,0,1]");
    refuse_with(op, name, Field::of(name, Ints{1, 1, INT32_MIN}), name);
    refuse_with(op, name, Field::of(name, Ints{1, 1}), std::string(name) + " is 2 x 32-bit integers, expected 3 x");
    refuse_with(op, name, Field::of(name, Ints{1, 1, 1, 1}), name);
    refuse_with(op, name, Field::of(name, 1.f), std::string(name) + " is 1 x float32");
    refuse_with(op, name, Field::of(name, std::string("111")), name);
  }
  refuse_with(op, "pads", Field::of("pads", Ints{0, 0, 0, 0, -1, 0}), "pads is [0,0,0,0,-1,0]");
  refuse_with(op, "pads", Field::of("pads", Ints{0, 0, 0}), "pads is 3 x");
  refuse_with(op, "group", Field::of("group", Ints{0}), "group is [0]");
  refuse_with(op, "group", Field::of("group", Ints{}), "group is 0 x");
  refuse_with(op, "min", Field::of("min", Ints{0}), "min is 1 x 32-bit integers, expected 1 x float32");
  refuse_with(op, "min", Field::of("min", std::nanf("")), "min is NaN");
  Field field = Field::of("pads", Ints(6, 0));
  field.no_data = true;
  refuse_with(op, "pads", field, "no data");
  field.no_data = false, field.length = 0;
  refuse_with(op, "pads", field, "pads is 0 x");
  refuse_with(op, "group", Field::of("strides", Ints{1, 1, 1}), "'strides' is given twice");
}

namespace {

// Input `index` replaced by `dims` is refused with a line that names it.
void refuse_shape(const Op& op, Node& node, int index, const Dims& dims, const std::string& part) {
  std::vector<Dims> in = dims_of_all(inputs_of(op, Type::f32, mask_type())), out;
  in[std::size_t(index)] = dims;
  check_refused(op, !node.shapes(in, &out), part);
}

void check_shape(const Op& op, Node& node, int64_t n, int64_t h) {
  std::vector<Dims> out;
  const bool good = node.shapes(dims_of_all(inputs_of(op, Type::f32, mask_type(), n, h)), &out);
  CHECK(good && out == dims_of_all(outputs_of(op, Type::f32, n, h)), op.name);
}

}  // namespace

void check_shapes(const Op& op) {
  const std::unique_ptr<Node> node = made(op);
  check_shape(op, *node, 1, 7);
  check_shape(op, *node, 5, 8);
  check_shape(op, *node, -1, 7);
  check_shape(op, *node, 2, -1);
  check_shape(op, *node, -1, -1);
  CHECK(logged().empty(), op.name);

  const std::string order = op.channels_last ? "[N,T,H,W,C]" : "[N,C,T,H,W]";
  refuse_shape(op, *node, 0, {1, kC, kT, 7}, "X is [1,4,3,7], expected " + order);
  refuse_shape(op, *node, 0, {}, "X is []");
  refuse_shape(op, *node, 0, Dims(8, 1), "X is [1,1,1,1,1,1,1,1]");
  refuse_shape(op, *node, 0, laid_out(op, 1, kC, 0, 7, kW), "every extent at least 1");
  if (op.gate) {
    refuse_shape(op, *node, 1, {1, 4}, "tau is [1,4], expected [1,3]");
    refuse_shape(op, *node, 1, {2, 3}, "tau is [2,3], expected [1,3]");
    refuse_shape(op, *node, 1, {3}, "tau is [3]");
  } else {
    refuse_shape(op, *node, 0, laid_out(op, 1, 5, kT, 7, kW), "C divisible by group=2");
    refuse_shape(op, *node, 0, laid_out(op, 1, 6, kT, 7, kW), "W is [6,2,3,3,2], expected [6,3,3,3,2]");
    refuse_shape(op, *node, 0, laid_out(op, 1, kC, kT, 1, kW), "a kernel that fits into X");
    refuse_shape(op, *node, 1, {7, 2, 3, 3, 2}, "M divisible by group=2");
    refuse_shape(op, *node, 1, {6, 2, 3, 3}, "W is [6,2,3,3]");
    refuse_shape(op, *node, 1, {6, 2, -1, 3, 2}, "W is [6,2,?,3,2], expected an initializer");
    refuse_shape(op, *node, 1, {6, 2, 3, INT32_MAX, 2}, "a kernel that fits");
    refuse_shape(op, *node, 2, {5}, "B is [5], expected [6]");
    refuse_shape(op, *node, 3, {1, 4}, "frame_keep is [1,4], expected [1,3]");
    refuse_shape(op, *node, 4, {1, 3}, "channel_keep is [1,3], expected [1,4]");
    refuse_shape(op, *node, 5, {1, 7, 5}, "feature_keep is [1,7,5], expected [1,7,6]");
    refuse_shape(op, *node, 5, {1, 42}, "feature_keep is [1,42]");
    if (op.adds) refuse_shape(op, *node, 6, y_of(op, 1, 9), "Z is ");
  }
  std::vector<Dims> in = dims_of_all(inputs_of(op, Type::f32, mask_type())), out;
  in.pop_back();
  check_refused(op, !node->shapes(in, &out), "inputs, expected");
  if (op.gate) return;

  std::vector<Field> fields = fields_of(op);
  named(fields, "pads", Field::of("pads", Ints(6, INT32_MAX)));
  const std::unique_ptr<Node> wide = api->create(op.name, "a node", fields);
  in = dims_of_all(inputs_of(op, Type::f32, mask_type()));
  check_refused(op, !wide->shapes(in, &out), "W is ");
}

void check_formats(const Op& op) {
  const std::unique_ptr<Node> node = made(op);
  const bool floats_only = api->float_masks();
  for (Type type : {Type::f32, Type::f16}) {
    for (Type mask : {Type::f32, Type::boolean}) {
      const int inputs = int(inputs_of(op, type, mask).size());
      Tensors tensors = both(inputs_of(op, type, mask), outputs_of(op, type));
      for (std::size_t i = 0; i < tensors.size(); ++i) {
        const bool is_mask = !op.gate && i >= 3 && i <= 5;
        const bool good = !is_mask || mask == Type::f32 || (!floats_only && mask == Type::boolean);
        CHECK(node->supports(int(i), tensors, inputs, true) == good, op.name);
        CHECK(!node->supports(int(i), tensors, inputs, false), "other than linear");
        const Type right = tensors[i].type;
        for (Type wrong : {Type::f32, Type::f16, Type::boolean, Type::i32}) {
          if (wrong == right || (i == 0 && wrong != Type::boolean && wrong != Type::i32)) continue;
          if (is_mask && i == 3 && !floats_only && wrong != Type::f16 && wrong != Type::i32) continue;
          if (is_mask && floats_only && mask == Type::boolean) continue;
          tensors[i].type = wrong;
          CHECK(!node->supports(int(i), tensors, inputs, true), op.name);
        }
        tensors[i].type = right;
      }
      for (std::size_t i = 0; i < tensors.size() - std::size_t(inputs); ++i)
        CHECK(node->output_type(inputs_of(op, type, mask), int(i)) == tensors[std::size_t(inputs) + i].type, op.name);
      CHECK(!node->supports(int(tensors.size()), both(tensors, {tensors[0]}), inputs, true), "a tensor too many");
    }
  }
  CHECK(logged().empty(), op.name);
}

}  // namespace checks
