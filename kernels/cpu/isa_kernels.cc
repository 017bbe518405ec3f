// Compiled once per instruction set with DANCE_ISA (its name), DANCE_VECTOR (floats in a vector), DANCE_REGISTERS
// (vector registers), DANCE_SUPPORTED (an expression: does this machine have it) and DANCE_PAIRS (PAIR(name) for each variant
// of pair_kernels.cc that goes with it, best first). See the Makefile.
#include "by_pixel.inc"
#include "depthwise.inc"
#include "few_outputs.inc"
#include "layout.inc"
#include "magnitude.inc"
#include "narrow.inc"
#include "pointwise.inc"
#include "rows.inc"
#include "tap_rows.inc"
#include "swish.inc"
#include "winograd.inc"

#define DANCE_TEXT_(x) #x
#define DANCE_TEXT(x) DANCE_TEXT_(x)
#define DANCE_TABLE_(isa) isa_##isa
#define DANCE_TABLE(isa) DANCE_TABLE_(isa)

namespace dance {

extern const IsaKernels DANCE_TABLE(DANCE_ISA);
#define PAIR(name) extern const PairKernels pairs_##name;
DANCE_PAIRS
#undef PAIR

namespace DANCE_ISA {
static bool supported() { return DANCE_SUPPORTED; }
#define PAIR(name) &pairs_##name,
static const PairKernels* const kPairKernels[] = {DANCE_PAIRS nullptr};
#undef PAIR
}  // namespace DANCE_ISA

const IsaKernels DANCE_TABLE(DANCE_ISA) = {
    DANCE_TEXT(DANCE_ISA),   DANCE_ISA::supported,      DANCE_ISA::kVector,     DANCE_ISA::kMaxVectors,
    DANCE_ISA::kStripPixels,
    DANCE_ISA::rows,         DANCE_ISA::tap_rows,       DANCE_ISA::pointwise,   DANCE_ISA::depthwise,
    DANCE_ISA::few_outputs,  DANCE_ISA::scatter_sums,   DANCE_ISA::narrow,      DANCE_ISA::load_activation,
    DANCE_ISA::whole_vectors,
    DANCE_ISA::select,       DANCE_ISA::store_sums,     DANCE_ISA::abs_sum,      DANCE_ISA::abs_sum_slices,
    DANCE_ISA::winograd_in,  DANCE_ISA::winograd_out,
    DANCE_ISA::largest,      DANCE_ISA::scaled_swish,   DANCE_ISA::abs_sum_pixels, DANCE_ISA::magnitudes,
    DANCE_ISA::kPairKernels,
};

}  // namespace dance
