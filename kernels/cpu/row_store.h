// Rows of output to Y: what the ways to compute narrow layers end with.
#pragma once
#include <cstdint>

#include "clip_call.h"

namespace dance {

// B [M], one after the other for so many pixels. Throws std::bad_alloc.
const float* repeated_bias(const ClipCall& clip, int64_t pixels);

// a.pixels pixels of row ho of output frame `to`, from column `begin` on. a: all but where they lie, their type and minimum.
void store_in_row(const ClipCall& clip, StoreArgs& a, int64_t to, int64_t ho, int64_t begin);

// A whole row. sums: [W'][M], or null where it reads nothing; bias: repeated for the row's pixels where channels are last, as the
// row is stored as if it were one pixel then.
void store_row(const ClipCall& clip, const float* bias, int64_t to, int64_t ho, const float* sums);

}  // namespace dance
