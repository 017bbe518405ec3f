// A plugin from building an engine to running it: memory, packed weights, clones, what is refused at a call.
#include "checks.h"

namespace checks {
namespace {

struct Subject {
  const Op& op;
  Type type;
  Tensors in, out;
  std::unique_ptr<Node> node;  // configured
  std::size_t workspace;
  Subject(const Op& which, Type x, int64_t least_n = 1, int64_t most_n = 1, int64_t most_h = 7)
      : op(which), type(x), in(inputs_of(op, x, mask_type())), out(outputs_of(op, x)), node(made(op)) {
    const Tensors least = inputs_of(op, x, mask_type(), least_n), most = inputs_of(op, x, mask_type(), most_n, most_h);
    CHECK(node->configure(least, most, outputs_of(op, x, most_n, most_h)), op.name);
    workspace = node->workspace(most, outputs_of(op, x, most_n, most_h));
    CHECK(workspace > 0, op.name);
  }
  Call call(unsigned seed, int64_t n = 1, int64_t h = 7) const {
    Call made_call(inputs_of(op, type, mask_type(), n, h), outputs_of(op, type, n, h));
    fill(made_call, seed);
    return made_call;
  }
};

bool same(const Call& a, const Call& b) { return a.outputs == b.outputs; }

void check_restored_is_the_same(const Op& op, Type type) {
  Subject built(op, type);
  const std::vector<unsigned char> bytes = built.node->save();
  const std::unique_ptr<Node> restored = api->restore(op.name, bytes);
  CHECK(restored && restored->save() == bytes, op.name);
  if (!restored) return;
  CHECK(restored->initialize(), op.name);
  Call first = built.call(1), second = built.call(1);
  const std::unique_ptr<Node> a = built.node->attached(), b = restored->attached();
  CHECK(a->announce(built.in, built.out) && first.run(*a, built.workspace), op.name);
  CHECK(second.run(*b, built.workspace), "runs without an announcement: its shapes are in the engine");
  CHECK(same(first, second), op.name);
  Call other = built.call(2);
  CHECK(other.run(*b, built.workspace) && !same(first, other), "results come from the inputs");
  CHECK(logged().empty(), op.name);
}

void check_weights_are_packed_once(const Op& op) {
  Subject built(op, Type::f32);
  const std::unique_ptr<Node> node = built.node->attached();
  CHECK(node->announce(built.in, built.out), op.name);
  const int allocations = device().allocations, packs = device().packs;
  Call call = built.call(3), again = built.call(3);
  const auto packed = [&] { return device().recording ? device().packs - packs : -1; };
  CHECK(call.run(*node, built.workspace) && call.run(*node, built.workspace), op.name);
  CHECK(!device().recording || packed() == (op.gate ? 0 : 1), "packed once");
  CHECK(again.run(*node, built.workspace) && same(call, again), op.name);
  CHECK(!device().recording || packed() == (op.gate ? 0 : 2), "packed again when W lies elsewhere");
  device().capturing = true;
  Call captured = built.call(4);
  CHECK(captured.run(*node, built.workspace), op.name);
  device().capturing = false;
  CHECK(captured.run(*node, built.workspace), op.name);
  const std::unique_ptr<Node> fresh = built.node->attached();
  CHECK(fresh->announce(built.in, built.out), op.name);
  const int with_fresh = device().allocations;
  Call expected = built.call(4);
  CHECK(expected.run(*fresh, built.workspace) && same(captured, expected), "a capture packs nothing for later calls");
  CHECK(device().allocations == with_fresh, "no allocation in enqueue");
  CHECK(with_fresh == allocations + (op.gate ? 0 : 1), "nor in those before");
  CHECK(logged().empty(), op.name);
}

void check_clones(const Op& op) {
  const int before = device().allocations, live = device().live;
  {
    Subject built(op, Type::f32);
    CHECK(built.node->initialize(), op.name);
    std::unique_ptr<Node> first = built.node->attached();
    Call a = built.call(5), b = built.call(5), c = built.call(6), d = built.call(6);
    CHECK(a.run(*first, built.workspace), op.name);
    CHECK(device().allocations - before == (op.gate ? 0 : 1), "one context takes one buffer");
    const std::unique_ptr<Node> copy = first->clone();  // while attached
    const std::unique_ptr<Node> second = copy->attached();
    CHECK(c.run(*second, built.workspace) && b.run(*first, built.workspace), op.name);
    CHECK(same(a, b), "clones share nothing that is written");
    first.reset();
    const std::unique_ptr<Node> third = built.node->attached();
    CHECK(d.run(*third, built.workspace) && same(c, d), op.name);
    CHECK(device().allocations - before <= (op.gate ? 0 : 2), "the next context takes what an earlier one left");
    built.node->terminate();
  }
  CHECK(device().live == live, "everything is given back");
  CHECK(logged().empty(), op.name);
}

// A builder times a plugin that no context owns.
void check_timed_by_a_builder(const Op& op) {
  Subject built(op, Type::f16);
  const std::unique_ptr<Node> node = built.node->clone();
  Call call = built.call(7);
  CHECK(node->initialize() && node->announce(built.in, built.out), op.name);
  const int allocations = device().allocations;
  CHECK(call.run(*node, built.workspace), op.name);
  CHECK(device().allocations == allocations, "no allocation in enqueue");
  CHECK(logged().empty(), op.name);
  const std::unique_ptr<Node> never = built.node->clone();
  if (op.gate)
    CHECK(call.run(*never, built.workspace), op.name);
  else
    check_refused(op, !call.run(*never, built.workspace), "called before it was initialized or attached");
}

void check_too_little_memory(const Op& op) {
  if (op.gate) return;
  Subject built(op, Type::f32);
  device().allowed = 0;
  const bool initialized = built.node->initialize();
  if (!logged().empty()) CHECK(!initialized, op.name);  // TensorRT 10 has no such step
  const std::unique_ptr<Node> node = built.node->attached();
  if (node) {
    check_refused(op, true, "'a node': no 1 MB of device memory left for its packed weights");
    Call call = built.call(8);
    check_refused(op, !call.run(*node, built.workspace), "'a node'");
  } else {
    check_refused(op, true, "'a node': no 1 MB of device memory left for its packed weights");
  }
  device().allowed = -1;
  const std::unique_ptr<Node> later = built.node->attached();
  Call call = built.call(8);
  CHECK(later && call.run(*later, built.workspace), "works again when there is memory");
}

// A profile from 1 to 3 clips and from 7 to 12 rows; the largest map has another algorithm.
void check_dynamic_shapes(const Op& op) {
  Subject built(op, Type::f32, 1, 3, 20);
  const std::unique_ptr<Node> restored = api->restore(op.name, built.node->save());
  const std::unique_ptr<Node> node = restored->attached();
  for (int64_t h : {20, 7, 19, 20})
    for (int64_t n : {1, 3, 2}) {
      Call call = built.call(unsigned(9 + n), n, h);
      CHECK(node->announce(call.in, call.out), op.name);
      CHECK(call.run(*node, built.workspace), op.name);
      const std::unique_ptr<Node> alone = made(op);
      CHECK(alone->configure(call.in, call.in, call.out), op.name);
      const std::unique_ptr<Node> attached = alone->attached();
      Call expected = built.call(unsigned(9 + n), n, h);
      const std::string about = std::string(op.name) + " N=" + std::to_string(n) + " H=" + std::to_string(h);
      CHECK(expected.run(*attached, alone->workspace(call.in, call.out)) && same(call, expected), about.c_str());
    }
  CHECK(logged().empty(), op.name);
  if (!device().recording) return;  // the real kernels may need no more for it
  Call outside = built.call(13, 9, 20);
  node->announce(outside.in, outside.out);
  check_refused(op, !outside.run(*node, built.workspace * 10), "the engine was built with");
}

void refuse_call(Subject& built, Node& node, bool output, std::size_t index, const Tensor& tensor,
                 const std::string& part) {
  Call call = built.call(14);
  (output ? call.out : call.in)[index] = tensor;
  check_refused(built.op, !call.run(node, built.workspace), part);
}

void check_wrong_calls(const Op& op) {
  Subject built(op, Type::f32);
  const std::unique_ptr<Node> node = built.node->attached();
  refuse_call(built, *node, false, 0, {Type::f32, laid_out(op, 2, kC, kT, 7, kW)},
              op.gate ? "tau is [1,3], expected [2,3]" : "frame_keep is [1,3], expected [2,3]");
  refuse_call(built, *node, false, 0, {Type::f32, laid_out(op, -1, kC, kT, 7, kW)}, "not all known");
  refuse_call(built, *node, false, 0, {Type::i32, built.in[0].dims}, "X of type another type");
  refuse_call(built, *node, false, 1, {Type::f16, built.in[1].dims}, "of type float16 beside X of type float32");
  refuse_call(built, *node, true, 0, {built.out[0].type, {1, 2}}, "is [1,2], expected ");
  refuse_call(built, *node, true, 0, {Type::i32, built.out[0].dims}, "of type another type");
  if (!op.gate) {
    refuse_call(built, *node, false, 5, {mask_type(), {1, 6, 7}}, "feature_keep is [1,6,7], expected [1,7,6]");
    refuse_call(built, *node, false, 4, {Type::f16, built.in[4].dims}, "channel_keep of type float16");
  }
  Call good = built.call(15);
  CHECK(good.run(*node, built.workspace), "a refused call leaves nothing behind");
  Tensors in = built.in, out = built.out;
  in[0].dims[0] = 2;
  CHECK(!made(op)->configure(in, in, out), op.name);
  check_refused(op, true, "expected [2,3]");
}

}  // namespace

void check_life(const Op& op) {
  check_restored_is_the_same(op, Type::f32);
  check_restored_is_the_same(op, Type::f16);
  check_weights_are_packed_once(op);
  check_clones(op);
  check_timed_by_a_builder(op);
  check_too_little_memory(op);
  check_dynamic_shapes(op);
  check_wrong_calls(op);
}

}  // namespace checks
