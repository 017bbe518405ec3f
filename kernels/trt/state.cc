#include "state.h"

#include <algorithm>
#include <cstring>

namespace dance {
namespace trt {
namespace {

constexpr uint32_t kMagic = 0x54434e44;  // "DNCT"
constexpr std::size_t kOpName = 32, kNode = kLongestNode + 1;
// Magic and version, two strings, attributes, what configuring adds, checksum.
constexpr std::size_t kNumbers = 3 + 6 + 3 + 1 + 1, kConfigured = 1 + 1 + 1 + 2 + 2;
static_assert(kStateBytes == 8 + kOpName + kNode + 8 * (kNumbers + kConfigured) + 8, "as save writes it");
constexpr uint64_t kMostBytes = uint64_t(1) << 40;
constexpr int64_t kMostMultiprocessors = 4096;

// Every number is written with eight bytes, least significant first.
struct Writer {
  unsigned char* at;
  void number(uint64_t value) {
    for (int i = 0; i < 8; ++i) *at++ = static_cast<unsigned char>(value >> (8 * i));
  }
  void numbers(const int64_t* values, int count) {
    for (int i = 0; i < count; ++i) number(uint64_t(values[i]));
  }
  void string(const std::string& value, std::size_t room) {
    std::memset(at, 0, room);
    std::memcpy(at, value.data(), std::min(value.size(), room - 1));
    at += room;
  }
};

struct Reader {
  const unsigned char* at;
  uint64_t number() {
    uint64_t value = 0;
    for (int i = 0; i < 8; ++i) value |= uint64_t(*at++) << (8 * i);
    return value;
  }
  void numbers(int64_t* values, int count) {
    for (int i = 0; i < count; ++i) values[i] = static_cast<int64_t>(number());
  }
  std::string string(std::size_t room) {
    const char* text = reinterpret_cast<const char*>(at);
    at += room;
    return std::string(text, std::find(text, text + room, '\0'));
  }
};

// FNV-1a. It finds damage, not malice: everything is checked after it.
uint64_t checksum(const unsigned char* bytes, std::size_t size) {
  uint64_t sum = 0xcbf29ce484222325u;
  for (std::size_t i = 0; i < size; ++i) sum = (sum ^ bytes[i]) * 0x100000001b3u;
  return sum;
}

uint32_t bits_of(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

float float_of(uint64_t bits) {
  const uint32_t low = uint32_t(bits);
  float value;
  std::memcpy(&value, &low, sizeof value);
  return value;
}

void read_configured(Reader& in, State& state) {
  const uint64_t configured = in.number(), half = in.number();
  in.numbers(&state.multiprocessors, 1);
  for (uint64_t& bytes : state.workspace) bytes = in.number();
  for (uint64_t& bytes : state.packed) bytes = in.number();
  state.configured = configured != 0;
  state.type = half ? Element::f16 : Element::f32;
  bool good = configured <= 1 && half <= 1;
  good = good && state.multiprocessors >= 0 && state.multiprocessors <= kMostMultiprocessors;
  for (uint64_t bytes : state.workspace) good = good && bytes <= kMostBytes;
  for (uint64_t bytes : state.packed) good = good && bytes <= kMostBytes;
  if (!good) throw Refusal{place(*state.kind, state.node) + ": the engine's data are out of range; rebuild the engine"};
}

void check_head(const OpKind& kind, const unsigned char* bytes, std::size_t size) {
  Reader in{bytes};
  const uint64_t head = bytes && size >= 8 ? in.number() : 0;
  if (uint32_t(head) != kMagic)
    throw Refusal{std::string(kind.name) + ": the engine's data for it are not ours; rebuild the engine"};
  if (head >> 32 != kStateVersion)
    throw Refusal{std::string(kind.name) + ": the engine was built with data version " + std::to_string(head >> 32) +
                  " of this plugin, this library reads " + std::to_string(kStateVersion) + "; rebuild the engine"};
  if (size != kStateBytes || checksum(bytes, kStateBytes - 8) != Reader{bytes + kStateBytes - 8}.number())
    throw Refusal{std::string(kind.name) + ": the engine's data for it are damaged (" + std::to_string(size) +
                  " bytes); rebuild the engine"};
}

}  // namespace

void save(const State& state, void* bytes) {
  unsigned char* begin = static_cast<unsigned char*>(bytes);
  Writer out{begin};
  out.number(kMagic | uint64_t(kStateVersion) << 32);
  out.string(state.kind->name, kOpName);
  out.string(state.node, kNode);
  const Attributes& a = state.attributes;
  out.numbers(a.strides, 3), out.numbers(a.pads, 6), out.numbers(a.dilations, 3), out.numbers(&a.group, 1);
  out.number(bits_of(a.minimum));
  out.number(state.configured), out.number(state.type == Element::f16);
  out.numbers(&state.multiprocessors, 1);
  for (uint64_t size : state.workspace) out.number(size);
  for (uint64_t size : state.packed) out.number(size);
  out.number(checksum(begin, kStateBytes - 8));
}

State restore(const OpKind& kind, const void* bytes, std::size_t size) {
  const unsigned char* begin = static_cast<const unsigned char*>(bytes);
  check_head(kind, begin, size);
  Reader in{begin + 8};
  State state;
  state.kind = &kind;
  const std::string name = in.string(kOpName);
  if (name != kind.name) throw Refusal{std::string(kind.name) + ": the engine's data are for " + name};
  state.node = in.string(kNode);
  Attributes& a = state.attributes;
  in.numbers(a.strides, 3), in.numbers(a.pads, 6), in.numbers(a.dilations, 3), in.numbers(&a.group, 1);
  a.minimum = float_of(in.number());
  read_configured(in, state);
  check_attributes(place(kind, state.node), a);
  return state;
}

}  // namespace trt
}  // namespace dance
