// Host side: checks, sizes, and which kernels a call launches. Nothing here reads the device.
#include "dance_cuda.h"

#include <initializer_list>

#include "kernels.cuh"

namespace dance {
namespace cuda {
namespace {

thread_local int launch_error = 0;

#ifdef DANCE_CUDA_SHIM
bool launched() { return true; }
#else
bool launched() {
  const cudaError_t error = cudaGetLastError();
  if (error == cudaSuccess) return true;
  launch_error = static_cast<int>(error);
  return false;
}
#endif

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
int64_t round_up(int64_t a, int64_t b) { return ceil_div(a, b) * b; }
int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

constexpr int64_t kIndexLimit = int64_t(1) << 31;
constexpr int64_t kGridLimit = 65535;          // y and z of a grid
constexpr int64_t kWorkspaceAlignment = 256;

unsigned blocks_of(int64_t threads) { return unsigned(ceil_div(threads, kThreads)); }

// ---- the table ----

struct ConvTile {
  const char* name;
  Type type;
  int warps;
  void (*kernel)(ConvParams);
};

template <class T> struct TypeOf;
template <> struct TypeOf<float> { static constexpr Type value = Type::f32; };
template <> struct TypeOf<__half> { static constexpr Type value = Type::f16; };

const ConvTile kTiles[] = {
#define DANCE_CONV_TILE(name, element, warps, blocks) {#name, TypeOf<element>::value, warps, name},
#include "variants.inc"
};

// What a tile of fewer rows costs beside one of 128, from its share of multiplications among all instructions.
double tile_overhead(int warps) { return warps == 4 ? 1.0 : warps == 2 ? 1.08 : 1.35; }

// The tile whose rows fit a frame's pixels best: frames of one class of live kernel frames share tiles, others do not.
const ConvTile& choose_tile(Type type, int64_t pixels) {
  const ConvTile* best = nullptr;
  double best_cost = 0;
  for (const ConvTile& tile : kTiles) {
    if (tile.type != type) continue;
    const double cost = double(round_up(pixels, 32 * tile.warps)) * tile_overhead(tile.warps);
    if (!best || cost < best_cost) best = &tile, best_cost = cost;
  }
  return *best;
}

// ---- geometry ----

int64_t group_channels(Type type) { return type == Type::f32 ? 4 : 8; }
int64_t element_bytes(Type type) { return type == Type::f32 ? 4 : 2; }
int64_t kernel_positions(const ConvGeometry& g) { return g.kernel[0] * g.kernel[1] * g.kernel[2]; }
int64_t out_pixels(const ConvGeometry& g) { return g.out[1] * g.out[2]; }

// Product, or kIndexLimit where it is as large.
int64_t product(std::initializer_list<int64_t> factors) {
  int64_t all = 1;
  for (int64_t factor : factors) {
    if (factor >= kIndexLimit || all >= kIndexLimit / larger(factor, 1) + 1) return kIndexLimit;
    all *= factor;
  }
  return smaller(all, kIndexLimit);
}
bool indexable(std::initializer_list<int64_t> factors) { return product(factors) < kIndexLimit; }

Status check_geometry(ConvGeometry& g) {
  const int64_t extents[] = {g.n, g.c, g.t, g.h, g.w, g.m, g.group, g.kernel[0], g.kernel[1], g.kernel[2],
                             g.strides[0], g.strides[1], g.strides[2], g.dilations[0], g.dilations[1], g.dilations[2]};
  for (int64_t extent : extents)
    if (extent < 1) return Status::bad_shape;
  for (int64_t pad : g.pads)
    if (pad < 0) return Status::bad_shape;
  if (g.c % g.group || g.m % g.group) return Status::bad_shape;
  if (g.type != Type::f32 && g.type != Type::f16) return Status::bad_shape;
  for (int64_t extent : extents)
    if (extent >= kLargestExtent / 2) return Status::too_large;
  const int64_t in[3] = {g.t, g.h, g.w};
  for (int axis = 0; axis < 3; ++axis) {
    if (g.pads[axis] >= kLargestExtent / 4 || g.pads[axis + 3] >= kLargestExtent / 4) return Status::too_large;
    if (in[axis] + g.pads[axis] + g.pads[axis + 3] >= kIndexLimit / 2) return Status::too_large;
  }
  if (!conv_out_size(g)) return Status::bad_shape;
  if (g.n > kGridLimit) return Status::too_large;
  const int64_t c = round_up(g.c, 8), m = round_up(g.m, kTileColumns);
  if (!indexable({c, g.t, g.h, g.w}) || !indexable({m, g.out[0], g.out[1], g.out[2]})) return Status::too_large;
  if (!indexable({m, g.c / g.group, g.kernel[0], g.kernel[1], g.kernel[2]})) return Status::too_large;
  return Status::ok;
}

bool direct_does(const ConvGeometry& g) {
  return g.group == 1 && g.kernel[0] <= kMaxKernelFrames && g.kernel[1] * g.kernel[2] <= kMaxPositions &&
         kernel_positions(g) <= kMaxTaps && g.c <= kMaxChannels && g.t <= kGridLimit &&
         ceil_div(g.m, kTileColumns) <= kGridLimit &&
         // offsets of kernel positions, which may start outside of the input
         indexable({round_up(g.c, 8), g.t + g.pads[0] + g.pads[3], g.h + g.pads[1] + g.pads[4],
                    g.w + g.pads[2] + g.pads[5]});
}

int64_t tile_size(Type type) { return type == Type::f32 ? 4 : 2; }
int64_t components(Type type) { return (tile_size(type) + 2) * (tile_size(type) + 2); }

// One item's products of Winograd components, as a convolution over kernel frames alone: its pixels are the tiles.
ConvGeometry tile_geometry(const ConvGeometry& g) {
  ConvGeometry tiles = g;
  tiles.n = 1;
  tiles.h = tiles.out[1] = ceil_div(g.out[1], tile_size(g.type));
  tiles.w = tiles.out[2] = ceil_div(g.out[2], tile_size(g.type));
  for (int axis = 1; axis < 3; ++axis) tiles.kernel[axis] = 1, tiles.pads[axis] = tiles.pads[axis + 3] = 0;
  return tiles;
}

bool winograd_does(const ConvGeometry& g) {
  for (int axis = 1; axis < 3; ++axis)
    if (g.kernel[axis] != 3 || g.strides[axis] != 1 || g.dilations[axis] != 1) return false;
  return direct_does(g) && direct_does(tile_geometry(g)) && g.out[0] <= kGridLimit &&
         indexable({components(g.type), round_up(g.m, kTileColumns), g.c, g.kernel[0]});
}

// Small maps leave tiles unfilled, few channels do not pay for the transforms.
bool winograd_pays(const ConvGeometry& g) {
  return winograd_does(g) && g.out[1] >= 14 && g.out[2] >= 14 && g.c >= 16 && g.m >= 32;
}

bool does(const ConvGeometry& g, Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::winograd: return winograd_does(g);
    case Algorithm::direct: return direct_does(g);
    case Algorithm::depthwise: return g.depthwise();
    case Algorithm::plain: return true;
    default: return false;
  }
}

ConvShape shape_of(const ConvGeometry& g) {
  ConvShape s;
  s.c = int(g.c), s.t = int(g.t), s.h = int(g.h), s.w = int(g.w), s.m = int(g.m), s.group = int(g.group);
  for (int axis = 0; axis < 3; ++axis) {
    s.kernel[axis] = int(g.kernel[axis]), s.strides[axis] = int(g.strides[axis]), s.pads[axis] = int(g.pads[axis]);
    s.dilations[axis] = int(g.dilations[axis]), s.out[axis] = int(g.out[axis]);
  }
  return s;
}

PlanLayout plan_layout(const ConvGeometry& g) {
  PlanLayout l;
  int64_t at = kHeadInts;
  const auto take = [&at](int64_t ints) { const int64_t here = at; at += round_up(ints, 4); return int(here); };
  l.kept = take(ceil_div(round_up(g.c, 8), 2));
  l.frames = take(g.out[0]);
  l.class_first = take(g.out[0] + 1);
  l.class_taps = take(g.out[0]);
  l.class_tile = take(g.out[0] + 1);
  l.order = take(out_pixels(g));
  l.ints = int(at);
  return l;
}

// Everything about one direct convolution that follows from its setup.
struct DirectPlan {
  const ConvTile* tile;
  PlanLayout layout;
  int64_t row_tiles, column_tiles, splits;
  int64_t packed_stride, raw_stride;                   // elements
  int64_t plan_at, packed_at, raw_at, bytes;           // in the workspace
};

// Row tiles of the worst case: every class of frames may leave its last tile unfilled.
int64_t most_row_tiles(const ConvGeometry& g, int64_t rows) {
  const int64_t pixels = g.channels_last ? out_pixels(g) : round_up(out_pixels(g), kOctet);
  const int64_t patterns = g.kernel[0] < 16 ? int64_t(1) << g.kernel[0] : kIndexLimit;
  return ceil_div(pixels * g.out[0], rows) + smaller(g.out[0], patterns) - 1;
}

int64_t choose_splits(const ConvSetup& setup, int64_t tiles) {
  const ConvGeometry& g = setup.geometry;
  const int64_t wanted = int64_t(3) * setup.multiprocessors;
  if (tiles * g.n >= wanted) return 1;
  const int64_t slabs = ceil_div(kernel_positions(g) * ceil_div(g.c, group_channels(g.type)), kSlabGroups);
  const int64_t splits = smaller(smaller(ceil_div(wanted, tiles * g.n), slabs / 16), 16);
  return larger(smaller(splits, kGridLimit / g.n), 1);
}

DirectPlan direct_plan(const ConvSetup& setup) {
  const ConvGeometry& g = setup.geometry;
  DirectPlan d;
  d.tile = &choose_tile(g.type, out_pixels(g));
  d.layout = plan_layout(g);
  d.row_tiles = most_row_tiles(g, 32 * d.tile->warps);
  d.column_tiles = ceil_div(g.m, kTileColumns);
  d.splits = choose_splits(setup, d.row_tiles * d.column_tiles);
  d.packed_stride = g.t * g.h * g.w * round_up(g.c, group_channels(g.type));
  d.raw_stride = g.out[0] * out_pixels(g) * d.column_tiles * kTileColumns;
  int64_t at = 0;
  const auto take = [&at](int64_t bytes) { const int64_t here = at; at += round_up(bytes, kWorkspaceAlignment); return here; };
  d.plan_at = take(g.n * d.layout.ints * int64_t(sizeof(int)));
  d.packed_at = take(g.n * d.packed_stride * element_bytes(g.type));
  d.raw_at = take(d.splits > 1 ? g.n * d.splits * d.raw_stride * int64_t(sizeof(float)) : 0);
  d.bytes = at;
  return d;
}

Masks masks_of(const ConvSetup& setup, const ConvTensors& tensors) {
  Masks masks;
  masks.frame = tensors.frame_keep, masks.channel = tensors.channel_keep, masks.feature = tensors.feature_keep;
  masks.as_float = setup.mask_type == MaskType::f32;
  return masks;
}

unsigned conv_dynamic_bytes(const ConvGeometry& g) {
  return unsigned(kernel_positions(g) * int64_t(sizeof(Tap)) + round_up(g.c, 8) * 2);
}

Status launch_plan(const ConvGeometry& g, const Masks& masks, const PlanLayout& layout, int* plan, int tile_rows,
                   Stream stream) {
  PlanParams p;
  p.shape = shape_of(g), p.masks = masks, p.layout = layout, p.plan = plan;
  p.group_channels = int(group_channels(g.type)), p.tile_rows = tile_rows, p.channels_last = g.channels_last;
  DANCE_LAUNCH(plan_masks, dim3(unsigned(g.n)), dim3(kThreads), 0, stream, p);
  return launched() ? Status::ok : Status::launch_failed;
}

Status launch_pack(const ConvGeometry& g, const Masks& masks, const PlanLayout& layout, const int* plan, const void* x,
                   void* packed, int64_t packed_stride, Stream stream) {
  PackParams p;
  p.shape = shape_of(g), p.masks = masks, p.layout = layout, p.plan = plan, p.x = x, p.packed = packed;
  p.x_stride = g.c * g.t * g.h * g.w, p.packed_stride = packed_stride;
  p.group_channels = int(group_channels(g.type)), p.channels_last = g.channels_last;
  const dim3 grid(unsigned(ceil_div(g.h * g.w, kPackPixels)), unsigned(g.t), unsigned(g.n));
  if (g.type == Type::f32) DANCE_LAUNCH(pack_activation_f32, grid, dim3(kThreads), 0, stream, p);
  else DANCE_LAUNCH(pack_activation_f16, grid, dim3(kThreads), 0, stream, p);
  return launched() ? Status::ok : Status::launch_failed;
}

Status direct_conv(const ConvSetup& setup, const ConvTensors& tensors, Stream stream) {
  const ConvGeometry& g = setup.geometry;
  const DirectPlan d = direct_plan(setup);
  char* workspace = static_cast<char*>(tensors.workspace);
  int* plan = reinterpret_cast<int*>(workspace + d.plan_at);
  const Masks masks = masks_of(setup, tensors);
  Status status = launch_plan(g, masks, d.layout, plan, 32 * d.tile->warps, stream);
  if (status != Status::ok) return status;
  status = launch_pack(g, masks, d.layout, plan, tensors.x, workspace + d.packed_at, d.packed_stride, stream);
  if (status != Status::ok) return status;

  ConvParams p = {};
  p.shape = shape_of(g), p.masks = masks, p.layout = d.layout, p.plan = plan;
  p.x = tensors.x, p.packed = workspace + d.packed_at, p.weights = tensors.packed;
  p.b = tensors.b, p.z = tensors.z, p.y = tensors.y, p.raw = reinterpret_cast<float*>(workspace + d.raw_at);
  p.x_stride = g.c * g.t * g.h * g.w, p.packed_stride = d.packed_stride, p.y_stride = g.m * g.out[0] * out_pixels(g);
  p.batch_raw = d.raw_stride, p.batches = 1, p.splits = int(d.splits);
  p.channels_last = g.channels_last, p.minimum = setup.minimum;
  p.sums = d.splits > 1 ? Sums::raw : Sums::final;
  const dim3 grid(unsigned(d.row_tiles), unsigned(d.column_tiles), unsigned(g.n * d.splits));
  DANCE_LAUNCH(d.tile->kernel, grid, dim3(unsigned(32 * d.tile->warps)), conv_dynamic_bytes(g), stream, p);
  if (!launched()) return Status::launch_failed;
  if (d.splits > 1) {
    const dim3 blocks(blocks_of(g.m * g.out[0] * out_pixels(g)), unsigned(g.n));
    if (g.type == Type::f32) DANCE_LAUNCH(add_splits_f32, blocks, dim3(kThreads), 0, stream, p);
    else DANCE_LAUNCH(add_splits_f16, blocks, dim3(kThreads), 0, stream, p);
    if (!launched()) return Status::launch_failed;
  }
  return Status::ok;
}

// The workspace of one item; items follow one another in the stream.
struct WinogradPlan {
  ConvGeometry tiles;
  const ConvTile* tile;
  PlanLayout layout;
  int64_t row_tiles, column_tiles;
  int64_t component_stride, product_stride;                             // elements
  int64_t plan_at, live_at, packed_at, components_at, products_at, bytes;
};

WinogradPlan winograd_plan(const ConvSetup& setup) {
  const ConvGeometry& g = setup.geometry;
  WinogradPlan d;
  d.tiles = tile_geometry(g);
  const int64_t tiles = out_pixels(d.tiles), channels = round_up(g.c, group_channels(g.type));
  d.tile = &choose_tile(g.type, tiles);
  d.layout = plan_layout(d.tiles);
  d.row_tiles = most_row_tiles(d.tiles, 32 * d.tile->warps);
  d.column_tiles = ceil_div(g.m, kTileColumns);
  d.component_stride = g.t * tiles * channels;
  d.product_stride = g.out[0] * tiles * d.column_tiles * kTileColumns;
  int64_t at = 0;
  const auto take = [&at](int64_t bytes) { const int64_t here = at; at += round_up(bytes, kWorkspaceAlignment); return here; };
  d.plan_at = take(d.layout.ints * int64_t(sizeof(int)));
  d.live_at = take(tiles * int64_t(sizeof(float)));
  d.packed_at = take(g.t * g.h * g.w * channels * element_bytes(g.type));
  d.components_at = take(components(g.type) * d.component_stride * element_bytes(g.type));
  d.products_at = take(components(g.type) * d.product_stride * int64_t(sizeof(float)));
  d.bytes = at;
  return d;
}

const void* offset(const void* pointer, int64_t bytes) { return static_cast<const char*>(pointer) + bytes; }

Status winograd_item(const ConvSetup& setup, const ConvTensors& tensors, int64_t item, Stream stream) {
  const WinogradPlan d = winograd_plan(setup);
  ConvGeometry g = setup.geometry;
  const int64_t bytes = element_bytes(g.type), mask_bytes = setup.mask_type == MaskType::f32 ? 4 : 1;
  const int64_t x_stride = g.c * g.t * g.h * g.w, y_stride = g.m * g.out[0] * out_pixels(g);
  const bool f32 = g.type == Type::f32;
  g.n = 1;
  char* workspace = static_cast<char*>(tensors.workspace);
  WinogradParams w;
  w.shape = shape_of(g), w.layout = d.layout, w.masks = masks_of(setup, tensors);
  w.masks.frame = offset(w.masks.frame, item * g.t * mask_bytes);
  w.masks.channel = offset(w.masks.channel, item * g.c * mask_bytes);
  w.masks.feature = offset(w.masks.feature, item * g.h * g.w * mask_bytes);
  int* plan = reinterpret_cast<int*>(workspace + d.plan_at);
  w.plan = plan, w.live_tiles = workspace + d.live_at, w.x = offset(tensors.x, item * x_stride * bytes);
  w.packed = workspace + d.packed_at, w.components = workspace + d.components_at;
  w.products = reinterpret_cast<const float*>(workspace + d.products_at);
  w.b = tensors.b, w.z = tensors.z ? offset(tensors.z, item * y_stride * bytes) : nullptr;
  w.y = static_cast<char*>(tensors.y) + item * y_stride * bytes;
  w.component_stride = d.component_stride, w.product_stride = d.product_stride;
  w.tiles_h = int(d.tiles.h), w.tiles_w = int(d.tiles.w), w.channels_last = g.channels_last, w.minimum = setup.minimum;

  const dim3 block(kThreads);
  const int64_t tiles = out_pixels(d.tiles);
  if (f32) DANCE_LAUNCH(winograd4_live_tiles, dim3(blocks_of(tiles)), block, 0, stream, w);
  else DANCE_LAUNCH(winograd2_live_tiles, dim3(blocks_of(tiles)), block, 0, stream, w);
  if (!launched()) return Status::launch_failed;
  Masks tile_masks = w.masks;
  tile_masks.feature = w.live_tiles;
  Status status = launch_plan(d.tiles, tile_masks, d.layout, plan, 32 * d.tile->warps, stream);
  if (status != Status::ok) return status;
  status = launch_pack(g, w.masks, d.layout, plan, w.x, workspace + d.packed_at, 0, stream);
  if (status != Status::ok) return status;
  const dim3 inputs(blocks_of(tiles * round_up(g.c, group_channels(g.type))), unsigned(g.t));
  if (f32) DANCE_LAUNCH(winograd4_input_f32, inputs, block, 0, stream, w);
  else DANCE_LAUNCH(winograd2_input_f16, inputs, block, 0, stream, w);
  if (!launched()) return Status::launch_failed;

  ConvParams p = {};
  p.shape = shape_of(d.tiles), p.masks = tile_masks, p.layout = d.layout, p.plan = plan;
  p.packed = w.components, p.always_packed = 1, p.weights = tensors.packed;
  p.raw = reinterpret_cast<float*>(workspace + d.products_at);
  p.batch_packed = d.component_stride, p.batch_raw = d.product_stride;
  p.batch_weights = d.column_tiles * kTileColumns * g.c * g.kernel[0];
  p.batches = int(components(g.type)), p.splits = 1, p.sums = Sums::raw;
  const dim3 grid(unsigned(d.row_tiles), unsigned(d.column_tiles), unsigned(p.batches));
  DANCE_LAUNCH(d.tile->kernel, grid, dim3(unsigned(32 * d.tile->warps)), conv_dynamic_bytes(d.tiles), stream, p);
  if (!launched()) return Status::launch_failed;

  const dim3 outputs(unsigned(g.out[0] * d.tiles.h * ceil_div(d.tiles.w, kThreads / 32)), unsigned(ceil_div(g.m, 32)));
  if (f32) DANCE_LAUNCH(gated_conv3d_f32_winograd4, outputs, block, 0, stream, w);
  else DANCE_LAUNCH(gated_conv3d_f16_winograd2, outputs, block, 0, stream, w);
  return launched() ? Status::ok : Status::launch_failed;
}

Status winograd_conv(const ConvSetup& setup, const ConvTensors& tensors, Stream stream) {
  for (int64_t item = 0; item < setup.geometry.n; ++item) {
    const Status status = winograd_item(setup, tensors, item, stream);
    if (status != Status::ok) return status;
  }
  return Status::ok;
}

Status plain_conv(const ConvSetup& setup, const ConvTensors& tensors, Stream stream) {
  const ConvGeometry& g = setup.geometry;
  PlainParams p;
  p.shape = shape_of(g), p.masks = masks_of(setup, tensors), p.x = tensors.x, p.weights = tensors.packed;
  p.b = tensors.b, p.z = tensors.z, p.y = tensors.y, p.channels_last = g.channels_last;
  p.minimum = setup.minimum;
  const dim3 grid(blocks_of(g.m * g.out[0] * out_pixels(g)), unsigned(g.n));
  const bool f32 = g.type == Type::f32, depthwise = setup.algorithm == Algorithm::depthwise;
  if (f32 && depthwise) DANCE_LAUNCH(gated_conv3d_f32_depthwise, grid, dim3(kThreads), 0, stream, p);
  else if (f32) DANCE_LAUNCH(gated_conv3d_f32_plain, grid, dim3(kThreads), 0, stream, p);
  else if (depthwise) DANCE_LAUNCH(gated_conv3d_f16_depthwise, grid, dim3(kThreads), 0, stream, p);
  else DANCE_LAUNCH(gated_conv3d_f16_plain, grid, dim3(kThreads), 0, stream, p);
  return launched() ? Status::ok : Status::launch_failed;
}

bool initialised(const ConvSetup& setup) {
  return setup.algorithm != Algorithm::automatic && setup.geometry.out[0] > 0;
}

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0; }

}  // namespace

