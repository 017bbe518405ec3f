// What the kernels are given: plain numbers and pointers by value. Host and device read the same structs.
//
// A "word" is 32 bits: one float, or two halves (channels 2i and 2i+1). A "group" is 4 words of neighbouring channels
// (16 bytes, one load): 4 channels in float32, 8 in float16. All indices within one item of N fit 32 bits (conv_init checks).
#pragma once

namespace dance {
namespace cuda {

constexpr int kThreads = 128;         // of every kernel but the narrower convolution tiles
constexpr int kTileColumns = 64;      // output channels of a convolution tile; packed weights are padded to it
constexpr int kGroupWords = 4;
constexpr int kSlabGroups = 2;        // groups reduced between two barriers
constexpr int kSortBits = 9;          // kernels of up to 9 positions a frame have their pixels sorted by live positions
constexpr int kSortAlways = 28 * 28;  // maps of at most so many outputs are sorted also where no feature is dropped
constexpr int kOctet = 8;             // floats of a 32-byte sector
constexpr int kMaxPositions = 64;     // kernel positions of one frame that a live pattern holds
constexpr int kMaxKernelFrames = 32;
constexpr int kMaxTaps = 512;         // of all kernel positions
constexpr int kMaxChannels = 12288;   // the list of kept channels lies in shared memory, two bytes each

struct ConvShape {
  int c, t, h, w, m;
  int kernel[3], strides[3], pads[3], dilations[3];  // pads: the begins
  int out[3];
  int group;
};

// One item's plan, as offsets in ints. Written by plan_masks, read by what follows.
struct PlanLayout {
  int kept;         // uint16 [C rounded up to whole groups]: kept channels, ascending; the last one repeated at the end
  int frames;       // [T']: output frames, those with the same live kernel frames together
  int class_first;  // [T' + 1]: of each class, its first entry in `frames`
  int class_taps;   // [T']: of each class, its live kernel frames as bits
  int class_tile;   // [T' + 1]: of each class, its first row tile
  int order;        // [pixels of a frame], where sorted
  int ints;         // of one item
};
enum PlanHeader {
  kHeadKept = 0,     // kept channels
  kHeadGroups = 1,   // groups of them
  kHeadPitch = 2,    // words from one pixel to the next in the input that the convolution reads
  kHeadPacked = 3,   // 1: that input is the packed one, 0: X itself
  kHeadClasses = 4,
  kHeadSorted = 5,   // 1: rows follow `order`
  kHeadOctet = 6,    // pixels that lie together in the order of rows: 1 or kOctet
  kHeadInts = 8
};

struct Masks {
  const void* frame;    // [N, T]
  const void* channel;  // [N, C]
  const void* feature;  // [N, H, W]
  int as_float;         // float32, else bytes
};

struct PlanParams {
  ConvShape shape;
  Masks masks;
  PlanLayout layout;
  int* plan;           // of item 0
  int group_channels;  // channels of a group: 4 or 8
  int tile_rows;
  int channels_last;
};

struct PackParams {
  ConvShape shape;
  Masks masks;
  PlanLayout layout;
  const int* plan;
  const void* x;       // of item 0
  void* packed;        // [T][H][W][pitch], of item 0
  long long x_stride, packed_stride;  // elements from one item to the next
  int group_channels;
  int channels_last;
};

// Where a convolution tile leaves its sums.
enum class Sums : int { final = 0, raw = 1 };

struct ConvParams {
  ConvShape shape;
  Masks masks;
  PlanLayout layout;
  const int* plan;
  const void* x;
  const void* packed;  // see PackParams
  const void* weights; // [batch][M/64][taps][C][64]
  const void* b;
  const void* z;
  void* y;
  float* raw;          // [batches or splits][T'H'W'][M rounded up to 64]
  long long x_stride, packed_stride, y_stride;         // elements from one item to the next
  long long batch_packed, batch_weights, batch_raw;    // elements from one batch step to the next
  int batches;         // independent products: Winograd's components
  int always_packed;   // the input is `packed`, whatever the plan says of X
  int splits;          // parts of the reduction, each with sums of its own
  int channels_last;
  float minimum;
  Sums sums;
};

}  // namespace cuda
}  // namespace dance
