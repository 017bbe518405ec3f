#include "amx_usable.h"

#include <cstring>
#include <vector>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace dance {
namespace {

#if defined(__linux__) && defined(__x86_64__)

// Intel's Software Developer's Manual, volume 1, chapter 18: leaf 7 says what the processor has, XCR0 what the system saves,
// leaf 1DH how large tiles are.
bool processor_has_amx() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c >> 27 & 1)) return false;  // OSXSAVE
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d >> 24 & 1) || !(d >> 22 & 1)) return false;  // AMX-TILE, AMX-BF16
  unsigned low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  if ((low >> 17 & 3) != 3) return false;  // tile configuration and tile data
  if (!__get_cpuid_count(0x1d, 1, &a, &b, &c, &d)) return false;
  return (b & 0xffff) == 64 && b >> 16 >= 8 && (c & 0xffff) == 16;  // bytes of a row, tiles, rows
}

// Linux gives the state of tiles to processes that ask for it (5.16 and newer; Documentation/arch/x86/xstate.rst).
bool system_permits() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

#else
bool processor_has_amx() { return false; }
bool system_permits() { return false; }
#endif

uint32_t bf16_of_whole(int value) {  // of a few bits: exact
  const float number = float(value);
  uint32_t bits;
  std::memcpy(&bits, &number, 4);
  return bits >> 16;
}

// A call of `rows` whose result is known: numbers of -8 to 8, so that sums are exact in any order.
class KnownProduct {
 public:
  // apart: rows lie unevenly; picked: weights are put together from halves of rows, in pairs of kept channels.
  KnownProduct(int vector, int rows, bool apart, bool picked) : vector_(vector), rows_(rows), picked_(picked) {
    for (int i = 0; i < rows; ++i) row_in_.push_back(i * kWidth + (apart ? i * i % 3 : 0)), row_out_.push_back(i);
    x_ = random_units(std::size_t(rows * kWidth + 3 + kSecondIn + kLength));
    weights_ = random_units(std::size_t(kWeightRows * columns()));
    for (int i = 0; i < 2 * kLength; ++i) index_.push_back(picked ? i * 2 + i % 3 % 2 : i);
    index_.resize(index_.size() + 2 * kPrefetchRows, 0);
  }

  bool right(RowsFunction function) const {
    const Segment segments[2] = {{0, 0, kLength, 0}, {kSecondIn, kSecondWeight, kSecondLength, 0}};
    std::vector<float> sums(std::size_t(rows_ * columns()), -1.0f);
    RowsArgs a{};
    a.x = reinterpret_cast<const float*>(x_.data());
    a.row_in = row_in_.data(), a.row_out = row_out_.data(), a.rows = rows_;
    a.segments = segments, a.segment_count = 2;
    a.weights = reinterpret_cast<const float*>(weights_.data());
    a.weight_index = picked_ ? index_.data() : nullptr;
    a.acc = sums.data(), a.vectors = kVectors;
    function(a);
    for (int row = 0; row < rows_; ++row)
      for (int column = 0; column < columns(); ++column) {
        int expected = 0;
        for (const Segment& s : segments)
          for (int i = 0; i < 2 * s.length; ++i) {  // channels
            const int of_weight = picked_ ? index_[std::size_t(i)] : i;
            const int x = whole(x_[std::size_t(row_in_[std::size_t(row)] + s.in + i / 2)], i % 2);
            expected += x * whole(weights_[std::size_t((s.weight + of_weight / 2) * columns() + column)], of_weight % 2);
          }
        if (sums[std::size_t(row * columns() + column)] != float(expected)) return false;
      }
    return true;
  }

 private:
  static constexpr int kVectors = 2, kLength = 37, kSecondIn = 41, kSecondLength = 16, kSecondWeight = 80;
  static constexpr int kWidth = 60;         // units from row to row
  static constexpr int kWeightRows = kSecondWeight + 2 * kLength + kPrefetchRows;
  int columns() const { return kVectors * vector_; }

  static int whole(uint32_t unit, int half) {
    const uint32_t bits = half ? unit & 0xffff0000u : unit << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return int(value);
  }
  std::vector<uint32_t> random_units(std::size_t count) {
    std::vector<uint32_t> units(count);
    for (uint32_t& unit : units) unit = bf16_of_whole(draw()) | bf16_of_whole(draw()) << 16;
    return units;
  }
  int draw() {
    state_ = state_ * 1664525u + 1013904223u;
    return int(state_ >> 16) % 17 - 8;
  }

  const int vector_, rows_;
  const bool picked_;
  uint32_t state_ = 1;
  std::vector<int64_t> row_in_;
  std::vector<int32_t> row_out_, index_;
  std::vector<uint32_t> x_, weights_;
};

}  // namespace

bool rows_agree(RowsFunction rows, int vector) {
  for (int count : {1, 21, 70})
    for (bool apart : {false, true})
      for (bool picked : {false, true})
        if (!KnownProduct(vector, count, apart, picked).right(rows)) return false;
  return true;
}

bool amx_usable(RowsFunction rows) {
  static const bool usable = processor_has_amx() && system_permits() && rows_agree(rows, 16);
  return usable;
}

}  // namespace dance
