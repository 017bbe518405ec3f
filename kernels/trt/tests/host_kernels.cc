// dance_cuda.h on the host, by plain loops that count their calls: for checking the plugins, not the kernels.
// It is as strict as the real one: alignment, workspace, and packed weights of the very setup they are used with.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "../../cuda/dance_cuda.h"
#include "host_device.h"

namespace dance {
namespace cuda {
namespace {

struct PackedHead {
  char magic[8];
  int64_t algorithm;
};
constexpr char kMagic[8] = {'p', 'a', 'c', 'k', 'e', 'd', '!', 0};

HostDevice& device() {
  HostDevice& d = *dance_host_device();
  d.recording = true;
  return d;
}

float load(const void* data, Type type, int64_t i) {
  return type == Type::f32 ? static_cast<const float*>(data)[i] : float(static_cast<const _Float16*>(data)[i]);
}
void store(void* data, Type type, int64_t i, float value) {
  if (type == Type::f32)
    static_cast<float*>(data)[i] = value;
  else
    static_cast<_Float16*>(data)[i] = _Float16(value);
}
bool keeps(const void* mask, MaskType type, int64_t i) {
  return type == MaskType::byte ? static_cast<const uint8_t*>(mask)[i] != 0 : static_cast<const float*>(mask)[i] != 0.f;
}
void set(void* mask, MaskType type, int64_t i, bool keep) {
  if (type == MaskType::byte)
    static_cast<uint8_t*>(mask)[i] = keep;
  else
    static_cast<float*>(mask)[i] = keep;
}
bool aligned(std::initializer_list<const void*> pointers) {
  for (const void* p : pointers)
    if (reinterpret_cast<uintptr_t>(p) % 16) return false;
  return true;
}
int64_t at(bool channels_last, int64_t channels, const int64_t* sizes, int64_t n, int64_t c, int64_t t, int64_t h,
           int64_t w) {
  return channels_last ? (((n * sizes[0] + t) * sizes[1] + h) * sizes[2] + w) * channels + c
                       : (((n * channels + c) * sizes[0] + t) * sizes[1] + h) * sizes[2] + w;
}
int64_t weight_count(const ConvGeometry& g) { return g.m * (g.c / g.group) * g.kernel[0] * g.kernel[1] * g.kernel[2]; }

}  // namespace

ConvSetup::ConvSetup()
    : geometry(), mask_type(MaskType::byte), minimum(std::numeric_limits<float>::lowest()),
      algorithm(Algorithm::automatic), multiprocessors(1) {}

const char* status_text(Status status) {
  static const char* const texts[] = {"ok", "a bad shape", "too large", "unsupported", "a null pointer",
                                      "a misaligned pointer", "too small a workspace", "a launch failed"};
  return texts[int(status)];
}
int last_cuda_error() { return 0; }
int multiprocessor_count() { return device().multiprocessors; }
const char* conv_variant(const ConvSetup&) { return "host"; }

// Two algorithms with packings of their own, by the size of the map, so that dynamic shapes meet both.
Status conv_init(ConvSetup* setup) {
  ConvGeometry& g = setup->geometry;
  if (!conv_out_size(g)) return Status::bad_shape;
  setup->algorithm = g.h * g.w >= 100 ? Algorithm::winograd : Algorithm::direct;
  return Status::ok;
}
Status workspace_bytes(const ConvSetup& setup, std::size_t* bytes) {
  const ConvGeometry& g = setup.geometry;
  *bytes = std::size_t(g.n * g.c * g.t * g.h * g.w * 4 + 64 * setup.multiprocessors);
  return Status::ok;
}
Status packed_weights_bytes(const ConvSetup& setup, std::size_t* bytes) {
  const std::size_t each = setup.algorithm == Algorithm::winograd ? 16 : 4;
  *bytes = sizeof(PackedHead) + std::size_t(weight_count(setup.geometry)) * each;
  return Status::ok;
}
Status pack_weights(const ConvSetup& setup, const void* w, void* packed, Stream) {
  ++device().packs;
  if (!aligned({w, packed})) return Status::misaligned;
  if (device().capturing) return Status::ok;
  PackedHead head{{}, int64_t(setup.algorithm)};
  std::memcpy(head.magic, kMagic, 8);
  std::memcpy(packed, &head, sizeof head);
  float* values = reinterpret_cast<float*>(static_cast<char*>(packed) + sizeof head);
  for (int64_t i = 0; i < weight_count(setup.geometry); ++i) values[i] = load(w, setup.geometry.type, i);
  return Status::ok;
}

Status gated_conv3d(const ConvSetup& setup, const ConvTensors& p, Stream) {
  ++device().convs;
  const ConvGeometry& g = setup.geometry;
  std::size_t needed = 0;
  workspace_bytes(setup, &needed);
  if (!p.x || !p.packed || !p.b || !p.frame_keep || !p.channel_keep || !p.feature_keep || !p.y || !p.workspace)
    return Status::null_pointer;
  if (!aligned({p.x, p.packed, p.b, p.frame_keep, p.channel_keep, p.feature_keep, p.z, p.y, p.workspace}))
    return Status::misaligned;
  if (p.workspace_bytes < needed) return Status::workspace_too_small;
  if (device().capturing) return Status::ok;
  std::memset(p.workspace, 0xff, needed);
  PackedHead head;
  std::memcpy(&head, p.packed, sizeof head);
  if (std::memcmp(head.magic, kMagic, 8) || head.algorithm != int64_t(setup.algorithm)) return Status::unsupported;
  const float* weights = reinterpret_cast<const float*>(static_cast<const char*>(p.packed) + sizeof head);
  const int64_t inputs = g.c / g.group, outputs = g.m / g.group, in[3] = {g.t, g.h, g.w};
  for (int64_t n = 0; n < g.n; ++n)
    for (int64_t m = 0; m < g.m; ++m)
      for (int64_t o = 0; o < g.out[0] * g.out[1] * g.out[2]; ++o) {
        const int64_t out[3] = {o / (g.out[1] * g.out[2]), o / g.out[2] % g.out[1], o % g.out[2]};
        double sum = load(p.b, g.type, m);
        const int64_t y = at(g.channels_last, g.m, g.out, n, m, out[0], out[1], out[2]);
        if (p.z) sum += load(p.z, g.type, y);
        for (int64_t k = 0; k < g.kernel[0] * g.kernel[1] * g.kernel[2]; ++k) {
          const int64_t tap[3] = {k / (g.kernel[1] * g.kernel[2]), k / g.kernel[2] % g.kernel[1], k % g.kernel[2]};
          int64_t from[3];
          bool inside = true;
          for (int axis = 0; axis < 3; ++axis) {
            from[axis] = out[axis] * g.strides[axis] - g.pads[axis] + tap[axis] * g.dilations[axis];
            inside = inside && from[axis] >= 0 && from[axis] < in[axis];
          }
          if (!inside || !keeps(p.frame_keep, setup.mask_type, n * g.t + from[0]) ||
              !keeps(p.feature_keep, setup.mask_type, (n * g.h + from[1]) * g.w + from[2]))
            continue;
          for (int64_t i = 0; i < inputs; ++i) {
            const int64_t c = m / outputs * inputs + i;
            if (!keeps(p.channel_keep, setup.mask_type, n * g.c + c)) continue;
            sum += double(load(p.x, g.type, at(g.channels_last, g.c, in, n, c, from[0], from[1], from[2]))) *
                   weights[(m * inputs + i) * g.kernel[0] * g.kernel[1] * g.kernel[2] + k];
          }
        }
        store(p.y, g.type, y, sum < setup.minimum ? setup.minimum : float(sum));
      }
  return Status::ok;
}

Status gate_workspace_bytes(const GateSetup& setup, std::size_t* bytes) {
  *bytes = std::size_t(setup.n * (setup.t + setup.c + setup.h * setup.w) * 8);
  return Status::ok;
}

namespace {

// One step of the gate: keep i unless means[i] < tau * their mean, or it is the largest.
std::vector<char> kept(const std::vector<double>& means, float tau) {
  double mean = 0, largest = -1;
  for (double m : means) mean += m / double(means.size()), largest = m > largest ? m : largest;
  std::vector<char> keep;
  for (double m : means) keep.push_back(!(m < tau * mean) || m == largest);
  return keep;
}

}  // namespace

Status gate(const GateSetup& s, const GateTensors& p, Stream) {
  ++device().gates;
  std::size_t needed = 0;
  gate_workspace_bytes(s, &needed);
  if (!p.x || !p.tau || !p.frame_keep || !p.channel_keep || !p.feature_keep || !p.workspace)
    return Status::null_pointer;
  if (!aligned({p.x, p.tau, p.frame_keep, p.channel_keep, p.feature_keep, p.workspace})) return Status::misaligned;
  if (p.workspace_bytes < needed) return Status::workspace_too_small;
  if (device().capturing) return Status::ok;
  std::memset(p.workspace, 0xff, needed);
  const int64_t sizes[3] = {s.t, s.h, s.w}, pixels = s.h * s.w;
  for (int64_t n = 0; n < s.n; ++n) {
    std::vector<char> frames(s.t, 1), channels(s.c, 1);
    const auto magnitude = [&](int step, int64_t index) {
      double sum = 0;
      int64_t count = 0;
      for (int64_t t = 0; t < s.t; ++t)
        for (int64_t c = 0; c < s.c; ++c)
          for (int64_t i = 0; i < pixels; ++i) {
            if (!frames[t] || !channels[c] || index != (step == 0 ? t : step == 1 ? c : i)) continue;
            sum += std::fabs(load(p.x, s.type, at(s.channels_last, s.c, sizes, n, c, t, i / s.w, i % s.w)));
            ++count;
          }
      return count ? sum / double(count) : 0.0;
    };
    const int64_t counts[3] = {s.t, s.c, pixels};
    void* const masks[3] = {p.frame_keep, p.channel_keep, p.feature_keep};
    for (int step = 0; step < 3; ++step) {
      std::vector<double> means;
      for (int64_t i = 0; i < counts[step]; ++i) means.push_back(magnitude(step, i));
      const std::vector<char> keep = kept(means, p.tau[n * 3 + step]);
      for (int64_t i = 0; i < counts[step]; ++i) set(masks[step], s.mask_type, n * counts[step] + i, keep[i]);
      if (step == 0) frames = keep;
      if (step == 1) channels = keep;
    }
  }
  return Status::ok;
}

}  // namespace cuda
}  // namespace dance
