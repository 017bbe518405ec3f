// Intel AMX tiles: the processor's own, or for tests an emulation of them that says what was misused and aborts. Eight
// registers, each of up to 16 rows of up to 64 bytes, in the places that amx_rows.inc gives them.
#pragma once
#include <cstdint>
#if defined(__AMX_TILE__) && defined(__AMX_BF16__)
#include <immintrin.h>
#else
#include <cstdio>
#include <cstdlib>
#include <cstring>
#endif

#include "vec.h"

namespace dance {
namespace DANCE_ISA {

constexpr int kTile = 16;      // most rows of a tile, and most of its 32-bit columns
constexpr int kRegisters = 8;
// 2 x 2 sums (register kSums + 2 r + c), the inputs of two tiles of rows, the weights of two tiles of columns
constexpr int kSums = 0, kInputs = 4, kWeightTiles = 6;

// What LDTILECFG reads: palette 1. Registers that are not used have no rows and no bytes.
struct alignas(64) TileConfig {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64, "LDTILECFG reads 64 bytes");

#if defined(__AMX_TILE__) && defined(__AMX_BF16__)

constexpr bool kNativeTiles = true;

// GCC's intrinsics do not say which memory they read: without this, what was just written there might be written later, or
// never. No instruction.
static inline void fence(const void* memory) { __asm__ volatile("" : : "r"(memory) : "memory"); }

static inline void configure_tiles(const TileConfig& config) {
  fence(&config);
  _tile_loadconfig(&config);
}
static inline void release_tiles() { _tile_release(); }

template <int T>
static inline void zero_tile() {
  static_assert(T < 4, "of the sums only");
  if constexpr (T == 0) _tile_zero(0);
  else if constexpr (T == 1) _tile_zero(1);
  else if constexpr (T == 2) _tile_zero(2);
  else _tile_zero(3);
}

// row_bytes: from one row to the next in memory.
template <int T>
static inline void load_tile(const void* from, int64_t row_bytes) {
  fence(from);
  if constexpr (T == 0) _tile_loadd(0, from, row_bytes);
  else if constexpr (T == 1) _tile_loadd(1, from, row_bytes);
  else if constexpr (T == 2) _tile_loadd(2, from, row_bytes);
  else if constexpr (T == 3) _tile_loadd(3, from, row_bytes);
  else if constexpr (T == 4) _tile_loadd(4, from, row_bytes);
  else if constexpr (T == 5) _tile_loadd(5, from, row_bytes);
  else if constexpr (T == 6) _tile_loadd(6, from, row_bytes);
  else _tile_loadd(7, from, row_bytes);
  fence(from);
}

template <int T>
static inline void store_tile(void* to, int64_t row_bytes) {
  static_assert(T < 4, "of the sums only");
  if constexpr (T == 0) _tile_stored(0, to, row_bytes);
  else if constexpr (T == 1) _tile_stored(1, to, row_bytes);
  else if constexpr (T == 2) _tile_stored(2, to, row_bytes);
  else _tile_stored(3, to, row_bytes);
  fence(to);
}

// Sums of rows R and columns C += their inputs x their weights.
template <int R, int C>
static inline void multiply_tiles() {
  if constexpr (R == 0 && C == 0) _tile_dpbf16ps(0, 4, 6);
  else if constexpr (R == 0) _tile_dpbf16ps(1, 4, 7);
  else if constexpr (C == 0) _tile_dpbf16ps(2, 5, 6);
  else _tile_dpbf16ps(3, 5, 7);
}

#else

constexpr bool kNativeTiles = false;

// Follows the pseudo-code of Intel's manual (Software Developer's Manual, volume 2: LDTILECFG, TILELOADD, TDPBF16PS, and the
// exception classes AMX-E1 to E6).
struct Tiles {
  bool configured;
  TileConfig config;
  unsigned char data[kRegisters][kTile][4 * kTile];
};

static inline Tiles& tiles() {
  static thread_local Tiles of_thread;
  return of_thread;
}

static inline void require(bool holds, const char* otherwise) {
  if (holds) return;
  std::fprintf(stderr, "AMX emulation: %s\n", otherwise);
  std::abort();
}

static inline void configure_tiles(const TileConfig& config) {
  require(config.palette == 1 && config.start_row == 0, "LDTILECFG: palette is not 1, or start_row not 0");
  for (uint8_t byte : config.reserved) require(byte == 0, "LDTILECFG: a reserved byte is not 0");
  for (int t = 0; t < 16; ++t) {
    const int rows = config.rows[t], bytes = config.row_bytes[t];
    require(t < kRegisters || (rows == 0 && bytes == 0), "LDTILECFG: palette 1 has 8 tiles");
    require(rows <= kTile && bytes <= 4 * kTile, "LDTILECFG: a tile has more than 16 rows, or more than 64 bytes a row");
    require((rows == 0) == (bytes == 0), "LDTILECFG: a tile has rows without bytes, or bytes without rows");
  }
  Tiles& t = tiles();
  t.configured = true, t.config = config;
  std::memset(t.data, 0, sizeof t.data);
}

static inline void release_tiles() { std::memset(&tiles(), 0, sizeof(Tiles)); }

static inline Tiles& configured(int tile) {
  Tiles& t = tiles();
  require(t.configured, "a tile is used, but none is configured");
  require(t.config.rows[tile] != 0, "a tile is used that is not configured");
  return t;
}

template <int T>
static inline void zero_tile() {
  std::memset(configured(T).data[T], 0, sizeof(tiles().data[T]));
}

template <int T>
static inline void load_tile(const void* from, int64_t row_bytes) {
  zero_tile<T>();
  Tiles& t = tiles();
  for (int r = 0; r < t.config.rows[T]; ++r)
    std::memcpy(t.data[T][r], static_cast<const char*>(from) + r * row_bytes, t.config.row_bytes[T]);
}

template <int T>
static inline void store_tile(void* to, int64_t row_bytes) {
  const Tiles& t = configured(T);
  for (int r = 0; r < t.config.rows[T]; ++r)
    std::memcpy(static_cast<char*>(to) + r * row_bytes, t.data[T][r], t.config.row_bytes[T]);
}

// Subnormal numbers are zeros, on the way in and on the way out.
static inline float flushed(uint32_t bits) { return float_from_bits(bits & 0x7f800000u ? bits : bits & 0x80000000u); }

// p + q, numbers of at most 24 bits, rounded once to float, to nearest, ties to even: a double has more than 2 x 24 + 1 bits,
// so that rounding to it first changes nothing (Figueroa, 1995). What is subnormal when rounded to 24 bits is a zero.
static inline float rounded_sum(double p, double q) {
  constexpr double kSmall = 7.888609052210118e-31;       // 2^-100
  constexpr double kLarge = 1.2676506002282294e30;       // 2^100
  constexpr float kSmallest = 1.4901161193847656e-8f;    // 2^-126 x 2^100
  const double sum = p + q;
  if (!(sum < kSmall && sum > -kSmall)) return float(sum);
  const float scaled = float(sum * kLarge);
  if (scaled < kSmallest && scaled > -kSmallest) return __builtin_copysignf(0.0f, float(sum));
  return float(double(scaled) * kSmall);
}

template <int R, int C>
static inline void multiply_tiles() {
  constexpr int kSum = kSums + 2 * R + C, kInput = kInputs + R, kWeight = kWeightTiles + C;
  configured(kInput), configured(kWeight);
  Tiles& t = configured(kSum);
  const TileConfig& config = t.config;
  require(config.row_bytes[kSum] % 4 == 0 && config.row_bytes[kInput] % 4 == 0, "TDPBF16PS: rows are not of whole 4 bytes");
  require(config.rows[kInput] == config.rows[kSum], "TDPBF16PS: inputs and sums differ in rows");
  require(config.row_bytes[kWeight] == config.row_bytes[kSum], "TDPBF16PS: weights and sums differ in columns");
  require(config.row_bytes[kInput] == 4 * config.rows[kWeight], "TDPBF16PS: inputs have not a pair for every row of weights");
  const int units = config.rows[kWeight], columns = config.row_bytes[kSum] / 4;
  const auto word = [&t](int tile, int row, int column) {
    uint32_t bits;
    std::memcpy(&bits, &t.data[tile][row][4 * column], 4);
    return bits;
  };
  for (int row = 0; row < config.rows[kSum]; ++row) {
    float even[kTile] = {}, odd[kTile] = {};
    for (int k = 0; k < units; ++k) {
      const uint32_t input = word(kInput, row, k);
      const double low = flushed(input << 16), high = flushed(input & 0xffff0000u);
      for (int n = 0; n < columns; ++n) {
        const uint32_t weight = word(kWeight, k, n);  // the products of two bfloat16 numbers are doubles without rounding
        even[n] = rounded_sum(even[n], low * double(flushed(weight << 16)));
        odd[n] = rounded_sum(odd[n], high * double(flushed(weight & 0xffff0000u)));
      }
    }
    for (int n = 0; n < columns; ++n) {
      const float pairs = rounded_sum(even[n], odd[n]);
      const float sum = rounded_sum(flushed(word(kSum, row, n)), pairs);
      std::memcpy(&t.data[kSum][row][4 * n], &sum, 4);
    }
  }
}

#endif

}  // namespace DANCE_ISA
}  // namespace dance