const char* status_text(Status status) {
  switch (status) {
    case Status::ok: return "ok";
    case Status::bad_shape: return "an extent or attribute is out of range, or the kernel does not fit into the padded input";
    case Status::too_large: return "sizes beyond 2^31 elements an item, or beyond the limits of a grid";
    case Status::unsupported: return "the algorithm asked for does not do this geometry or type";
    case Status::null_pointer: return "a tensor, the packed weights or the workspace is null";
    case Status::misaligned: return "a pointer is not aligned to 16 bytes";
    case Status::workspace_too_small: return "the workspace is smaller than workspace_bytes() says";
    case Status::launch_failed: return "CUDA refused a launch; last_cuda_error() has its number";
  }
  return "unknown status";
}

int last_cuda_error() { return launch_error; }

int multiprocessor_count() {
#ifdef DANCE_CUDA_SHIM
  return 1;
#else
  int device = 0, count = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    cudaGetLastError();
    return 1;
  }
  return count;
#endif
}

ConvSetup::ConvSetup()
    : geometry(), mask_type(MaskType::byte), minimum(-3.4028234663852886e38f), algorithm(Algorithm::automatic),
      multiprocessors(1) {}

Status conv_init(ConvSetup* setup) {
  if (!setup) return Status::null_pointer;
  ConvGeometry& g = setup->geometry;
  const Status status = check_geometry(g);
  if (status != Status::ok) return status;
  if (setup->multiprocessors < 1) setup->multiprocessors = 1;
  if (setup->algorithm != Algorithm::automatic)
    return does(g, setup->algorithm) ? Status::ok : Status::unsupported;
  setup->algorithm = g.depthwise() ? Algorithm::depthwise
                     : winograd_pays(g) ? Algorithm::winograd
                     : direct_does(g) ? Algorithm::direct : Algorithm::plain;
  return Status::ok;
}

