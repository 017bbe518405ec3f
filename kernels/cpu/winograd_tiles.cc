#include "winograd_tiles.h"

#include <algorithm>

namespace dance {

// Fills in which pixels the tile reads; whether any is kept.
static bool find_pixels(const ConvGeometry& g, const uint8_t* feature, int size, Tile& tile) {
  const int n = size + 2;
  bool any = false;
  tile.holes = false;
  for (int i = 0; i < n; ++i) {
    const int64_t h = int64_t(tile.row) * size - g.pads[1] + i;
    for (int j = 0; j < n; ++j) {
      const int64_t w = int64_t(tile.column) * size - g.pads[2] + j;
      const bool in = h >= 0 && h < g.h && w >= 0 && w < g.w;
      const bool kept = in && feature[h * g.w + w];
      tile.pixel[i * n + j] = in ? int32_t(h * g.w + w) : -1;
      tile.keep[i * n + j] = kept ? 0xffffffffu : 0u;
      any |= kept;
      tile.holes |= in != kept;
    }
  }
  return any;
}

TileList find_tiles(const ConvGeometry& g, const uint8_t* feature, int size, Buffer& memory) {
  const int64_t rows = (g.out[1] + size - 1) / size, width = (g.out[2] + size - 1) / size, all = rows * width;
  Tile* const tiles = memory.of<Tile>(std::size_t(2 * all));
  Tile *live = tiles, *dropped = tiles + all;
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t column = 0; column < width; ++column) {
      Tile tile;
      tile.row = int32_t(row), tile.column = int32_t(column);
      if (find_pixels(g, feature, size, tile)) *live++ = tile; else *dropped++ = tile;
    }
  std::copy(tiles + all, dropped, live);
  return {tiles, live - tiles, all};
}

}  // namespace dance
