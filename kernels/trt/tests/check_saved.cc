// What an engine file keeps: every change of it is refused with a line, and what is no accident is still checked.
#include "checks.h"

namespace checks {
namespace {

using Bytes = std::vector<unsigned char>;
constexpr std::size_t kMostMemory = std::size_t(1) << 24;

// As state.cc writes it: whoever changes that changes this.
void sign(Bytes& bytes) {
  uint64_t sum = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i + 8 < bytes.size(); ++i) sum = (sum ^ bytes[i]) * 0x100000001b3u;
  for (int i = 0; i < 8; ++i) bytes[bytes.size() - 8 + std::size_t(i)] = static_cast<unsigned char>(sum >> (8 * i));
}

// A node from signed nonsense may be refused; else it has to work like any other, down to a call.
void use(const Op& op, const Bytes& bytes) {
  const std::unique_ptr<Node> node = api->restore(op.name, bytes);
  if (!node) return;
  std::vector<Dims> out;
  const Tensors in = inputs_of(op, Type::f32, mask_type());
  if (node->shapes(dims_of_all(in), &out) && out == dims_of_all(outputs_of(op, Type::f32))) {
    const std::unique_ptr<Node> attached = node->attached();
    Call call(in, outputs_of(op, Type::f32));
    fill(call, 1);
    const std::size_t workspace = node->workspace(in, call.out);
    if (workspace > kMostMemory) return;
    if (attached && attached->announce(call.in, call.out)) call.run(*attached, std::max<std::size_t>(workspace, 1));
  }
  CHECK(node->save().size() == bytes.size(), op.name);
}

}  // namespace

void check_saved(const Op& op, int rounds) {
  const std::unique_ptr<Node> node = made(op);
  const Tensors in = inputs_of(op, Type::f32, mask_type());
  CHECK(node->configure(in, in, outputs_of(op, Type::f32)), op.name);
  const Bytes good = node->save();
  Bytes resigned = good;
  sign(resigned);
  CHECK(resigned == good && api->restore(op.name, good), op.name);

  Bytes later = good;
  later[4] = 2;
  sign(later);
  check_refused(op, !api->restore(op.name, later),
                "built with data version 2 of this plugin, this library reads 1; rebuild");
  later.resize(good.size() + 100);
  check_refused(op, !api->restore(op.name, later), "data version 2");
  for (const Op& other : kOps)
    if (&other != &op && std::string(other.name) != op.name)
      check_refused(other, !api->restore(other.name, good), std::string("are for ") + op.name);

  for (std::size_t size = 0; size < good.size(); ++size) {
    const Bytes shorter(good.begin(), good.begin() + std::ptrdiff_t(size));
    check_refused(op, !api->restore(op.name, shorter), "rebuild the engine");
  }
  Bytes longer = good;
  longer.push_back(0);
  check_refused(op, !api->restore(op.name, longer), "damaged");
  for (std::size_t at = 0; at < good.size(); ++at) {
    Bytes altered = good;
    altered[at] ^= static_cast<unsigned char>(1u << (at % 8));
    check_refused(op, !api->restore(op.name, altered), "rebuild the engine");
  }

  std::mt19937 random(17);
  for (int round = 0; round < rounds; ++round) {
    Bytes nonsense = good;
    for (unsigned changes = 1 + random() % 4; changes; --changes) {
      const std::size_t number = 168 + 8 * (random() % ((good.size() - 176) / 8));  // one of the eight-byte numbers
      const uint64_t values[] = {0, 1, 2, 3, 0x7fffffff, 0x80000000, 0xffffffff, ~uint64_t(0), uint64_t(1) << 63,
                                 random()};
      const uint64_t value = values[random() % 10];
      if (random() % 4 == 0)
        nonsense[8 + random() % 160] = static_cast<unsigned char>(random());  // the names
      else
        for (std::size_t i = 0; i < 8; ++i) nonsense[number + i] = static_cast<unsigned char>(value >> (8 * i));
    }
    sign(nonsense);
    use(op, nonsense);
    logged();
  }
}

}  // namespace checks