const char* conv_variant(const ConvSetup& setup) {
  const bool f32 = setup.geometry.type == Type::f32;
  switch (setup.algorithm) {
    case Algorithm::depthwise: return f32 ? "gated_conv3d_f32_depthwise" : "gated_conv3d_f16_depthwise";
    case Algorithm::plain: return f32 ? "gated_conv3d_f32_plain" : "gated_conv3d_f16_plain";
    case Algorithm::winograd: return f32 ? "gated_conv3d_f32_winograd4" : "gated_conv3d_f16_winograd2";
    case Algorithm::automatic: return "not initialised";
    default: return choose_tile(setup.geometry.type, out_pixels(setup.geometry)).name;
  }
}

Status workspace_bytes(const ConvSetup& setup, std::size_t* bytes) {
  if (!bytes) return Status::null_pointer;
  if (!initialised(setup)) return Status::bad_shape;
  *bytes = setup.algorithm == Algorithm::direct ? std::size_t(direct_plan(setup).bytes)
           : setup.algorithm == Algorithm::winograd ? std::size_t(winograd_plan(setup).bytes) : 1;
  return Status::ok;
}

Status packed_weights_bytes(const ConvSetup& setup, std::size_t* bytes) {
  if (!bytes) return Status::null_pointer;
  if (!initialised(setup)) return Status::bad_shape;
  const ConvGeometry& g = setup.geometry;
  const bool tiled = setup.algorithm == Algorithm::direct || setup.algorithm == Algorithm::winograd;
  const int64_t rows = tiled ? round_up(g.m, kTileColumns) : g.m;
  const int64_t each = setup.algorithm == Algorithm::winograd ? components(g.type) * g.kernel[0] : kernel_positions(g);
  *bytes = std::size_t(rows * g.channels_per_group() * each * element_bytes(g.type));
  return Status::ok;
}

