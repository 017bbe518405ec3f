// What every check starts from: the six ops with shapes of which all extents differ, and a line for what fails.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>

#include "host_device.h"
#include "memory.h"

namespace checks {

struct Op {
  const char* name;
  bool gate, adds, channels_last;
};
constexpr Op kOps[] = {{"ActivationGate", true, false, false}, {"ActivationGateCl", true, false, true},
                       {"GatedConv3d", false, false, false},   {"GatedConv3dCl", false, false, true},
                       {"GatedConv3dAdd", false, true, false}, {"GatedConv3dAddCl", false, true, true}};

extern Api* api;
extern int failures;
void failed(const char* file, int line, const char* condition, const char* about);
#define CHECK(condition, about) \
  do { \
    if (!(condition)) checks::failed(__FILE__, __LINE__, #condition, about); \
  } while (false)

inline HostDevice& device() {
  using Get = HostDevice* (*)();
  static const Get get = reinterpret_cast<Get>(symbol("dance_host_device"));
  return *get();
}

// The refusal is one line that begins with the op, as users read it, and holds `part`.
inline void check_refused(const Op& op, bool refused, const std::string& part) {
  const std::vector<std::string> lines = logged();
  const std::string line = lines.empty() ? "" : lines.back();
  const std::string about = std::string(op.name) + ", expected a refusal with '" + part + "', logged '" + line + "'";
  CHECK(refused, about.c_str());
  CHECK(!lines.empty() && line.find(op.name) == 0 && line.find(part) != std::string::npos, about.c_str());
  CHECK(line.find('\n') == std::string::npos, about.c_str());
}

// X [n,4,3,h,6], W [6,2,3,3,2], group 2: no two extents alike in one tensor but where they must be.
constexpr int64_t kC = 4, kM = 6, kT = 3, kW = 6;
inline Dims laid_out(const Op& op, int64_t n, int64_t c, int64_t t, int64_t h, int64_t w) {
  return op.channels_last ? Dims{n, t, h, w, c} : Dims{n, c, t, h, w};
}
inline std::vector<Field> fields_of(const Op& op) {
  if (op.gate) return {};
  using Ints = std::vector<int32_t>;
  return {Field::of("strides", Ints{1, 2, 1}), Field::of("pads", Ints{1, 0, 1, 1, 1, 0}),
          Field::of("dilations", Ints{1, 1, 2}), Field::of("group", Ints{2}), Field::of("min", 0.f)};
}
inline int64_t h_out(int64_t h) { return (h + 1 - 3) / 2 + 1; }
inline Dims y_of(const Op& op, int64_t n, int64_t h) {
  return laid_out(op, n, kM, kT, h == -1 ? -1 : h_out(h), kW + 1 - 2);
}

inline Tensors inputs_of(const Op& op, Type type, Type mask, int64_t n = 1, int64_t h = 7) {
  Tensors in = {{type, laid_out(op, n, kC, kT, h, kW)}};
  if (op.gate) {
    in.push_back({Type::f32, {n, 3}});
    return in;
  }
  in.push_back({type, {kM, kC / 2, 3, 3, 2}});
  in.push_back({type, {kM}});
  in.push_back({mask, {n, kT}});
  in.push_back({mask, {n, kC}});
  in.push_back({mask, {n, h, kW}});
  if (op.adds) in.push_back({type, y_of(op, n, h)});
  return in;
}
inline Tensors outputs_of(const Op& op, Type type, int64_t n = 1, int64_t h = 7) {
  const Type mask = api->float_masks() ? Type::f32 : Type::boolean;
  if (op.gate) return {{mask, {n, kT}}, {mask, {n, kC}}, {mask, {n, h, kW}}};
  return {{type, y_of(op, n, h)}};
}
inline Tensors both(Tensors in, const Tensors& out) {
  in.insert(in.end(), out.begin(), out.end());
  return in;
}
inline std::vector<Dims> dims_of_all(const Tensors& tensors) {
  std::vector<Dims> out;
  for (const Tensor& tensor : tensors) out.push_back(tensor.dims);
  return out;
}
inline Type mask_type() { return api->float_masks() ? Type::f32 : Type::boolean; }

// Fills the inputs of a call: small numbers in X, W, B and Z, masks of 0 and 1, thresholds from 0 to 1.5. W is always
// the same: where memory is used again, so may its address be, and that is how a plugin knows its weights.
inline void fill(Call& call, unsigned seed) {
  std::mt19937 random(seed);
  const bool gate = call.in.size() == 2;
  for (std::size_t i = 0; i < call.inputs.size(); ++i) {
    const std::size_t size = size_of(call.in[i].type);
    random.seed(!gate && i == 1 ? 0 : seed + unsigned(i));
    for (std::size_t at = 0; at < call.inputs[i].bytes(); at += size) {
      unsigned char* to = static_cast<unsigned char*>(call.inputs[i].data()) + at;
      const float value = gate && i == 1          ? float(random() % 7) / 4.f
                          : !gate && i >= 3 && i <= 5 ? float(random() % 4 != 0)
                                                      : float(int(random() % 9) - 4) / 4.f;
      const _Float16 half = _Float16(value);
      if (call.in[i].type == Type::boolean) *to = value != 0;
      if (call.in[i].type == Type::f32) std::memcpy(to, &value, 4);
      if (call.in[i].type == Type::f16) std::memcpy(to, &half, 2);
    }
  }
}

inline std::unique_ptr<Node> made(const Op& op) { return api->create(op.name, "a node", fields_of(op)); }

// The checks, one file each.
void check_creation(const Op& op);
void check_shapes(const Op& op);
void check_formats(const Op& op);
void check_life(const Op& op);
void check_saved(const Op& op, int rounds);

}  // namespace checks
