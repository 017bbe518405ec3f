// Masks and padding -> lists: kept channels, output frames by their live kernel frames, output pixels by their live kernel
// positions. Padding is no special case: out of range is one more way not to be live.
//
// One block an item. Everything is decided here on the device; the host never learns a count.
#pragma once
#include "elements.cuh"

namespace dance {
namespace cuda {

struct Positions { unsigned low, high; };  // bits of the kernel positions of one frame, kH x kW

// Live positions of output pixel (oh, ow).
DANCE_DEVICE Positions live_positions(const ConvShape& s, const Masks& masks, int n, int oh, int ow) {
  Positions live = {0u, 0u};
  int bit = 0;
  for (int kh = 0; kh < s.kernel[1]; ++kh) {
    const int h = oh * s.strides[1] - s.pads[1] + kh * s.dilations[1];
    for (int kw = 0; kw < s.kernel[2]; ++kw, ++bit) {
      const int w = ow * s.strides[2] - s.pads[2] + kw * s.dilations[2];
      if (h < 0 || h >= s.h || w < 0 || w >= s.w) continue;
      if (!kept(masks.feature, masks.as_float, (static_cast<long long>(n) * s.h + h) * s.w + w)) continue;
      if (bit < 32) live.low |= 1u << bit; else live.high |= 1u << (bit - 32);
    }
  }
  return live;
}

// Exclusive prefix sum over the block; every thread gets its own and the total.
DANCE_DEVICE int block_prefix(int value, int* total) {
  DANCE_SHARED(int, warp_sums, [kThreads / 32]);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int inclusive = value;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int before = __shfl_sync(DANCE_ALL_LANES, inclusive, lane >= step ? lane - step : lane);
    if (lane >= step) inclusive += before;
  }
  if (lane == 31) warp_sums[warp] = inclusive;
  __syncthreads();
  int before_warp = 0, all = 0;
#pragma unroll
  for (int i = 0; i < kThreads / 32; ++i) {
    if (i < warp) before_warp += warp_sums[i];
    all += warp_sums[i];
  }
  __syncthreads();
  *total = all;
  return before_warp + inclusive - value;
}

DANCE_DEVICE void plan_channels(const PlanParams& p, int n, int* plan) {
  unsigned short* list = reinterpret_cast<unsigned short*>(plan + p.layout.kept);
  int count = 0;
  for (int first = 0; first < p.shape.c; first += kThreads) {
    const int c = first + threadIdx.x;
    const bool keep = c < p.shape.c && kept(p.masks.channel, p.masks.as_float, static_cast<long long>(n) * p.shape.c + c);
    int total;
    const int at = count + block_prefix(keep, &total);
    if (keep) list[at] = static_cast<unsigned short>(c);
    count += total;
  }
  __syncthreads();
  const int groups = (count + p.group_channels - 1) / p.group_channels;
  const int missing = groups * p.group_channels - count;
  // weights are finite and these channels' inputs are zeros, so any row of weights serves
  if (static_cast<int>(threadIdx.x) < missing) list[count + threadIdx.x] = list[count - 1];
  if (threadIdx.x == 0) {
    const bool in_place = p.channels_last && count == p.shape.c && p.shape.c % p.group_channels == 0;
    plan[kHeadKept] = count;
    plan[kHeadGroups] = groups;
    plan[kHeadPitch] = groups * kGroupWords;
    plan[kHeadPacked] = !in_place;
  }
}

// Live kernel frames of output frame t, as bits.
DANCE_DEVICE unsigned live_frames(const PlanParams& p, int n, int t) {
  unsigned live = 0;
  for (int kt = 0; kt < p.shape.kernel[0]; ++kt) {
    const int in = t * p.shape.strides[0] - p.shape.pads[0] + kt * p.shape.dilations[0];
    if (in >= 0 && in < p.shape.t && kept(p.masks.frame, p.masks.as_float, static_cast<long long>(n) * p.shape.t + in))
      live |= 1u << kt;
  }
  return live;
}

// pixels: rows that one frame takes, after padding to octets.
DANCE_DEVICE void plan_frames(const PlanParams& p, int n, int pixels, int* plan) {
  int* frames = plan + p.layout.frames;
  int* class_taps = plan + p.layout.class_taps;
  int* class_first = plan + p.layout.class_first;
  int* class_tile = plan + p.layout.class_tile;
  const int count = p.shape.out[0];
  // class_first holds every frame's bits at first, class_taps the same bits by rank
  for (int t = threadIdx.x; t < count; t += kThreads) class_first[t] = static_cast<int>(live_frames(p, n, t));
  __syncthreads();
  for (int t = threadIdx.x; t < count; t += kThreads) {
    const unsigned mine = static_cast<unsigned>(class_first[t]);
    int rank = 0;
    for (int other = 0; other < count; ++other) {
      const unsigned theirs = static_cast<unsigned>(class_first[other]);
      rank += theirs > mine || (theirs == mine && other < t);  // most work first: the last tiles are short ones
    }
    frames[rank] = t;
    class_taps[rank] = static_cast<int>(mine);
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int classes = 0, tile = 0;
    for (int i = 0; i < count;) {
      const int taps = class_taps[i];
      int end = i + 1;
      while (end < count && class_taps[end] == taps) ++end;
      class_taps[classes] = taps;
      class_first[classes] = i;
      class_tile[classes] = tile;
      tile += static_cast<int>((static_cast<long long>(end - i) * pixels + p.tile_rows - 1) / p.tile_rows);
      ++classes;
      i = end;
    }
    class_first[classes] = count;
    class_tile[classes] = tile;
    plan[kHeadClasses] = classes;
  }
}

// Neighbours in this order differ in few positions: rank of a pattern among the Gray codes.
DANCE_DEVICE int gray_rank(unsigned pattern) {
  pattern ^= pattern >> 1;
  pattern ^= pattern >> 2;
  pattern ^= pattern >> 4;
  pattern ^= pattern >> 8;
  return static_cast<int>(pattern);
}

// Stable counting sort of the output pixels by live positions: the same order on every run.
DANCE_DEVICE void sort_pixels(const PlanParams& p, int n, int* order) {
  constexpr int kBins = 1 << kSortBits, kBinsEach = kBins / kThreads;
  DANCE_SHARED(int, bins, [kBins]);
  DANCE_SHARED(int, keys, [kThreads]);
  const int pixels = p.shape.out[1] * p.shape.out[2], tid = threadIdx.x, lane = tid % 32;
  for (int i = 0; i < kBinsEach; ++i) bins[i * kThreads + tid] = 0;
  __syncthreads();
  for (int pixel = tid; pixel < pixels; pixel += kThreads) {
    const Positions live = live_positions(p.shape, p.masks, n, pixel / p.shape.out[2], pixel % p.shape.out[2]);
    atomicAdd(&bins[gray_rank(live.low)], 1);
  }
  __syncthreads();
  int mine = 0, total;
  for (int i = 0; i < kBinsEach; ++i) mine += bins[tid * kBinsEach + i];
  int start = block_prefix(mine, &total);
  for (int i = 0; i < kBinsEach; ++i) {
    const int here = bins[tid * kBinsEach + i];
    bins[tid * kBinsEach + i] = start;
    start += here;
  }
  for (int first = 0; first < pixels; first += kThreads) {
    const int pixel = first + tid;
    int key = -1;
    if (pixel < pixels)
      key = gray_rank(live_positions(p.shape, p.masks, n, pixel / p.shape.out[2], pixel % p.shape.out[2]).low);
    keys[tid] = key;
    __syncthreads();
    int before = 0, equal = 0;
    for (int i = 0; i < 32; ++i) {
      const bool same = keys[tid - lane + i] == key;
      equal += same;
      before += same && i < lane;
    }
    for (int warp = 0; warp < kThreads / 32; ++warp) {
      if (tid / 32 == warp) {
        const int base = key < 0 ? 0 : bins[key];
        __syncwarp();
        if (key >= 0) {
          order[base + before] = pixel;
          if (before == equal - 1) bins[key] = base + equal;
        }
      }
      __syncthreads();
    }
  }
}

DANCE_DEVICE bool any_feature_dropped(const PlanParams& p, int n) {
  DANCE_SHARED(int, dropped, [1]);
  if (threadIdx.x == 0) dropped[0] = 0;
  __syncthreads();
  const int pixels = p.shape.h * p.shape.w;
  int mine = 0;
  for (int i = threadIdx.x; i < pixels; i += kThreads)
    mine |= !kept(p.masks.feature, p.masks.as_float, static_cast<long long>(n) * pixels + i);
  if (mine) atomicAdd(&dropped[0], 1);
  __syncthreads();
  return dropped[0] != 0;
}

DANCE_DEVICE void plan_masks_body(const PlanParams& p) {
  const int n = blockIdx.x;
  int* plan = p.plan + static_cast<long long>(n) * p.layout.ints;
  plan_channels(p, n, plan);
  const int pixels = p.shape.out[1] * p.shape.out[2];
  const bool dropped = any_feature_dropped(p, n);
  const bool sorted = p.shape.kernel[1] * p.shape.kernel[2] <= kSortBits && (dropped || pixels <= kSortAlways);
  // rows of NCTHW outputs take whole sectors of a frame's pixels, unless sorting scatters them anyway
  const int octet = p.channels_last || sorted ? 1 : kOctet;
  if (threadIdx.x == 0) {
    plan[kHeadSorted] = sorted;
    plan[kHeadOctet] = octet;
  }
  plan_frames(p, n, (pixels + octet - 1) / octet * octet, plan);
  if (sorted) sort_pixels(p, n, plan + p.layout.order);
}

}  // namespace cuda
}  // namespace dance