Status pack_weights(const ConvSetup& setup, const void* w, void* packed, Stream stream) {
  if (!initialised(setup)) return Status::bad_shape;
  if (!w || !packed) return Status::null_pointer;
  if (!aligned(packed)) return Status::misaligned;
  const ConvGeometry& g = setup.geometry;
  const int64_t taps = kernel_positions(g);
  const bool f32 = g.type == Type::f32;
  if (setup.algorithm == Algorithm::direct) {
    const dim3 grid(blocks_of(round_up(g.m, kTileColumns) * g.c * taps));
    if (f32) DANCE_LAUNCH(pack_weights_f32, grid, dim3(kThreads), 0, stream, static_cast<const float*>(w),
                          static_cast<float*>(packed), int(g.m), int(g.c), int(taps));
    else DANCE_LAUNCH(pack_weights_f16, grid, dim3(kThreads), 0, stream, static_cast<const __half*>(w),
                      static_cast<__half*>(packed), int(g.m), int(g.c), int(taps));
  } else if (setup.algorithm == Algorithm::winograd) {
    const dim3 grid(blocks_of(round_up(g.m, kTileColumns) * g.c * g.kernel[0]));
    if (f32) DANCE_LAUNCH(winograd4_weights_f32, grid, dim3(kThreads), 0, stream, static_cast<const float*>(w),
                          static_cast<float*>(packed), int(g.m), int(g.c), int(g.kernel[0]));
    else DANCE_LAUNCH(winograd2_weights_f16, grid, dim3(kThreads), 0, stream, static_cast<const __half*>(w),
                      static_cast<__half*>(packed), int(g.m), int(g.c), int(g.kernel[0]));
  } else {
    // depthwise reads its weights channel by channel, plain as they come
    const int64_t rows = setup.algorithm == Algorithm::depthwise ? g.m : 1;
    const int64_t columns = g.m * g.channels_per_group() * taps / rows;
    const dim3 grid(blocks_of(rows * columns));
    if (f32) DANCE_LAUNCH(transpose_weights_f32, grid, dim3(kThreads), 0, stream, static_cast<const float*>(w),
                          static_cast<float*>(packed), int(rows), int(columns));
    else DANCE_LAUNCH(transpose_weights_f16, grid, dim3(kThreads), 0, stream, static_cast<const __half*>(w),
                      static_cast<__half*>(packed), int(rows), int(columns));
  }
  return launched() ? Status::ok : Status::launch_failed;
}

