// The kernels by C calls, for tests and benchmarks (ctypes): no ONNX Runtime needed. Not a stable interface.
#pragma once
#include <cstdint>

#define DANCE_EXPORT extern "C" __attribute__((visibility("default")))

namespace dance {
struct RowsArgs;
}

// What calls return.
enum { DANCE_OK = 0, DANCE_BAD_SHAPE = 1, DANCE_NO_MEMORY = 2, DANCE_BAD_COSTS = 3 };

// Sums of absolute values, both or neither (null).
struct DanceMagnitudes {
  float* channel;           // [N, T, C], over the pixels of a frame
  float* pixel;             // [N, T, H, W], over channels
};

struct DanceConv {
  int64_t x_shape[5];       // N, C, T, H, W, whatever the layout
  int64_t w_shape[5];       // M, C/group, kT, kH, kW
  int64_t strides[3], pads[6], dilations[3], group;
  int32_t channels_last, type, mask_type;  // type: 0 float32, 1 float16; mask_type: 0 bytes, 1 float32
  int32_t prepack;          // pack the weights first, as a session does at load
  int32_t threads, repeats; // repeats: runs, for benchmarks; times_s (or null) gets [repeats][2] seconds: of a
                            // clock on the wall, and of the processor over all threads
  float minimum;
  int32_t variant;          // 0: whatever is estimated to be fastest; 1: direct, strict, from the outputs' side; 2, 4:
                            // Winograd with tiles of 2x2 or 4x4 outputs where the convolution allows it (and prepack is
                            // set), else direct; 12, 14: the same, with tiles of less than half of the pairs pixel by pixel
                            // (float32); 3: from the inputs' side where that can be (by_pixel.h), else direct
  int32_t* used;            // or null; gets the variant that was taken for the last n
  int32_t bf16;             // multiply in bfloat16 where the convolution allows it (and prepack is set)
  DanceMagnitudes magnitudes;         // of y, where wanted
  const char* costs;        // or null: what variant 0 goes by, as costs.h reads it
  const void* packed;       // or null: what dance_pack returned for such weights, in place of prepack
};

// One of the costs that an estimate is made of (costs.h); low, high: accepted.
struct DanceCost {
  const char* name;
  double built_in, low, high;
};

DANCE_EXPORT int dance_isa_count(void);
DANCE_EXPORT const char* dance_isa_name(int index);
DANCE_EXPORT int dance_isa_supported(int index);
DANCE_EXPORT int dance_isa_block(int index);   // output channels of a tile; tests choose sizes around it
// Variants of bfloat16, each of one instruction set; some are emulations, for tests.
DANCE_EXPORT int dance_bf16_count(void);
DANCE_EXPORT const char* dance_bf16_name(int index);
DANCE_EXPORT int dance_bf16_isa(int index);    // index of its instruction set
DANCE_EXPORT const char* dance_bf16_used(void);  // the variant that sessions get; null: they may not ask for bfloat16
// name: of an instruction set or a variant of bfloat16; null: back to the best. Returns 0 where it cannot be had.
DANCE_EXPORT int dance_force_isa(const char* name);
// Whether `rows`, or where null the variant's own, computes small products right: amx_usable.h.
DANCE_EXPORT int dance_bf16_agrees(int index, void (*rows)(const dance::RowsArgs&));
// One product of AMX tiles, see TileProductArgs; 0 where the variant uses none or cannot be had here.
DANCE_EXPORT int dance_tile_product(int index, const void* inputs, const void* weights, float* sums, int rows, int units,
                                    int columns);

DANCE_EXPORT const char* dance_isa_used(void);   // the instruction set that sessions get
// 1 where the environment variable DANCE_ISA names what cannot be had, so that sessions are refused; what to say then is written
// to `why`, cut to `size` bytes with the final zero.
DANCE_EXPORT int dance_isa_refused(char* why, int64_t size);
DANCE_EXPORT int dance_cost_model(void);         // which costs this library understands: kCostModel
DANCE_EXPORT int dance_cost_count(void);
DANCE_EXPORT void dance_cost(int index, DanceCost* cost);
// 0 where the text is good; else what is wrong with it is written to `wrong`, cut to `size` bytes with the final zero.
DANCE_EXPORT int dance_check_costs(const char* text, char* wrong, int64_t size);
// Computes nothing: the variant that masks of one n (bytes) lead to, and what direct, 2x2 and 4x4 are estimated to take, all
// 0 where the convolution can only be computed directly. conv's variant, threads and repeats are not looked at.
DANCE_EXPORT int dance_estimate(const DanceConv* conv, const uint8_t* frame_keep, const uint8_t* channel_keep,
                                const uint8_t* feature_keep, int32_t* chosen, double* steps);

DANCE_EXPORT int dance_gated_conv3d(const DanceConv* conv, const void* x, const void* w, const void* b,
                                    const void* frame_keep, const void* channel_keep, const void* feature_keep,
                                    const void* z, void* y, double* times_s);
// Weights packed as a session keeps them, for many calls; null where they cannot be had. To be given back to dance_unpack.
DANCE_EXPORT void* dance_pack(const DanceConv* conv, const void* w);
DANCE_EXPORT void dance_unpack(void* packed);
// Both channels-last floats; of `depthwise` threads, repeats, variant, bf16 and magnitudes are not looked at. Masks are of x.
DANCE_EXPORT int dance_expand_depthwise(const DanceConv* expand, const DanceConv* depthwise, int32_t swish, const void* x,
                                        const void* w, const void* b, const void* frame_keep, const void* channel_keep,
                                        const void* feature_keep, const void* depthwise_w, const void* depthwise_b, void* y,
                                        double* times_s);
// Bytes of the packed weights of a session that has run this variant; 0 where they cannot be had.
DANCE_EXPORT int64_t dance_packed_bytes(const DanceConv* conv, const void* w);
// X [N,C,T,H,W] -> Y [N,T,H,W,C].
DANCE_EXPORT int dance_to_channels_last(const int64_t* x_shape, int32_t type, const void* x, void* y,
                                        const DanceMagnitudes* magnitudes, int32_t threads);
// Over channels-last X and Y; x_shape: N, C, T, H, W; scale: [N, C].
DANCE_EXPORT int dance_scaled_swish(const int64_t* x_shape, int32_t type, const void* x, const void* scale, void* y,
                                    int32_t threads);
// Over channels-last X; x_shape: N, C, T, H, W; strides and pads as in DanceConv; pads less than the kernel's extents.
DANCE_EXPORT int dance_max_pool3d(const int64_t* x_shape, const int64_t* kernel, const int64_t* strides, const int64_t* pads,
                                  int32_t type, const void* x, void* y, const DanceMagnitudes* magnitudes, int32_t threads);
// magnitudes: of x, which is channels-last then; kept: how many frames, channels and features are kept, [N, 3]; or null.
DANCE_EXPORT int dance_activation_gate(const int64_t* x_shape, int32_t channels_last, int32_t type, const void* x,
                                       const float* tau, uint8_t* frame_keep, uint8_t* channel_keep,
                                       uint8_t* feature_keep, const DanceMagnitudes* magnitudes, int64_t* kept,
                                       int32_t threads);
