// The inner loops in bfloat16, compiled once per variant like isa_kernels.cc: rows.inc and winograd.inc over 32-bit units
// of two channels. With AVX512-BF16 by VDPBF16PS, which adds two products to each float32 sum and takes subnormal numbers
// for zeros; without it by float32 arithmetic on rounded values, so that tests have something to compare with. With DANCE_AMX
// rows are multiplied on AMX tiles instead (amx_rows.inc), emulated ones where the compiler is not told to use them.
#pragma GCC diagnostic ignored "-Wunused-function"  // of the files included, for float32
#include "amx_usable.h"
#include "isa.h"
#include "layout.inc"
#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

#define DANCE_ROWS_OF_PAIRS

namespace dance {
namespace DANCE_ISA {

constexpr bool kPairs = true;

#if defined(__AVX512BF16__)
constexpr bool kNative = true;

// Words of two rows of units: by bit 0 of the number whether the low half is the odd one of the first, by bit 1 of the second.
struct Picks {
  uint32_t words[4][kVector];
};
static constexpr Picks picks() {
  Picks p{};
  for (uint32_t which = 0; which < 4; ++which)
    for (uint32_t i = 0; i < kVector; ++i) p.words[which][i] = (2 * i + which % 2) | (2 * kVector + 2 * i + which / 2) << 16;
  return p;
}
alignas(64) static constexpr Picks kPicks = picks();

static inline Vec merged(const float* first, const float* second, int which) {
  const __m512i words = _mm512_load_si512(kPicks.words[which]);
  return (Vec)_mm512_permutex2var_epi16(_mm512_loadu_si512(first), words, _mm512_loadu_si512(second));
}
static inline Vec add_product(Vec sum, float x, Vec w) {
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_ps(x), (__m512bh)w);
}
static inline void store_component(float* out, int64_t channel, Vec v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + channel / 2), (__m256i)_mm512_cvtneps_pbh((__m512)v));
}
static inline Vec units_from(Vec low, Vec high) { return (Vec)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low); }
#else
constexpr bool kNative = false;

static inline Vec merged(const float* first, const float* second, int which) {
  return (Vec)(((Bits)load(first) >> (which % 2 * 16) & 0xffffu) | (Bits)load(second) >> (which / 2 * 16) << 16);
}
static inline Vec add_product(Vec sum, float x, Vec w) {
  const uint32_t bits = bits_from_float(x);
  sum += float_from_bits(bits & 0xffff0000u) * (Vec)((Bits)w & 0xffff0000u);
  return sum + float_from_bits(bits << 16) * (Vec)((Bits)w << 16);
}
static inline void store_component(float* out, int64_t channel, Vec v) {
  uint32_t units[kVector / 2];
  for (int i = 0; i < kVector / 2; ++i) units[i] = bf16_from_float(v[2 * i]) | bf16_from_float(v[2 * i + 1]) << 16;
  __builtin_memcpy(out + channel / 2, units, sizeof units);
}
#endif

static void round_to_units(const float* x, int64_t count, float* units) {
  int64_t i = 0;
#if defined(__AVX512BF16__)
  for (; i + 2 * kVector <= count; i += 2 * kVector) store(units + i / 2, units_from(load(x + i), load(x + i + kVector)));
#endif
  for (; i < count; i += 2) {
    const uint32_t unit = bf16_from_float(x[i]) | bf16_from_float(x[i + 1]) << 16;
    __builtin_memcpy(units + i / 2, &unit, 4);
  }
}

static void merge(const float* first, const float* second, int which, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += kVector) store(out + i, merged(first + i, second + i, which));
}

}  // namespace DANCE_ISA
}  // namespace dance

#include "rows.inc"
#include "winograd.inc"
#ifdef DANCE_AMX
#include "amx_rows.inc"
#endif

#define DANCE_TEXT_(x) #x
#define DANCE_TEXT(x) DANCE_TEXT_(x)
#define DANCE_TABLE_(isa) pairs_##isa
#define DANCE_TABLE(isa) DANCE_TABLE_(isa)

namespace dance {

extern const PairKernels DANCE_TABLE(DANCE_ISA);

namespace DANCE_ISA {
static bool supported() { return DANCE_SUPPORTED; }
#ifdef DANCE_AMX
static_assert(kNative == kNativeTiles, "both the processor's own, or both emulated");
constexpr auto kRows = rows_by_tiles;
constexpr auto kTileProduct = tile_product;
#else
constexpr auto kRows = rows;
constexpr void (*kTileProduct)(const TileProductArgs&) = nullptr;
#endif
}  // namespace DANCE_ISA

const PairKernels DANCE_TABLE(DANCE_ISA) = {
    DANCE_TEXT(DANCE_ISA), DANCE_ISA::supported,   DANCE_ISA::kNative,
    DANCE_ISA::kRows,      DANCE_ISA::winograd_in, DANCE_ISA::round_to_units,
    DANCE_ISA::merge,      DANCE_ISA::kTileProduct,
};

}  // namespace dance