Status gated_conv3d(const ConvSetup& setup, const ConvTensors& tensors, Stream stream) {
  std::size_t needed = 0;
  const Status status = workspace_bytes(setup, &needed);
  if (status != Status::ok) return status;
  for (const void* pointer : {tensors.x, tensors.packed, tensors.b, tensors.frame_keep, tensors.channel_keep,
                              tensors.feature_keep, static_cast<const void*>(tensors.y),
                              static_cast<const void*>(tensors.workspace)})
    if (!pointer) return Status::null_pointer;
  for (const void* pointer : {tensors.x, tensors.packed, tensors.z, static_cast<const void*>(tensors.y),
                              static_cast<const void*>(tensors.workspace)})
    if (!aligned(pointer)) return Status::misaligned;
  if (tensors.workspace_bytes < needed) return Status::workspace_too_small;
  switch (setup.algorithm) {
    case Algorithm::direct: return direct_conv(setup, tensors, stream);
    case Algorithm::winograd: return winograd_conv(setup, tensors, stream);
    default: return plain_conv(setup, tensors, stream);
  }
}

// ---- the gate ----

namespace {

struct GatePlan {
  int64_t slices, feature_slices;
  int64_t sums_at, feature_sums_at, magnitudes_at, bytes;
};

constexpr int64_t kBusyBlocks = 64;  // enough to fill a small GPU

GatePlan gate_plan(const GateSetup& g) {
  const int64_t pixels = g.h * g.w;
  GatePlan d;
  // float chains of a thread: 4 of them share what a slice gives it
  d.slices = ceil_div(pixels, int64_t(4) * kChain * (g.channels_last ? kThreads / 32 : 32));
  const int64_t blocks = ceil_div(pixels, g.channels_last ? kThreads / 32 : kThreads) * g.n;
  d.feature_slices = larger(1, smaller(kBusyBlocks / blocks, smaller(g.channels_last ? g.t : g.c, 16)));
  int64_t at = 0;
  const auto take = [&at](int64_t bytes) { const int64_t here = at; at += round_up(bytes, kWorkspaceAlignment); return here; };
  d.sums_at = take(g.n * d.slices * g.t * g.c * int64_t(sizeof(float)));
  d.feature_sums_at = take(g.n * d.feature_slices * pixels * int64_t(sizeof(float)));
  d.magnitudes_at = take(g.n * larger(larger(g.t, g.c), pixels) * int64_t(sizeof(double)));
  d.bytes = at;
  return d;
}

Status check_gate(const GateSetup& g) {
  for (int64_t extent : {g.n, g.c, g.t, g.h, g.w})
    if (extent < 1) return Status::bad_shape;
  if (g.type != Type::f32 && g.type != Type::f16) return Status::bad_shape;
  if (!indexable({g.c, g.t, g.h, g.w}) || g.n > kGridLimit) return Status::too_large;
  return gate_plan(g).slices * g.t > kGridLimit ? Status::too_large : Status::ok;
}

}  // namespace

