// dance::Thresholds and ThresholdsClock for ONNX Runtime: reads shapes, calls, translates errors.
#include "../cpu/thresholds.h"

#include <chrono>

#include "op.h"

namespace dance_ort {
namespace {

constexpr const char* kNames[] = {"channel_magnitude", "pixel_magnitude", "budget", "frame_bins", "grid_rows", "grid_columns",
                                  "asked", "fed", "hidden_W", "hidden_B", "output_W", "output_B", "tau_scale"};
constexpr std::size_t kInputs = sizeof(kNames) / sizeof(*kNames);

struct ThresholdsKernel : PlainKernel {
  using PlainKernel::PlainKernel;

  void compute(OrtKernelContext* context) const {
    Tensor in[kInputs];
    const float* data[kInputs];
    for (std::size_t i = 0; i < kInputs; ++i) {
      in[i] = input(api, context, i);
      data[i] = static_cast<const float*>(in[i].data);
    }
    const Shape &channel = extents(in, 0, 3), &pixel = extents(in, 1, 4), &bins = extents(in, 3, 2),
          &rows = extents(in, 4, 2), &columns = extents(in, 5, 2), &points = extents(in, 6, 1), &hidden = extents(in, 8, 2),
          &scale = extents(in, 12, 2);
    const int64_t t = pixel[1], h = pixel[2], w = pixel[3], units = hidden[0], gates = scale[0];
    if (points[0] < 2) refuse(where, "asked", text(points), "2 numbers or more");
    expect(in, 0, {1, t, channel[2]}, 1);
    expect(in, 1, {1, t, h, w}, 0);
    expect(in, 2, {1}, 0);
    expect(in, 3, {t, bins[1]}, 1);
    expect(in, 4, {rows[0], h}, 1);
    expect(in, 5, {w, columns[1]}, 1);
    expect(in, 7, points, 6);
    expect(in, 8, {units, bins[1] + channel[2] + rows[0] * columns[1] + 2}, 0);
    expect(in, 9, {units}, 8);
    expect(in, 10, {3 * gates, units}, 12);
    expect(in, 11, {3 * gates}, 12);
    expect(in, 12, {gates, 3}, 12);
    float* tau = static_cast<float*>(output(api, context, 0, {gates, 3}));
    Borrowed workspace;
    dance::thresholds({data[0], data[1], t, channel[2], h, w, *data[2], data[3], data[4], data[5], bins[1], rows[0],
                       columns[1], data[6], data[7], points[0], data[8], data[9], data[10], data[11], units, gates, data[12],
                       tau},
                      *workspace);
    if (op.clock)
      *static_cast<int64_t*>(output(api, context, 1, {1})) = std::chrono::duration_cast<std::chrono::nanoseconds>(
          std::chrono::steady_clock::now().time_since_epoch()).count();
  }

  const Shape& extents(const Tensor* in, std::size_t i, std::size_t rank) const {
    const Shape& shape = in[i].shape;
    if (!has_extents(shape, rank)) refuse(where, kNames[i], text(shape), std::to_string(rank) + " extents, each at least 1");
    return shape;
  }

  void expect(const Tensor* in, std::size_t i, const Shape& expected, std::size_t because) const {
    check_shape(where, kNames[i], in[i].shape, expected,
                [&] { return std::string(kNames[because]) + " is " + text(in[because].shape); });
  }
};

}  // namespace

void init_thresholds(Op& op) {
  op.GetInputTypeCount = [](const OrtCustomOp*) { return kInputs; };
  op.GetInputType = [](const OrtCustomOp*, std::size_t) { return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT; };
  op.GetOutputTypeCount = [](const OrtCustomOp* self) { return std::size_t(static_cast<const Op*>(self)->clock ? 2 : 1); };
  op.GetOutputType = [](const OrtCustomOp*, std::size_t index) {
    return index == 0 ? ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT : ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64;
  };
  set_kernel<ThresholdsKernel>(op);
}

}  // namespace dance_ort
