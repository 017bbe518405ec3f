// The CUDA kernels on the host, driven by requests on stdin, for tests/kernels/ (Python): built with the shim and the address
// and undefined-behaviour sanitizers. Every buffer has its exact size; outputs, workspaces and packed weights hold NaN before
// a call; inputs must come back unchanged.
//
// A request: int64 numbers (struct below, in its order), then the arrays. An answer: int64 status, launches, multiply-adds,
// algorithm, bytes of the variant's name, bytes of the result; the name; the result. Ends with its input.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "../dance_cuda.h"
#include "../shim/cuda_shim.h"

namespace {

using namespace dance;
using namespace dance::cuda;

constexpr int64_t kInputWritten = 100;

bool read_exactly(void* to, std::size_t bytes) { return bytes == 0 || std::fread(to, 1, bytes, stdin) == bytes; }

int64_t read_number() {
  int64_t value;
  if (!read_exactly(&value, sizeof value)) std::exit(0);
  return value;
}

// Memory of exactly so many bytes. `bytes` 0: null.
struct Buffer {
  std::size_t bytes;
  char* data;
  std::vector<char> before;
  explicit Buffer(std::size_t size) : bytes(size), data(size ? static_cast<char*>(std::malloc(size)) : nullptr) {
    if (data) std::memset(data, 0xff, size);
  }
  Buffer(const Buffer&) = delete;
  ~Buffer() { std::free(data); }
  void receive() {
    if (!read_exactly(data, bytes)) std::exit(1);
    before.assign(data, data + bytes);
  }
  bool unchanged() const { return bytes == 0 || std::memcmp(before.data(), data, bytes) == 0; }
};

void answer(int64_t status, int64_t launches, int64_t fmas, int64_t algorithm, const char* variant,
            std::initializer_list<const Buffer*> results) {
  int64_t bytes = 0;
  for (const Buffer* result : results) bytes += int64_t(result->bytes);
  const int64_t head[6] = {status, launches, fmas, algorithm, int64_t(std::strlen(variant)), bytes};
  std::fwrite(head, sizeof head, 1, stdout);
  std::fwrite(variant, 1, std::strlen(variant), stdout);
  for (const Buffer* result : results) std::fwrite(result->data, 1, result->bytes, stdout);
  std::fflush(stdout);
}

std::size_t mask_bytes(int64_t entries, MaskType type) { return std::size_t(entries) * (type == MaskType::f32 ? 4 : 1); }

void convolution() {
  ConvSetup setup;
  ConvGeometry& g = setup.geometry;
  for (int64_t* field : {&g.n, &g.c, &g.t, &g.h, &g.w, &g.m}) *field = read_number();
  for (int64_t& value : g.kernel) value = read_number();
  for (int64_t& value : g.strides) value = read_number();
  for (int64_t& value : g.pads) value = read_number();
  for (int64_t& value : g.dilations) value = read_number();
  g.group = read_number();
  g.channels_last = read_number() != 0;
  g.type = Type(read_number());
  setup.mask_type = MaskType(read_number());
  setup.algorithm = Algorithm(read_number());
  setup.multiprocessors = int(read_number());
  const bool with_z = read_number() != 0, send = read_number() != 0;  // send: arrays follow
  double minimum;
  if (!read_exactly(&minimum, sizeof minimum)) std::exit(1);
  setup.minimum = float(minimum);

  const Status ready = conv_init(&setup);
  if (ready != Status::ok || !send) return answer(int64_t(ready), 0, 0, int64_t(setup.algorithm), conv_variant(setup), {});
  const std::size_t element = g.type == Type::f32 ? 4 : 2;
  Buffer x(std::size_t(g.n * g.c * g.t * g.h * g.w) * element);
  Buffer w(std::size_t(g.m * g.channels_per_group() * g.kernel[0] * g.kernel[1] * g.kernel[2]) * element);
  Buffer b(std::size_t(g.m) * element);
  Buffer frame(mask_bytes(g.n * g.t, setup.mask_type)), channel(mask_bytes(g.n * g.c, setup.mask_type));
  Buffer feature(mask_bytes(g.n * g.h * g.w, setup.mask_type));
  Buffer y(std::size_t(g.n * g.m * g.out[0] * g.out[1] * g.out[2]) * element), z(with_z ? y.bytes : 0);
  for (Buffer* input : {&x, &w, &b, &frame, &channel, &feature, &z}) input->receive();

  std::size_t packed_bytes = 0, scratch_bytes = 0;
  Status status = packed_weights_bytes(setup, &packed_bytes);
  if (status == Status::ok) status = workspace_bytes(setup, &scratch_bytes);
  Buffer packed(packed_bytes), scratch(scratch_bytes);
  if (status == Status::ok) status = pack_weights(setup, w.data, packed.data, nullptr);
  packed.before.assign(packed.data, packed.data + packed.bytes);
  ConvTensors tensors = {x.data, packed.data, b.data, frame.data, channel.data, feature.data, z.data, y.data,
                         scratch.data, scratch.bytes};
  const long before = shim::launches();
  const long long fmas_before = shim::fmas;
  if (status == Status::ok) status = gated_conv3d(setup, tensors, nullptr);
  int64_t code = int64_t(status);
  for (const Buffer* input : {&x, &w, &b, &frame, &channel, &feature, &z, &packed})
    if (!input->unchanged()) code = kInputWritten;
  answer(code, shim::launches() - before, shim::fmas - fmas_before, int64_t(setup.algorithm), conv_variant(setup), {&y});
}

void activation_gate() {
  GateSetup setup;
  for (int64_t* field : {&setup.n, &setup.c, &setup.t, &setup.h, &setup.w}) *field = read_number();
  setup.channels_last = read_number() != 0;
  setup.type = Type(read_number());
  setup.mask_type = MaskType(read_number());
  std::size_t scratch_bytes = 0;
  Status status = gate_workspace_bytes(setup, &scratch_bytes);
  if (status != Status::ok) return answer(int64_t(status), 0, 0, 0, "", {});
  Buffer x(std::size_t(setup.n * setup.c * setup.t * setup.h * setup.w) * (setup.type == Type::f32 ? 4 : 2));
  Buffer tau(std::size_t(setup.n) * 12), scratch(scratch_bytes);
  Buffer frame(mask_bytes(setup.n * setup.t, setup.mask_type)), channel(mask_bytes(setup.n * setup.c, setup.mask_type));
  Buffer feature(mask_bytes(setup.n * setup.h * setup.w, setup.mask_type));
  x.receive(), tau.receive();
  GateTensors tensors = {x.data, reinterpret_cast<const float*>(tau.data), frame.data, channel.data, feature.data,
                         scratch.data, scratch.bytes};
  const long before = shim::launches();
  status = gate(setup, tensors, nullptr);
  const int64_t code = x.unchanged() && tau.unchanged() ? int64_t(status) : kInputWritten;
  answer(code, shim::launches() - before, 0, 0, "", {&frame, &channel, &feature});
}

}  // namespace

int main() {
  for (;;) {
    const int64_t op = read_number();
    shim::seed(unsigned(read_number()));
    if (op == 0) convolution();
    else activation_gate();
  }
}
