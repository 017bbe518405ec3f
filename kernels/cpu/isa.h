// The inner loops, once per instruction set: isa_kernels.cc is compiled several times, each time filling one table.
// They see pointers, sizes and strides, allocate nothing and cannot fail.
#pragma once
#include <cstdint>

#include "geometry.h"

namespace dance {

// A run of the reduction: `length` consecutive inputs of every row, and as many rows of the packed weights.
struct Segment {
  int64_t in;        // from the row's first input, in floats
  int64_t weight;    // first weight row; in indexed mode the row of the kernel position's channel 0
  int32_t length;
  int32_t index;     // where the run begins in weight_index, in inputs
};

// acc[row_out[r]] (+)= sum over segments of input x weights, for rows that share their live taps.
struct RowsArgs {
  const float* x;
  const int64_t* row_in;         // [rows] position of the row's first input in x; may lie before x, is only read + segment
  int64_t step;                  // floats from the input of one row to that of the next, then row_in is null and that of the
                                 // first is x; 0: rows lie anywhere. Not with index_inputs.
  const int32_t* row_out;        // [rows] row of acc
  int rows;
  const Segment* segments;
  int segment_count;
  const float* weights;          // [weight rows][vectors * vector length]
  // null: weight rows are consecutive; kPrefetchRows entries past the end are read. bfloat16: two entries a unit, and twice
  // as many past the end, each the half of a row: of row entry / 2, the odd half where the entry is odd.
  const int32_t* weight_index;
  bool index_inputs;             // inputs are picked by weight_index too: they lie as the weight rows do
  float* acc;                    // [rows of acc][columns]
  int vectors;                   // of output channels, 1..max_vectors
  bool accumulate;               // add to acc instead of storing
  // Where y is given, a row goes there as soon as its sums are complete, while they are in the L1 cache, and is left
  // undefined in acc: y = max(sum + bias (+ z), minimum), `count` floats.
  float* y;
  float* scratch;                // sums of one tile: kTileRows rows of columns
  const float* z;                // or null
  const int64_t* row_y;          // [rows] where each row lies in y and z
  const float* bias;
  float minimum;
  int count;
};

// y[row] = max(bias + inputs of the row x weights (+ z), minimum): 1x1x1 convolutions, one block of output channels.
struct PointwiseArgs {
  const float* x;
  const int64_t* row_in;         // [rows] where a row's inputs lie in x
  const int64_t* row_y;          // [rows] and its outputs in y and z
  int rows;
  int64_t inputs;                // 0: y is of bias (and z) alone, x and weights are not read
  const int32_t* index;          // [inputs] which inputs, and rows of the weights; null: the first ones
  const float* weights;          // [rows of the weights][vectors * vector length]
  int vectors;                   // of output channels, 1..max_vectors
  int last;                      // from a row's first output to those of the last vector, which may share some with others
  int part;                      // 0, or how many outputs there are, where these are less than a vector
  const float* bias;             // [vectors * vector length], as the weights' columns
  float* y;
  const float* z;                // or null
  float minimum;
};

// Rows of one kernel position after the other, `taps` of them, whose sums lie one row of acc apart, the next before the last:
// what an input pixel adds to its neighbours. Sums are added to acc; y is not looked at, rows lie anywhere.
struct TapRowsArgs {
  RowsArgs first;
  int taps;
  int64_t weight_step;           // floats from the weights of one position to those of the next
};

// Kernels along W whose inputs a strip of output pixels reads one after the other, each once for all that need it.
inline bool depthwise_slides(int64_t kernel, int64_t stride, int64_t dilation) {
  return (kernel == 3 && dilation == 1 && stride <= 2) || (kernel == 1 && stride == 1);
}

// The inputs of a strip of output pixels, side by side along W, in one row of the kernel (kt, kh).
struct DepthwiseLine {
  int64_t in;                    // floats from x to the strip's first position, or where `at` is given to the input row
  // null: positions lie `step` floats apart and all are kept; else, of every position where the kernel slides, else of
  // [pixels][kernel]: floats from the input row to it and all ones, or floats from x to the zeros that are read in its
  // place and 0. A loop that adds up (in & keep[j]) + at[j] has no branch that scattered pixels would mislead.
  const int64_t* at;
  const int64_t* keep;
  int64_t tap;                   // first position of the kernel row
};

struct DepthwiseArgs {
  const float* x;
  const DepthwiseLine* lines;    // that the strip reads anything of
  int line_count;
  int pixels;                    // of output, 1..depthwise_pixels
  // Of a kernel of 3 that slides: the first and the last position are padding, in lines without `at`.
  bool skip_first, skip_last;
  int64_t kernel, stride, dilation;  // along W
  int64_t step;                  // floats from one input position to the next
  const float* weights;          // [vectors][taps][vector length]; the last vector is of the last channels (pack.h)
  int64_t taps, count;           // kernel positions; channels
  int first, vectors;            // those of the channels to work on
  bool by_vectors;               // x has these, each whole, one after the other; else all channels in order
  float* out;                    // sums, or Y where bias is given: then all channels in order, floats
  int64_t out_step;              // floats from one output pixel to the next
  const float* bias;             // [count] or null
  const uint32_t* keep;          // [count] all ones, or 0 where what was summed is thrown away; null: all kept
  const float* z;                // like out, or null
  float minimum;
  bool swish;                    // of what is at least the minimum; where bias is given, without keep and z
  // Narrow groups only; weights are then [vectors][taps][inputs][vector length].
  int64_t inputs;                // of a group
  int registers;                 // vectors of input channels that a vector of outputs reads, 1 or 2 ...
  const int64_t* bases;          // ... [vectors] from this channel on ...
  const int32_t* lanes;          // ... [vectors][vector length] and of these, for each output, its group's first
  const int32_t* live_inputs;    // [vectors][inputs + 1] numbers inside a group that any group of the vector keeps, then -1
  const uint32_t* keep_inputs;   // [channels] all ones, or 0 where what lies there is not used
};

// out[pixel][m] = sum over segments of input x weights, for pixels whose inputs lie evenly: few_outputs.inc.
struct FewOutputsArgs {
  const float* x;                // first input of the first pixel
  int64_t step;                  // floats from the inputs of one pixel to those of the next
  int pixels;                    // at least one
  const Segment* segments;       // lengths and weights are counted in vectors of inputs; at least one, none of them empty
  int segment_count;
  const float* weights;          // [vectors of inputs][outputs][vector length]
  int outputs;                   // 1..kFewOutputsTile
  float* out;                    // [pixels][out_step] sums
  int64_t out_step;
};

// acc[place[r] * outputs + at[g] + i] += sums[r][g][i]: rows of sums to where each of their groups belongs.
struct ScatterSumsArgs {
  const float* sums;             // [rows][step]
  int64_t step;
  int rows;
  const int32_t* place;          // [rows]
  int64_t outputs;
  int groups, lanes;             // lanes: of a group
  const int64_t* at;             // [groups]
  float* acc;                    // a vector past what is added to is read and written
};

constexpr int kFewOutputsTile = 4;

// Pixels side by side -> each in whole vectors of floats, zeros at dropped ones, in dropped channels and past the last.
struct WholeVectorsArgs {
  const float* x;                // [pixels][channels]
  int64_t channels, pixels;
  const uint8_t* keep;           // [pixels] 0 or 1
  const uint32_t* select;        // [vectors of channels, all lanes] all ones for each kept channel, else 0
  float* out;                    // [pixels][vectors of channels, all lanes]
};

// Activation of some channels of one frame -> channels-last floats. Pixels [begin, end) of the frame.
struct LoadArgs {
  const void* x;                 // the frame: [C][channel_stride] or [pixels][C]
  Type type;
  bool channels_last;
  int64_t channel_stride;        // NCTHW: elements from one channel to the next; channels-last: C
  const int32_t* channels;       // [count] which channels, ascending
  int count;
  const uint8_t* keep;           // [pixels] of the frame, 0 or 1; dropped pixels are left alone or zeroed
  bool zero_dropped;
  int64_t begin, end;
  float* out;                    // [pixels][out_stride]
  int64_t out_stride;            // >= count; columns past count are zeroed
};

// acc + bias (+ z), clamped, to Y. One frame's pixels [0, pixels) of the item.
struct StoreArgs {
  const float* acc;              // [pixels][acc_stride]; null: all zero
  int64_t acc_stride;
  int pixels;
  int count;                     // output channels
  const float* bias;             // [count]
  float minimum;
  const void* z;                 // like y, or null
  void* y;                       // first pixel, channel 0
  const int32_t* channels;       // [count] channel of each column, or null: first_channel + column
  int64_t first_channel;
  int64_t channel_stride, pixel_stride;  // one of them is 1
  Type type;
};

// sums[i] += sum over slices of |slice[i]|, i in [0, count): pixels over frames and channels, or channels over pixels.
struct AbsSlicesArgs {
  const void* x;
  Type type;
  const int64_t* offsets;        // [slices] elements from x to each slice, or null: slice * stride
  int64_t stride;
  int64_t slices, count;
  double* sums;
};

// y[c] = the largest of x[0..count)[c], NaN where one of them is; y of minus infinity where count is 0.
struct LargestArgs {
  const void* const* x;
  int count;
  void* y;
  int64_t channels;
  Type type;
};

// y[i] = swish(x[i] * scale[i % period]), swish(a) = a / (1 + exp(-a)).
struct SwishArgs {
  const void* x;
  void* y;
  Type type;
  const float* scale;            // [period]
  int64_t period;                // whole vectors
  int64_t count;
};

// sums[p] = sum over frames and channels of |x[frame][p][channel]|, x channels-last.
struct AbsPixelsArgs {
  const void* x;                 // first pixel
  Type type;
  const int64_t* frames;         // [frame_count] elements from x to each
  int64_t frame_count, pixels, channels;
  const uint32_t* select;        // [channels] all ones for each that counts and 0 for others, or null: all
  double* sums;
};

// Both sums of a rectangle: channel_sums[c] += |x| of its pixels, pixel_sums[p] = pixel_scale * (|x| over its channels).
struct MagnitudesArgs {
  const void* x;
  Type type;
  int64_t channels, pixels;
  int64_t channel_stride, pixel_stride;  // elements from one to the next; one of them is 1
  double* channel_sums;
  float* pixel_sums;
  double pixel_scale;
};

// One tile of a Winograd convolution into its components: a patch of (size + 2)^2 pixels, size 2 or 4.
struct WinogradInArgs {
  const float* const* pixels;    // [(size + 2)^2] channels of each pixel of the patch; of dropped ones: zeros
  const float* const* next;      // of the tile that will be transformed next: fetched ahead
  int64_t channels;              // whole vectors
  float* out;                    // component 0
  int64_t component_stride;      // floats from one component to the next
  int size;
};

// And back: (size + 2)^2 components of one tile -> size^2 output pixels of `columns` channels.
struct WinogradOutArgs {
  const float* sums;             // component 0
  int64_t component_stride;
  int64_t columns;               // whole vectors
  float* out;                    // the tile's first pixel
  int64_t row_stride, pixel_stride;  // floats from one row of pixels, from one pixel to the next
  int size;
  int rows, row_pixels;          // of the tile that lie inside the map
  // Where given, max(pixel + bias (+ z), minimum) is written instead of the pixel.
  const float* bias;
  const float* z;                // like out, or null
  float minimum;
};

// sums[rows][columns] += inputs[rows][units] x weights[units][columns]: one product of tiles, units as 32 bits.
struct TileProductArgs {
  const void* inputs;
  const void* weights;
  float* sums;
  int rows, units, columns;      // each 1..16
};

// bfloat16 in place of float32, with float32 sums: what rows and winograd_in read is then 32-bit units, each two channels
// side by side, the even one in the low half; RowsArgs counts such units.
struct PairKernels {
  const char* name;
  bool (*supported)();
  bool native;                   // false: an emulation, for tests
  void (*rows)(const RowsArgs&);
  void (*winograd_in)(const WinogradInArgs&);  // channels: pixels have floats, components half as many units
  void (*round)(const float* x, int64_t count, float* units);  // count: even; to nearest, ties to even
  // Halves of two rows of units as one: see weight_index. count: of units, whole vectors.
  void (*merge)(const float* first, const float* second, int which, int64_t count, float* out);
  void (*tile_product)(const TileProductArgs&);  // for tests; null where `rows` uses no tiles
};

constexpr int kNarrowPixels = 8;  // most of a strip of narrow groups
constexpr int kTileRows = 20;     // most rows of a tile
constexpr int kPrefetchRows = 12;  // weight rows fetched ahead

// Entries past the end of a weight index, which are only fetched ahead: the rows of the run that follows `rows` later.
// halves: entries a unit of the run has.
inline void extend_index(int32_t* index, int64_t count, int64_t rows, int64_t halves = 1) {
  for (int64_t i = 0; i < halves * kPrefetchRows; ++i) index[count + i] = count ? index[i] + int32_t(rows) : 0;
}

struct IsaKernels {
  const char* name;
  bool (*supported)();
  int vector;                    // floats in a vector
  int max_vectors;               // vectors of output channels in a tile; a block is vector * max_vectors channels
  int depthwise_pixels;          // of a strip, at most
  void (*rows)(const RowsArgs&);
  void (*tap_rows)(const TapRowsArgs&);
  void (*pointwise)(const PointwiseArgs&);
  void (*depthwise)(const DepthwiseArgs&);
  void (*few_outputs)(const FewOutputsArgs&);
  void (*scatter_sums)(const ScatterSumsArgs&);
  void (*narrow)(const DepthwiseArgs&);  // strips of narrow groups: see pack.h
  void (*load)(const LoadArgs&);
  void (*whole_vectors)(const WholeVectorsArgs&);
  // out[i] = x[i] where keep[i] is all ones, 0 where it is 0.
  void (*select)(const float* x, const uint32_t* keep, int64_t count, float* out);
  void (*store)(const StoreArgs&);
  // Sum of |x| over consecutive elements; select: null, or all ones for each element that counts and 0 for others.
  double (*abs_sum)(const void* x, Type type, const uint32_t* select, int64_t count);
  void (*abs_sum_slices)(const AbsSlicesArgs&);
  void (*winograd_in)(const WinogradInArgs&);
  void (*winograd_out)(const WinogradOutArgs&);
  void (*largest)(const LargestArgs&);
  void (*scaled_swish)(const SwishArgs&);
  void (*abs_sum_pixels)(const AbsPixelsArgs&);
  void (*magnitudes)(const MagnitudesArgs&);
  const PairKernels* const* pairs;  // best first; null after the last

  // bfloat16 on this machine: the best of `pairs`, or the one that was named; or null.
  const PairKernels* bf16() const;
  int block() const { return vector * max_vectors; }
};

// The one list of variants, best first; `count` entries. Every entry is compiled in; not every machine supports it.
const IsaKernels* const* isa_list(int* count);
// The best one this machine supports, or the one that force_isa or else the environment variable DANCE_ISA named.
const IsaKernels& isa_current();
// name: of an entry, or of one of its `pairs`, for bfloat16 (an entry's own name leaves it the best of them). Null returns
// to the default. False: no such variant, or not supported here.
bool force_isa(const char* name);
// What DANCE_ISA names, where that cannot be had; else null.
const char* isa_refused();
// Whether bfloat16 is worth offering: emulated only where a variant was named.
bool bf16_offered();

}  // namespace dance
