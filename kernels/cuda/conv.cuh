// Convolution of what is kept, as an implicit matrix product: rows are output pixels of frames with the same live kernel
// frames, columns are output channels, the reduction runs flat over (live kernel position, group of kept channels).
//
// A block takes 32 x kWarps rows and 64 columns, a thread 8 x 8. A slab of the reduction is 2 groups: 8 words a row in shared
// memory. Two slabs are in shared memory, the next one's loads are under way in registers: one barrier a slab. The thread
// that loads a row belongs to the warp that uses it, so a warp leaves out a slab that none of its rows needs. A row that lacks
// a position gets zeros under a predicate: what a mask drops is never read.
#pragma once
#include "plan.cuh"

namespace dance {
namespace cuda {

// One live kernel position of a tile; read as one quad.
struct alignas(16) Tap {
  int offset;      // quads in the input from a row's first position, which may lie outside
  int weights;     // its first row of packed weights
  unsigned bit;    // in the pattern of a frame's live positions
  unsigned warps;  // that have a row which needs it
};

template <class T, int kWarps>
struct TileMemory {
  static constexpr int kRows = 32 * kWarps;
  static constexpr int kPitch = kRows + 4;  // no bank conflict on store or load
  static constexpr int kSlabWords = kSlabGroups * kGroupWords;
  static constexpr int kWeightQuads = kSlabGroups * Element<T>::kGroupChannels * Element<T>::kRowQuads;  // a slab's
};

// Where in the flat reduction: live position and group of channels.
struct Flat {
  int tap, group;
  DANCE_DEVICE_MEMBER void next(int groups) {
    if (++group == groups) group = 0, ++tap;
  }
};

// N neighbouring outputs from m on, the channel being the last axis.
template <class T, int N>
DANCE_DEVICE void finish_row(const T* b, const T* z, T* y, float minimum, const float* sums, int m, int m_end,
                             long long index) {
  struct alignas(sizeof(T) * N) Vector { T v[N]; };
  if (m + N <= m_end && m_end % N == 0) {
    Vector residual, out;
    if (z) residual = *reinterpret_cast<const Vector*>(z + index);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      float sum = sums[j] + to_float(b[m + j]);
      if (z) sum += to_float(residual.v[j]);
      from_float(clamp_below(sum, minimum), &out.v[j]);
    }
    *reinterpret_cast<Vector*>(y + index) = out;
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (m + j < m_end) finish(b, z, y, minimum, sums[j], m + j, index + j);
  }
}

// Grid: (row tiles, M / 64, items x batches x splits); dynamic shared memory: Tap [kernel positions], uint16 [kept list].
template <class T, int kWarps>
DANCE_DEVICE void conv_tile(const ConvParams& p) {
  typedef Element<T> E;
  typedef TileMemory<T, kWarps> M;
  constexpr int kBlock = 32 * kWarps;
  constexpr int kLoads = M::kWeightQuads / kBlock;  // of weights, a thread
  constexpr int kLoadsHalf = kLoads > 1 ? kLoads / 2 : 1;
  DANCE_SHARED(unsigned, a_slab, [2][M::kSlabWords * M::kPitch]);
  DANCE_SHARED(unsigned, b_slab, [2][M::kWeightQuads * 4]);
  DANCE_SHARED(int, row_output, [M::kRows]);
  DANCE_SHARED(unsigned, warp_patterns, [2 * kWarps]);
  DANCE_DYNAMIC_SHARED(unsigned char, dynamic);

  const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;
  const int per_item = p.batches * p.splits;
  const int n = blockIdx.z / per_item, step = blockIdx.z % per_item;
  const int batch = step / p.splits, split = step % p.splits;
  const int* plan = p.plan + static_cast<long long>(n) * p.layout.ints;
  const ConvShape& s = p.shape;

  // the tile's class of frames; surplus tiles of the worst-case grid leave here
  const int* class_tile = plan + p.layout.class_tile;
  const int classes = plan[kHeadClasses], tile = blockIdx.x;
  if (tile >= class_tile[classes]) return;
  int k = 0;
  while (tile >= class_tile[k + 1]) ++k;
  const unsigned frame_taps = static_cast<unsigned>(plan[p.layout.class_taps + k]);
  const int* frames = plan + p.layout.frames + plan[p.layout.class_first + k];
  const int frame_count = plan[p.layout.class_first + k + 1] - plan[p.layout.class_first + k];

  // this thread's row
  const int pixels = s.out[1] * s.out[2], octet = plan[kHeadOctet];
  const int row = (tile - class_tile[k]) * M::kRows + tid;
  const int index = row / (octet * frame_count) * octet + row % octet;
  const int pitch = plan[kHeadPitch], groups = plan[kHeadGroups];
  Positions live = {0u, 0u};
  int output = -1;
  const uint4* x;
  int first = 0;  // quads from x to the row's first position, which may lie outside
  {
    const T* base = p.always_packed || plan[kHeadPacked]
                        ? static_cast<const T*>(p.packed) + n * p.packed_stride + batch * p.batch_packed
                        : static_cast<const T*>(p.x) + n * p.x_stride;
    x = reinterpret_cast<const uint4*>(base);
    if (index < pixels) {
      const int pixel = plan[kHeadSorted] ? plan[p.layout.order + index] : index;
      const int t = frames[row / octet % frame_count], oh = pixel / s.out[2], ow = pixel % s.out[2];
      live = live_positions(s, p.masks, n, oh, ow);
      output = t * pixels + pixel;
      first = (((t * s.strides[0] - s.pads[0]) * s.h + (oh * s.strides[1] - s.pads[1])) * s.w +
               (ow * s.strides[2] - s.pads[2])) * (pitch / kGroupWords);
    }
  }
  row_output[tid] = output;

  // union of the rows' positions, by warp
  unsigned low = live.low, high = live.high;
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    low |= __shfl_xor_sync(DANCE_ALL_LANES, low, mask);
    high |= __shfl_xor_sync(DANCE_ALL_LANES, high, mask);
  }
  if (lane == 0) warp_patterns[2 * warp] = low, warp_patterns[2 * warp + 1] = high;
  __syncthreads();
  low = high = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) low |= warp_patterns[2 * i], high |= warp_patterns[2 * i + 1];

  // lists of live taps and kept channels
  const int positions = s.kernel[1] * s.kernel[2], frame_positions = __popc(low) + __popc(high);
  const int taps = __popc(frame_taps) * frame_positions;
  Tap* tap_list = reinterpret_cast<Tap*>(dynamic);
  unsigned short* channels = reinterpret_cast<unsigned short*>(tap_list + s.kernel[0] * positions);
  for (int i = tid; i < s.kernel[0] * positions; i += kBlock) {
    const int kt = i / positions, bit = i % positions, kh = bit / s.kernel[2], kw = bit % s.kernel[2];
    const unsigned word = bit < 32 ? low : high, shifted = 1u << (bit & 31);
    if (!(frame_taps >> kt & 1u) || !(word & shifted)) continue;
    const int before = __popc(frame_taps & ((1u << kt) - 1u)) * frame_positions +
                       (bit < 32 ? __popc(low & (shifted - 1u)) : __popc(low) + __popc(high & (shifted - 1u)));
    unsigned needed = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) needed |= ((warp_patterns[2 * w + (bit >> 5)] & shifted) ? 1u : 0u) << w;
    tap_list[before].offset =
        ((kt * s.dilations[0] * s.h + kh * s.dilations[1]) * s.w + kw * s.dilations[2]) * (pitch / kGroupWords);
    tap_list[before].weights = i * s.c;
    tap_list[before].bit = static_cast<unsigned>(bit);
    tap_list[before].warps = needed;
  }
  {
    const unsigned short* list = reinterpret_cast<const unsigned short*>(plan + p.layout.kept);
    for (int i = tid; i < groups * E::kGroupChannels; i += kBlock) channels[i] = list[i];
  }
  __syncthreads();

  // this block's slabs
  const int slabs = static_cast<int>((static_cast<long long>(taps) * groups + kSlabGroups - 1) / kSlabGroups);
  const int each = (slabs + p.splits - 1) / p.splits;
  const int first_slab = split * each, end_slab = min(slabs, first_slab + each);

  const uint4* weights = reinterpret_cast<const uint4*>(static_cast<const T*>(p.weights) + batch * p.batch_weights) +
                         static_cast<long long>(blockIdx.y) * s.kernel[0] * positions * s.c * E::kRowQuads +
                         tid % E::kRowQuads;
  const uint4 zeros = make_uint4(0u, 0u, 0u, 0u);
  typename E::Sums sums;
  sums.clear();

  uint4 next_a[kSlabGroups], next_b[kLoads];
  Flat flat = {0, 0};
  bool next_needed = false;
  const unsigned long long pattern = static_cast<unsigned long long>(live.high) << 32 | live.low;
  // with one load of weights a thread, the upper half of the threads serves the second group
  const int weights_half = tid / (kBlock / 2), weights_row = tid % (kLoads == 1 ? kBlock / 2 : kBlock) / E::kRowQuads;
  const auto load_slab = [&]() {
    Flat at[kSlabGroups] = {flat, flat};
    at[1].next(groups);
    flat = at[1];
    flat.next(groups);
    const bool second = at[1].tap < taps;  // the first is inside always
    const Tap tap[kSlabGroups] = {tap_list[at[0].tap], tap_list[second ? at[1].tap : at[0].tap]};
    next_needed = ((tap[0].warps | (second ? tap[1].warps : 0u)) >> warp & 1u) != 0;
#pragma unroll
    for (int half = 0; half < kSlabGroups; ++half) {
      const bool mine = (half == 0 || second) && (static_cast<unsigned>(pattern >> tap[half].bit) & 1u);
      next_a[half] = mine ? __ldg(x + static_cast<unsigned>(first + tap[half].offset + at[half].group)) : zeros;
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i) {
      const bool half = kLoads == 1 ? weights_half : i >= kLoadsHalf;
      const int row = weights_row + i % kLoadsHalf * (kBlock / E::kRowQuads);
      const int channel = channels[(half ? at[1].group : at[0].group) * E::kGroupChannels + row];
      const unsigned weight = static_cast<unsigned>((half ? tap[1].weights : tap[0].weights) + channel) * E::kRowQuads;
      next_b[i] = half && !second ? zeros : __ldg(weights + weight);
    }
  };
  const auto store_slab = [&](int buffer) {
    if (next_needed) {
#pragma unroll
      for (int half = 0; half < kSlabGroups; ++half) {
        unsigned words[4];
        words_of(next_a[half], words);
#pragma unroll
        for (int i = 0; i < 4; ++i) a_slab[buffer][(half * 4 + i) * M::kPitch + tid] = words[i];
      }
    }
#pragma unroll
    for (int i = 0; i < kLoads; ++i)
      reinterpret_cast<uint4*>(b_slab[buffer])[tid + i * kBlock] = next_b[i];
  };

  const int row4 = warp * 32 + lane / 8 * 4, lane8 = lane % 8;
  if (first_slab < end_slab) {
    flat.tap = first_slab * kSlabGroups / groups;
    flat.group = first_slab * kSlabGroups % groups;
    load_slab();
    store_slab(0);
  }
  int buffer = 0;
  for (int slab = first_slab; slab < end_slab;) {
    const int stop = end_slab - slab > E::kPromoteSlabs ? slab + E::kPromoteSlabs : end_slab;
    for (; slab < stop; ++slab) {
      const bool needed = next_needed;
      __syncthreads();
      if (slab + 1 < end_slab) load_slab();
      if (needed) {
        sums.template add<M::kPitch>(a_slab[buffer], b_slab[buffer], row4, lane8);
        DANCE_COUNT_FMAS(kSlabGroups * E::kGroupChannels * 8 * 8);
      }
      buffer ^= 1;
      if (slab + 1 < end_slab) store_slab(buffer);
    }
    sums.promote();
  }

  // 8 rows x 8 columns of sums a thread: rows row4 .. + 3 and + 16, columns by Element::column
  const int m0 = blockIdx.y * kTileColumns, total = s.out[0] * pixels;
  if (p.sums == Sums::raw) {
    const int padded = gridDim.y * kTileColumns;
    float* raw = p.raw + (static_cast<long long>(n) * per_item + step) * p.batch_raw;
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int out = row_output[row4 + (i >> 2) * 16 + (i & 3)];
      if (out < 0) continue;
#pragma unroll
      for (int j = 0; j < 8; j += 4)
        *reinterpret_cast<float4*>(raw + static_cast<long long>(out) * padded + m0 + E::column(lane8, j)) =
            make_float4(sums.at(i, j), sums.at(i, j + 1), sums.at(i, j + 2), sums.at(i, j + 3));
    }
    return;
  }
  const T* b = static_cast<const T*>(p.b);
  const T* z = p.z ? static_cast<const T*>(p.z) + n * p.y_stride : nullptr;
  T* y = static_cast<T*>(p.y) + n * p.y_stride;
  if (p.channels_last) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const int out = row_output[row4 + (i >> 2) * 16 + (i & 3)];
      if (out < 0) continue;
