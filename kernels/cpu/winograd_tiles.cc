#include "winograd_tiles.h"

#include <algorithm>

namespace dance {

int64_t live_pairs(const ConvGeometry& g, const uint8_t* feature, int size, int64_t row, int64_t column) {
  const int64_t first_h = row * size - g.pads[1], first_w = column * size - g.pads[2];
  const int64_t rows = std::min<int64_t>(size, g.out[1] - row * size);
  const int64_t columns = std::min<int64_t>(size, g.out[2] - column * size);
  // outputs of the tile that read position i of an axis of its patch
  const auto readers = [](int64_t i, int64_t outputs) { return std::min(i, outputs - 1) - std::max<int64_t>(0, i - 2) + 1; };
  int64_t by_column[6];
  for (int64_t j = 0; j < columns + 2; ++j) by_column[j] = readers(j, columns);
  const int64_t begin = std::max<int64_t>(0, -first_w), end = std::min(columns + 2, g.w - first_w);
  int64_t pairs = 0;
  for (int64_t i = std::max<int64_t>(0, -first_h); i < std::min(rows + 2, g.h - first_h); ++i) {
    const uint8_t* const line = feature + (first_h + i) * g.w + first_w;
    int64_t in_line = 0;
    for (int64_t j = begin; j < end; ++j) in_line += line[j] ? by_column[j] : 0;
    pairs += in_line * readers(i, rows);
  }
  return pairs;
}

static void find_pixels(const ConvGeometry& g, const uint8_t* feature, int size, int64_t stride, const float* zeros,
                        Tile& tile) {
  const int n = size + 2;
  for (int i = 0; i < n; ++i) {
    const int64_t h = int64_t(tile.row) * size - g.pads[1] + i;
    for (int j = 0; j < n; ++j) {
      const int64_t w = int64_t(tile.column) * size - g.pads[2] + j;
      const bool kept = h >= 0 && h < g.h && w >= 0 && w < g.w && feature[h * g.w + w];
      tile.at[i * n + j] = kept ? intptr_t((h * g.w + w) * stride * 4) : reinterpret_cast<intptr_t>(zeros);
      tile.in_frame[i * n + j] = -intptr_t(kept);
    }
  }
}

TileList find_tiles(const ConvGeometry& g, const uint8_t* feature, int size, int64_t least_pairs, int64_t stride,
                    const float* zeros, Buffer& memory) {
  const int64_t rows = (g.out[1] + size - 1) / size, width = (g.out[2] + size - 1) / size, all = rows * width;
  Tile* const tiles = memory.of<Tile>(std::size_t(2 * all));
  enum Kind : uint8_t { kWhole, kFew, kDropped };
  uint8_t* const kinds = reinterpret_cast<uint8_t*>(tiles + all);
  int64_t counts[3] = {};
  for (int64_t i = 0; i < all; ++i) {
    const int64_t pairs = live_pairs(g, feature, size, i / width, i % width);
    kinds[i] = pairs == 0 ? kDropped : pairs < least_pairs ? kFew : kWhole;
    ++counts[kinds[i]];
  }
  Tile* next[3] = {tiles, tiles + counts[kWhole], tiles + counts[kWhole] + counts[kFew]};
  for (int64_t i = 0; i < all; ++i) {
    Tile& tile = *next[kinds[i]]++;
    tile.row = int32_t(i / width), tile.column = int32_t(i % width);
    if (kinds[i] == kWhole) find_pixels(g, feature, size, stride, zeros, tile);
  }
  return {tiles, counts[kWhole], counts[kWhole] + counts[kFew], all};
}

}  // namespace dance
