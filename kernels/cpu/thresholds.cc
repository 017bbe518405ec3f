#include "thresholds.h"

#include <cmath>

namespace dance {
namespace {

// as in method/controller.py and method/saliency.py, against which tests hold them
constexpr float kEps = 1e-12f;      // all-zero magnitudes give 0, not NaN
constexpr float kFedFloor = 0.01f;  // of the fed budget whose logarithm is an input
constexpr float kOpenRamp = 0.1f;   // thresholds fade to 0 over this part below a fed budget of 1
constexpr int kLanes = 8;           // sums beside each other, which the compiler makes one vector of

float dot(const float* a, const float* b, int64_t n) {
  float lanes[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += a[i + lane] * b[i + lane];
  float sum = 0;
  for (; i < n; ++i) sum += a[i] * b[i];
  for (float lane : lanes) sum += lane;
  return sum;
}

void add(const float* x, int64_t n, float factor, float* sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += factor * x[i];
}

// m / mean(m), in place.
void relative(float* m, int64_t n) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) total += m[i];
  const float mean = float(total / double(n)), divisor = mean < kEps ? kEps : mean;
  for (int64_t i = 0; i < n; ++i) m[i] /= divisor;
}

float fed_budget(const ThresholdsCall& call) {
  float fed = 0;
  for (int64_t i = 0; i + 1 < call.points; ++i) {
    const float low = call.asked[i], high = call.asked[i + 1];
    const float part = std::fmin(std::fmax(call.budget, low), high) - low;
    fed += part * ((call.fed[i + 1] - call.fed[i]) / (high - low));
  }
  return call.fed[0] + fed;
}

}  // namespace

void thresholds(const ThresholdsCall& call, Workspace& workspace) {
  const int64_t pixels = call.h * call.w, cells = call.rows * call.columns;
  const int64_t inputs = call.bins + call.c + cells + 2;
  float* x = workspace.statistics.of<float>(std::size_t(inputs + call.hidden + call.t + pixels + call.w));
  float* hidden = x + inputs;
  float* frames = hidden + call.hidden;
  float* grid = frames + call.t;
  float* row = grid + pixels;
  float *bins = x, *channels = bins + call.bins, *cell = channels + call.c;

  for (float* p = x; p < row; ++p) *p = 0;
  const float frame = 1.0f / float(call.t);
  for (int64_t t = 0; t < call.t; ++t) {
    const float* means = call.channel_magnitude + t * call.c;
    double sum = 0;
    for (int64_t c = 0; c < call.c; ++c) sum += means[c];
    frames[t] = float(sum / double(call.c));
    add(means, call.c, frame, channels);
    add(call.pixel_magnitude + t * pixels, pixels, frame, grid);
  }
  relative(frames, call.t);
  relative(channels, call.c);
  relative(grid, pixels);
  for (int64_t t = 0; t < call.t; ++t) add(call.frame_bins + t * call.bins, call.bins, frames[t], bins);
  for (int64_t r = 0; r < call.rows; ++r) {
    for (int64_t i = 0; i < call.w; ++i) row[i] = 0;
    for (int64_t i = 0; i < call.h; ++i) {
      const float weight = call.grid_rows[r * call.h + i];
      // each row of pixels belongs to a cell or two; one that does not is no part of its sum, NaN or not
      if (weight != 0) add(grid + i * call.w, call.w, weight, row);
    }
    for (int64_t i = 0; i < call.w; ++i)
      add(call.grid_columns + i * call.columns, call.columns, row[i], cell + r * call.columns);
  }
  const float fed = fed_budget(call);
  x[inputs - 2] = fed;
  x[inputs - 1] = std::log(fed < kFedFloor ? kFedFloor : fed);

  for (int64_t i = 0; i < call.hidden; ++i) {
    const float sum = call.hidden_b[i] + dot(call.hidden_w + i * inputs, x, inputs);
    hidden[i] = sum < 0 ? 0 : sum;
  }
  const float opening = std::fmin(std::fmax((1 - fed) / kOpenRamp, 0.0f), 1.0f);
  for (int64_t i = 0; i < 3 * call.gates; ++i) {
    const float sum = call.output_b[i] + dot(call.output_w + i * call.hidden, hidden, call.hidden);
    call.tau[i] = call.tau_scale[i] / (1 + std::exp(-sum)) * opening;
  }
}

}  // namespace dance