#pragma unroll
      for (int j = 0; j < 8; j += 4) {
        const int m = m0 + E::column(lane8, j);
        const float four[4] = {sums.at(i, j), sums.at(i, j + 1), sums.at(i, j + 2), sums.at(i, j + 3)};
        finish_row<T, 4>(b, z, y, p.minimum, four, m, s.m, static_cast<long long>(out) * s.m + m);
      }
    }
    return;
  }
  // NCTHW: 16 columns at a time through shared memory, so that neighbouring threads write neighbouring pixels
  float* stage = reinterpret_cast<float*>(&a_slab[0][0]);
#pragma unroll
  for (int pass = 0; pass < kTileColumns / 16; ++pass) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 8; j += 4) {
      const int column = E::column(lane8, j);
      if (column / 16 != pass) continue;
#pragma unroll
      for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int c = 0; c < 4; ++c)
          stage[(column % 16 + c) * M::kPitch + row4 + (i >> 2) * 16 + (i & 3)] = sums.at(i, j + c);
    }
    __syncthreads();
    if (output < 0) continue;  // every thread comes back for the barriers above
    for (int c = 0; c < 16; ++c) {
      const int m = m0 + pass * 16 + c;
      if (m < s.m) finish(b, z, y, p.minimum, stage[c * M::kPitch + tid], m, static_cast<long long>(m) * total + output);
    }
  }
}

// Sums of the splits in their order, then the end of the convolution. A thread an output; grid: (outputs / threads, N).
template <class T>
DANCE_DEVICE void conv_add_splits_body(const ConvParams& p) {
  const int n = blockIdx.y, positions = p.shape.out[0] * p.shape.out[1] * p.shape.out[2];
  const int padded = (p.shape.m + kTileColumns - 1) / kTileColumns * kTileColumns;
  const float* raw = p.raw + static_cast<long long>(n) * p.splits * p.batch_raw;
  const T* z = p.z ? static_cast<const T*>(p.z) + n * p.y_stride : nullptr;
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i >= positions * p.shape.m) return;
  const int position = p.channels_last ? i / p.shape.m : i % positions, m = p.channels_last ? i % p.shape.m : i / positions;
  float sum = 0.0f;
  for (int split = 0; split < p.splits; ++split) sum += raw[split * p.batch_raw + position * padded + m];
  finish(static_cast<const T*>(p.b), z, static_cast<T*>(p.y) + n * p.y_stride, p.minimum, sum, m, i);
}

}  // namespace cuda
}  // namespace dance
