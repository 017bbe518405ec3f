// The output map of a Winograd convolution cut into tiles, and what each reads.
#pragma once
#include <cstdint>

#include "geometry.h"
#include "workspace.h"

namespace dance {

struct Tile {
  int32_t row, column;  // in tiles
  int32_t pixel[36];    // of the patch: in the frame, or -1 where it is out of range: zero
  uint32_t keep[36];    // all ones, or 0 where the pixel is dropped or out of range
  bool holes;           // some pixel of it is dropped
};

struct TileList {
  const Tile* tile;     // live ones, then those whose whole patch is zero, each in the map's order
  int64_t live, all;
};

// feature: [H, W]. Throws std::bad_alloc where `memory` cannot grow.
TileList find_tiles(const ConvGeometry& g, const uint8_t* feature, int size, Buffer& memory);

}  // namespace dance