Status gate_workspace_bytes(const GateSetup& setup, std::size_t* bytes) {
  if (!bytes) return Status::null_pointer;
  const Status status = check_gate(setup);
  if (status == Status::ok) *bytes = std::size_t(gate_plan(setup).bytes);
  return status;
}

Status gate(const GateSetup& g, const GateTensors& tensors, Stream stream) {
  const Status status = check_gate(g);
  if (status != Status::ok) return status;
  for (const void* pointer : {tensors.x, static_cast<const void*>(tensors.tau), static_cast<const void*>(tensors.frame_keep),
                              static_cast<const void*>(tensors.channel_keep),
                              static_cast<const void*>(tensors.feature_keep), static_cast<const void*>(tensors.workspace)})
    if (!pointer) return Status::null_pointer;
  if (!aligned(tensors.workspace)) return Status::misaligned;
  const GatePlan d = gate_plan(g);
  if (tensors.workspace_bytes < std::size_t(d.bytes)) return Status::workspace_too_small;

  char* workspace = static_cast<char*>(tensors.workspace);
  GateParams p;
  p.n = int(g.n), p.c = int(g.c), p.t = int(g.t), p.h = int(g.h), p.w = int(g.w);
  p.channels_last = g.channels_last, p.as_float = g.mask_type == MaskType::f32;
  p.slices = int(d.slices), p.feature_slices = int(d.feature_slices), p.x = tensors.x, p.tau = tensors.tau;
  p.frame_keep = tensors.frame_keep, p.channel_keep = tensors.channel_keep, p.feature_keep = tensors.feature_keep;
  p.sums = reinterpret_cast<float*>(workspace + d.sums_at);
  p.feature_sums = reinterpret_cast<float*>(workspace + d.feature_sums_at);
  p.magnitudes = reinterpret_cast<double*>(workspace + d.magnitudes_at);

  const bool f32 = g.type == Type::f32, last = g.channels_last;
  const dim3 block(kThreads);
  const unsigned warps = kThreads / 32, n = unsigned(g.n);
  const dim3 sums = last ? dim3(unsigned(ceil_div(g.c, kChannelsEach)), unsigned(d.slices * g.t), n)
                         : dim3(unsigned(ceil_div(g.c * g.t, warps)), unsigned(d.slices), n);
  if (f32 && last) DANCE_LAUNCH(gate_sum_f32_nthwc, sums, block, 0, stream, p);
  else if (f32) DANCE_LAUNCH(gate_sum_f32_ncthw, sums, block, 0, stream, p);
  else if (last) DANCE_LAUNCH(gate_sum_f16_nthwc, sums, block, 0, stream, p);
  else DANCE_LAUNCH(gate_sum_f16_ncthw, sums, block, 0, stream, p);
  if (!launched()) return Status::launch_failed;
  DANCE_LAUNCH(gate_select_frames_channels, dim3(n), block, 0, stream, p);
  if (!launched()) return Status::launch_failed;
  const dim3 features(unsigned(ceil_div(g.h * g.w, last ? warps : unsigned(kThreads))), unsigned(d.feature_slices), n);
  if (f32 && last) DANCE_LAUNCH(gate_sum_features_f32_nthwc, features, block, 0, stream, p);
  else if (f32) DANCE_LAUNCH(gate_sum_features_f32_ncthw, features, block, 0, stream, p);
  else if (last) DANCE_LAUNCH(gate_sum_features_f16_nthwc, features, block, 0, stream, p);
  else DANCE_LAUNCH(gate_sum_features_f16_ncthw, features, block, 0, stream, p);
  if (!launched()) return Status::launch_failed;
  DANCE_LAUNCH(gate_select_features, dim3(n), block, 0, stream, p);
  return launched() ? Status::ok : Status::launch_failed;
}

}  // namespace cuda
}  // namespace dance
