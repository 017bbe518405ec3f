// The controller behind the stem: from its magnitudes and a budget to the thresholds of all gates. One clip.
#pragma once
#include <cstdint>

#include "workspace.h"

namespace dance {

struct ThresholdsCall {
  const float* channel_magnitude;  // [T, C]
  const float* pixel_magnitude;    // [T, H, W]
  int64_t t, c, h, w;              // all at least 1
  float budget;
  // resampling: [T, bins], [rows, H], [W, columns]
  const float* frame_bins;
  const float* grid_rows;
  const float* grid_columns;
  int64_t bins, rows, columns;
  // the calibrated map from the budget asked for to the one fed in, piecewise linear: [points], points at least 2
  const float* asked;
  const float* fed;
  int64_t points;
  // the perceptron: [hidden, bins + C + rows * columns + 2], [hidden], [3 L, hidden], [3 L]
  const float* hidden_w;
  const float* hidden_b;
  const float* output_w;
  const float* output_b;
  int64_t hidden, gates;
  const float* tau_scale;  // [L, 3]
  float* tau;              // [L, 3]
};

// A NaN in the magnitudes is a NaN in every threshold, which drops nothing. Throws std::bad_alloc.
void thresholds(const ThresholdsCall& call, Workspace& workspace);

}  // namespace dance
