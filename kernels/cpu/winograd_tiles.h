// The output map of a Winograd convolution cut into tiles, and what each reads.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "workspace.h"

namespace dance {

struct Tile {
  int32_t row, column;  // in tiles
  // Of every pixel of the patch: bytes from the frame to it and all ones, or the address of zeros that are read in its place,
  // where it is dropped or out of range, and 0.
  intptr_t at[36], in_frame[36];

  // Without a branch, which scattered pixels would mislead.
  const float* pixel(const float* frame, int i) const {
    return reinterpret_cast<const float*>((reinterpret_cast<intptr_t>(frame) & in_frame[i]) + at[i]);
  }
};

// Whole tiles first, then those with so little to compute that they are done pixel by pixel, whose patch is not filled in,
// and those of which nothing reads anything kept, likewise; each in the map's order.
struct TileList {
  const Tile* tile;
  int64_t whole, live, all;  // ends of the three
};

// Pairs (output pixel, kernel position) of a tile that are live; feature: [H, W].
int64_t live_pairs(const ConvGeometry& g, const uint8_t* feature, int size, int64_t row, int64_t column);

// Tiles with fewer live pairs than `least_pairs` are not whole. stride: floats from pixel to pixel of the frames that are
// read; zeros: as many. Throws std::bad_alloc where `memory` cannot grow.
TileList find_tiles(const ConvGeometry& g, const uint8_t* feature, int size, int64_t least_pairs, int64_t stride,
                    const float* zeros, Buffer& memory);

}  // namespace dance
