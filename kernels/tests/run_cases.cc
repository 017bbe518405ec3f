// Random convolutions, gates, conversions, pools and controllers through every variant this machine has, against plain loops,
// on buffers of exact size: meant to be built with sanitizers (make sanitize, make tsan). The full property suite is
// tests/kernels/ (Python).
//   run_cases [cases] [first seed]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../cpu/c_api.h"
#include "../cpu/thresholds.h"

namespace {

struct Random {
  std::mt19937 engine;
  int64_t among(std::initializer_list<int64_t> values) { return values.begin()[engine() % values.size()]; }
  int64_t range(int64_t low, int64_t high) { return low + int64_t(engine() % uint32_t(high - low + 1)); }
  float value() { return std::normal_distribution<float>()(engine); }
  bool chance(double p) { return std::uniform_real_distribution<>()(engine) < p; }
};

// Exactly as large as it has to be, so that the address sanitizer sees one element too many.
template <class T>
std::unique_ptr<T[]> exact(int64_t count) { return std::unique_ptr<T[]>(new T[std::size_t(count)]); }

struct Case {
  DanceConv conv{};
  int64_t out[3];
  std::unique_ptr<float[]> x, w, b, z, y, channel_magnitude, pixel_magnitude;
  std::unique_ptr<uint8_t[]> frame, channel, feature;
  int64_t x_count, w_count, y_count;
};

// Half of the cases can be computed by Winograd tiles.
void make_winograd_possible(Random& r, DanceConv& v, int64_t* kernel) {
  v.group = 1;
  v.x_shape[1] = v.w_shape[1] = r.among({8, 15, 17, 40});
  v.w_shape[0] = r.among({1, 15, 17, 65});
  v.variant = int32_t(r.among({0, 2, 3, 4, 12, 14}));
  v.prepack = 1;
  for (int i = 1; i < 3; ++i) kernel[i] = 3, v.strides[i] = v.dilations[i] = 1, v.x_shape[2 + i] = r.range(1, 15);
}

// Few channels on both sides, and rows long enough for spans and for few kept pixels among many.
void make_narrow(Random& r, DanceConv& v, int64_t* kernel) {
  v.group = 1;
  v.x_shape[1] = v.w_shape[1] = r.among({1, 2, 3, 4, 8, 13, 16, 17});
  v.w_shape[0] = r.among({1, 2, 3, 4, 5, 13, 15, 16, 17});
  v.variant = int32_t(r.among({1, 3})), v.prepack = 1;
  for (int i = 1; i < 3; ++i) kernel[i] = r.among({1, 2, 3}), v.x_shape[2 + i] = r.range(3, 9 * (1 + 2 * (i == 2)));
  if (r.chance(0.7)) v.strides[2] = v.dilations[2] = 1;
}

bool make_case(Random& r, Case& c) {
  DanceConv& v = c.conv;
  const bool depthwise = r.chance(0.2), narrow = !depthwise && r.chance(0.3);
  v.group = depthwise ? r.among({2, 16, 17, 65}) : narrow ? r.among({4, 5, 8, 16}) : r.among({1, 1, 2, 3});
  const int64_t inputs = depthwise ? 1 : narrow ? r.among({2, 4, 5, 8, 16}) : r.among({1, 3, 16, 33});
  const int64_t outputs = depthwise ? 1 : narrow ? r.among({2, 3, 4, 8, 16}) : r.among({1, 15, 17, 64, 65});
  int64_t kernel[3] = {r.among({1, 3}), r.among({1, 3, 7, 9}), r.among({1, 3, 7, 9})};
  v.x_shape[0] = r.range(1, 2), v.x_shape[1] = v.group * inputs;
  v.w_shape[0] = v.group * outputs, v.w_shape[1] = inputs;
  v.channels_last = r.chance(0.5), v.prepack = r.chance(0.5);
  for (int i = 0; i < 3; ++i)
    v.x_shape[2 + i] = r.range(1, 9), v.strides[i] = r.range(1, 3), v.dilations[i] = r.among({1, 1, 2});
  v.variant = int32_t(r.among({0, 1, 3}));
  const bool few = r.chance(0.3);
  if (few) make_narrow(r, v, kernel);
  else if (r.chance(0.5)) make_winograd_possible(r, v, kernel);
  for (int i = 0; i < 3; ++i) {
    v.w_shape[2 + i] = kernel[i];
    v.pads[i] = r.range(0, 3), v.pads[i + 3] = r.range(0, 3);
    const int64_t room = v.x_shape[2 + i] + v.pads[i] + v.pads[i + 3] - v.dilations[i] * (kernel[i] - 1) - 1;
    if (room < 0) return false;
    c.out[i] = room / v.strides[i] + 1;
  }
  v.threads = int32_t(r.range(1, 3)), v.repeats = 2;
  v.bf16 = r.chance(0.4);
  v.minimum = r.chance(0.5) ? 0.0f : std::numeric_limits<float>::lowest();
  c.x_count = v.x_shape[0] * v.x_shape[1] * v.x_shape[2] * v.x_shape[3] * v.x_shape[4];
  c.w_count = v.w_shape[0] * v.w_shape[1] * kernel[0] * kernel[1] * kernel[2];
  c.y_count = v.x_shape[0] * v.w_shape[0] * c.out[0] * c.out[1] * c.out[2];
  c.x = exact<float>(c.x_count), c.w = exact<float>(c.w_count), c.b = exact<float>(v.w_shape[0]);
  c.y = exact<float>(c.y_count);
  for (int64_t i = 0; i < c.x_count; ++i) c.x[i] = r.value();
  for (int64_t i = 0; i < c.w_count; ++i) c.w[i] = r.value();
  for (int64_t i = 0; i < v.w_shape[0]; ++i) c.b[i] = r.value();
  if (r.chance(0.4)) {
    c.z = exact<float>(c.y_count);
    for (int64_t i = 0; i < c.y_count; ++i) c.z[i] = r.value();
  }
  if (r.chance(0.5)) {
    c.channel_magnitude = exact<float>(v.x_shape[0] * c.out[0] * v.w_shape[0]);
    c.pixel_magnitude = exact<float>(v.x_shape[0] * c.out[0] * c.out[1] * c.out[2]);
    v.magnitudes = {c.channel_magnitude.get(), c.pixel_magnitude.get()};
  }
  const int64_t counts[3] = {v.x_shape[0] * v.x_shape[2], v.x_shape[0] * v.x_shape[1],
                             v.x_shape[0] * v.x_shape[3] * v.x_shape[4]};
  std::unique_ptr<uint8_t[]>* masks[3] = {&c.frame, &c.channel, &c.feature};
  for (int i = 0; i < 3; ++i) {
    const double rate = few && i == 2 ? double(r.among({1, 2, 10})) / 10 : double(r.among({0, 3, 6, 10, 10})) / 10;
    *masks[i] = exact<uint8_t>(counts[i]);
    for (int64_t j = 0; j < counts[i]; ++j) (*masks[i])[j] = r.chance(rate);
  }
  return true;
}

int64_t at(bool last, const int64_t* s, int64_t n, int64_t c, int64_t t, int64_t h, int64_t w) {  // s: N, C, T, H, W
  return last ? (((n * s[2] + t) * s[3] + h) * s[4] + w) * s[1] + c : (((n * s[1] + c) * s[2] + t) * s[3] + h) * s[4] + w;
}

constexpr double kBf16Bound = 0.125;  // Winograd's, in bfloat16; tests/kernels/ looks closer

// The bound as in the ops' contract; near: within as many positions along H and W as a Winograd tile mixes.
double largest_excess(const Case& c, const int64_t* ys, double terms, const std::vector<double>& sums,
                      const std::vector<double>& sizes) {
  double result = 0;
  const int64_t near = 3;
  for (int64_t i = 0; i < ys[0] * ys[1] * ys[2] * ys[3] * ys[4]; ++i) {
    const int64_t wo = i % ys[4], ho = i / ys[4] % ys[3], plane = i / ys[4] / ys[3];
    const int64_t to = plane % ys[2], m = plane / ys[2] % ys[1], n = plane / ys[2] / ys[1];
    double size = 0;
    for (int64_t h = std::max<int64_t>(0, ho - near); h <= std::min(ys[3] - 1, ho + near); ++h)
      for (int64_t w = std::max<int64_t>(0, wo - near); w <= std::min(ys[4] - 1, wo + near); ++w)
        size = std::fmax(size, sizes[std::size_t(at(c.conv.channels_last, ys, n, m, to, h, w))]);
    const int64_t place = at(c.conv.channels_last, ys, n, m, to, ho, wo);
    const double expected = std::fmax(sums[std::size_t(place)], c.conv.minimum);
    const double rounding = c.conv.bf16 ? kBf16Bound : 2 * 1.1920929e-7 * std::sqrt(terms + 2);
    const double bound = rounding * size + 6e-8 * std::fabs(expected);
    const double error = std::fabs(c.y[place] - expected);
    if (!(error <= bound)) result = std::fmax(result, std::isfinite(error) ? error / bound : 1e30);
  }
  return result;
}

// Largest error over its bound.
double worst(const Case& c) {
  const DanceConv& v = c.conv;
  const int64_t *xs = v.x_shape, *ws = v.w_shape, ys[5] = {xs[0], ws[0], c.out[0], c.out[1], c.out[2]};
  const double terms = double(ws[1] * ws[2] * ws[3] * ws[4]);
  std::vector<double> sums(std::size_t(c.y_count)), sizes(std::size_t(c.y_count));
  for (int64_t n = 0; n < ys[0]; ++n)
    for (int64_t m = 0; m < ys[1]; ++m)
      for (int64_t to = 0; to < ys[2]; ++to)
        for (int64_t ho = 0; ho < ys[3]; ++ho)
          for (int64_t wo = 0; wo < ys[4]; ++wo) {
            const int64_t place = at(v.channels_last, ys, n, m, to, ho, wo);
            double sum = c.b[m], size = std::fabs(c.b[m]);
            if (c.z) sum += c.z[place], size += std::fabs(c.z[place]);
            for (int64_t i = 0; i < ws[1] * ws[2] * ws[3] * ws[4]; ++i) {
              const int64_t kw = i % ws[4], kh = i / ws[4] % ws[3], kt = i / (ws[4] * ws[3]) % ws[2];
              const int64_t ch = m / (ws[0] / v.group) * ws[1] + i / (ws[4] * ws[3] * ws[2]);
              const int64_t t = to * v.strides[0] - v.pads[0] + kt * v.dilations[0];
              const int64_t h = ho * v.strides[1] - v.pads[1] + kh * v.dilations[1];
              const int64_t w = wo * v.strides[2] - v.pads[2] + kw * v.dilations[2];
              if (t < 0 || t >= xs[2] || h < 0 || h >= xs[3] || w < 0 || w >= xs[4]) continue;
              if (!c.frame[n * xs[2] + t] || !c.channel[n * xs[1] + ch] || !c.feature[(n * xs[3] + h) * xs[4] + w]) continue;
              const double term = double(c.x[at(v.channels_last, xs, n, ch, t, h, w)]) * c.w[m * ws[1] * ws[2] * ws[3] * ws[4] + i];
              sum += term, size += std::fabs(term);
            }
            sums[std::size_t(place)] = sum, sizes[std::size_t(place)] = size;
          }
  return largest_excess(c, ys, terms, sums, sizes);
}

// Largest relative error of the magnitudes of y as it was computed; 0 where none were asked for.
double worst_magnitude(const Case& c) {
  if (!c.channel_magnitude) return 0;
  const int64_t ys[5] = {c.conv.x_shape[0], c.conv.w_shape[0], c.out[0], c.out[1], c.out[2]}, pixels = ys[3] * ys[4];
  std::vector<double> by_channel(std::size_t(ys[0] * ys[2] * ys[1])), by_pixel(std::size_t(ys[0] * ys[2] * pixels));
  for (int64_t i = 0; i < c.y_count; ++i) {
    const int64_t p = i % pixels, t = i / pixels % ys[2], m = i / pixels / ys[2] % ys[1], n = i / pixels / ys[2] / ys[1];
    const double value = std::fabs(double(c.y[at(c.conv.channels_last, ys, n, m, t, p / ys[4], p % ys[4])]));
    by_channel[std::size_t((n * ys[2] + t) * ys[1] + m)] += value / double(pixels);
    by_pixel[std::size_t((n * ys[2] + t) * pixels + p)] += value / double(ys[1]);
  }
  double result = 0;
  const auto compare = [&](const std::vector<double>& expected, const float* got) {
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const double error = std::fabs(got[i] - expected[i]);
      if (!(error <= 5e-6 * expected[i])) result = std::fmax(result, std::isfinite(error) ? error / expected[i] : 1e30);
    }
  };
  compare(by_channel, c.channel_magnitude.get());
  compare(by_pixel, c.pixel_magnitude.get());
  return result;
}

// Some of the costs, each anywhere between its limits or at one of them.
std::string random_costs(Random& r) {
  std::string text;
  for (int i = 0; i < dance_cost_count(); ++i) {
    DanceCost cost;
    dance_cost(i, &cost);
    const double share = double(r.among({0, 1, 3, 10, 1000})) / 1000;
    if (r.chance(0.5)) text += std::string(cost.name) + "=" + std::to_string(cost.low + share * (cost.high - cost.low)) + " ";
  }
  return text;
}

// A text with an accident: read, or refused in words that fit into the room there is.
bool run_costs(Random& r, uint32_t seed, const char* isa) {
  std::string text = random_costs(r);
  if (!text.empty() && r.chance(0.8)) text[std::size_t(r.range(0, int64_t(text.size()) - 1))] = char(r.range(1, 255));
  const auto given = exact<char>(int64_t(text.size()) + 1);
  std::strcpy(given.get(), text.c_str());
  const int64_t room = r.among({0, 1, 20, 500});
  const auto wrong = exact<char>(room);
  const int status = dance_check_costs(given.get(), wrong.get(), room);
  const bool said = room > 1 && wrong[0] != 0;
  const bool good = (status == DANCE_OK && !said) || (status == DANCE_BAD_COSTS && said == (room > 1));
  if (!good) std::printf("costs: seed %u, %s: status %d for '%s'\n", seed, isa, status, text.c_str());
  return good;
}

bool run_conv(Random& r, uint32_t seed, const char* isa, bool bf16 = false) {
  Case c;
  if (!make_case(r, c)) return true;
  if (bf16) c.conv.bf16 = c.conv.prepack = 1;
  const std::string costs = random_costs(r);
  if (r.chance(0.5)) c.conv.costs = costs.c_str();
  int32_t estimated = 0, used = 0;
  double steps[3];
  if (dance_estimate(&c.conv, c.frame.get(), c.channel.get(), c.feature.get(), &estimated, steps) != DANCE_OK) estimated = -1;
  const bool packs = c.conv.prepack && r.chance(0.5);
  if (packs) c.conv.packed = dance_pack(&c.conv, c.w.get());
  if (packs && !c.conv.packed) estimated = -1;
  c.conv.used = &used;
  for (int64_t i = 0; i < c.y_count; ++i) c.y[i] = std::numeric_limits<float>::quiet_NaN();
  const int status = dance_gated_conv3d(&c.conv, c.x.get(), c.w.get(), c.b.get(), c.frame.get(), c.channel.get(),
                                        c.feature.get(), c.z.get(), c.y.get(), nullptr);
  dance_unpack(const_cast<void*>(c.conv.packed));
  const bool chosen = c.conv.variant == 0 && c.conv.prepack && c.conv.x_shape[0] == 1;  // estimated: with prepack, of n 0
  if (estimated < 0 || (chosen && estimated != used)) {
    std::printf("conv: seed %u, %s: estimated variant %d, used %d\n", seed, isa, estimated, used);
    return false;
  }
  const double error = status == DANCE_OK ? std::fmax(worst(c), worst_magnitude(c)) : 0;
  if (status == DANCE_OK && error == 0) return true;
  std::printf("conv: seed %u, %s: status %d, error over bound %g\n", seed, isa, status, error);
  return false;
}

// Against its two convolutions one after the other.
bool run_expand_depthwise(Random& r, uint32_t seed, const char* isa) {
  DanceConv expand{}, depthwise{};
  int64_t out[3];
  const int64_t channels = r.range(1, 40), wide = r.among({3, 15, 16, 17, 33, 65, 70});
  const int64_t kernel[3] = {r.among({1, 3}), r.among({1, 3, 5}), r.among({1, 2, 3, 5})};
  expand.x_shape[0] = r.range(1, 2), expand.x_shape[1] = expand.w_shape[1] = channels, expand.w_shape[0] = wide;
  for (int i = 0; i < 3; ++i) {
    expand.x_shape[2 + i] = r.range(1, i == 2 ? 40 : 9);
    expand.w_shape[2 + i] = expand.strides[i] = expand.dilations[i] = 1;
    depthwise.w_shape[2 + i] = kernel[i], depthwise.strides[i] = r.range(1, 2), depthwise.dilations[i] = r.among({1, 1, 2, 9});
    const int64_t most = depthwise.dilations[i] * kernel[i] + 1;  // one more than the ring serves
    depthwise.pads[i] = r.range(0, std::min<int64_t>(most, i == 2 ? 50 : 3));
    depthwise.pads[i + 3] = r.range(0, std::min<int64_t>(most, i == 2 ? 50 : 3));
    const int64_t reach = depthwise.dilations[i] * (kernel[i] - 1) + 1;
    const int64_t room = expand.x_shape[2 + i] + depthwise.pads[i] + depthwise.pads[i + 3] - reach;
    if (room < 0) return true;
    out[i] = room / depthwise.strides[i] + 1;
  }
  std::copy(expand.x_shape, expand.x_shape + 5, depthwise.x_shape);
  depthwise.x_shape[1] = depthwise.w_shape[0] = depthwise.group = wide, depthwise.w_shape[1] = expand.group = 1;
  for (DanceConv* conv : {&expand, &depthwise}) {
    conv->channels_last = conv->repeats = 1;
    conv->prepack = r.chance(0.5), conv->threads = int32_t(r.range(1, 8));
    conv->minimum = r.chance(0.5) ? 0.0f : std::numeric_limits<float>::lowest();
  }
  const int64_t *xs = expand.x_shape, pixels = xs[0] * xs[2] * xs[3] * xs[4];
  const int64_t count = xs[0] * wide * out[0] * out[1] * out[2];
  const auto drawn = [&](int64_t floats) {
    auto values = exact<float>(floats);
    for (int64_t i = 0; i < floats; ++i) values[i] = r.value();
    return values;
  };
  const auto mask = [&](int64_t entries, double rate) {
    auto values = exact<uint8_t>(entries);
    for (int64_t i = 0; i < entries; ++i) values[i] = r.chance(rate);
    return values;
  };
  const auto x = drawn(pixels * channels), w = drawn(wide * channels), b = drawn(wide);
  const auto taps = drawn(wide * kernel[0] * kernel[1] * kernel[2]), depthwise_b = drawn(wide);
  const double rates[3] = {double(r.among({0, 6, 10, 10})) / 10, double(r.among({0, 6, 10, 10})) / 10, double(r.among({0, 6, 10, 10})) / 10};
  const auto frame = mask(xs[0] * xs[2], rates[0]), channel = mask(xs[0] * channels, rates[1]);
  const auto feature = mask(xs[0] * xs[3] * xs[4], rates[2]), ones = mask(xs[0] * std::max({xs[2], wide, xs[3] * xs[4]}), 2);
  auto map = exact<float>(pixels * wide), expected = exact<float>(count), y = exact<float>(count);
  for (int64_t i = 0; i < count; ++i) y[i] = std::numeric_limits<float>::quiet_NaN();
  bool good = dance_gated_conv3d(&expand, x.get(), w.get(), b.get(), frame.get(), channel.get(), feature.get(), nullptr,
                                 map.get(), nullptr) == DANCE_OK &&
              dance_gated_conv3d(&depthwise, map.get(), taps.get(), depthwise_b.get(), ones.get(), ones.get(), ones.get(),
                                 nullptr, expected.get(), nullptr) == DANCE_OK;
  const bool swish = r.chance(0.5);
  good = good && dance_expand_depthwise(&expand, &depthwise, swish, x.get(), w.get(), b.get(), frame.get(), channel.get(),
                                        feature.get(), taps.get(), depthwise_b.get(), y.get(), nullptr) == DANCE_OK;
  for (int64_t i = 0; i < count && good; ++i) {
    const double a = expected[i], value = swish ? a / (1 + std::exp(-a)) : a;
    good = std::fabs(y[i] - value) <= 1e-4 * (1 + std::fabs(value));
  }
  if (!good) std::printf("expand depthwise: seed %u, %s: wrong\n", seed, isa);
  return good;
}

// The masks' values are the Python suite's matter; here: all of them written, and at least one of each kind kept.
bool run_gate(Random& r, uint32_t seed, const char* isa) {
  const int64_t s[5] = {r.range(1, 2), r.range(1, 70), r.range(1, 5), r.range(1, 40), r.range(1, 40)};
  const int64_t count = s[0] * s[1] * s[2] * s[3] * s[4], counts[3] = {s[0] * s[2], s[0] * s[1], s[0] * s[3] * s[4]};
  auto x = exact<float>(count), tau = exact<float>(s[0] * 3);
  for (int64_t i = 0; i < count; ++i) x[i] = r.value();
  for (int64_t i = 0; i < s[0] * 3; ++i) tau[i] = float(r.among({0, 1, 2})) * 0.6f;
  std::unique_ptr<uint8_t[]> masks[3];
  for (int i = 0; i < 3; ++i) masks[i] = exact<uint8_t>(counts[i]), std::memset(masks[i].get(), 7, std::size_t(counts[i]));
  auto kept_counts = exact<int64_t>(s[0] * 3);
  const int status = dance_activation_gate(s, r.chance(0.5), 0, x.get(), tau.get(), masks[0].get(), masks[1].get(),
                                           masks[2].get(), nullptr, kept_counts.get(), int32_t(r.range(1, 3)));
  bool good = status == DANCE_OK;
  for (int i = 0; i < 3; ++i) {
    int64_t kept = 0;
    for (int64_t j = 0; j < counts[i]; ++j) good = good && masks[i][j] <= 1, kept += masks[i][j];
    good = good && kept >= s[0];
    for (int64_t n = 0; n < s[0]; ++n) kept -= kept_counts[3 * n + i];
    good = good && kept == 0;
  }
  if (!good) std::printf("gate: seed %u, %s: status %d or wrong masks\n", seed, isa, status);
  return good;
}

// Elements of a type of `Element`, compared bit by bit: nothing is computed with them.
template <class Element>
bool run_to_channels_last(Random& r, uint32_t seed, const char* isa, int type) {
  // exactly what is asked for is written; the values are the Python suite's matter
  const int64_t s[5] = {r.range(1, 2), r.range(1, 70), r.range(1, 3), r.range(1, 13), r.range(1, 13)};
  const int64_t count = s[0] * s[1] * s[2] * s[3] * s[4];
  auto x = exact<Element>(count), y = exact<Element>(count);
  for (int64_t i = 0; i < count; ++i) x[i] = Element(i % 1000 + 1), y[i] = Element(0);
  auto by_channel = exact<float>(s[0] * s[2] * s[1]), by_pixel = exact<float>(s[0] * s[2] * s[3] * s[4]);
  const DanceMagnitudes magnitudes{by_channel.get(), by_pixel.get()};
  bool good = dance_to_channels_last(s, type, x.get(), y.get(), &magnitudes, int32_t(r.range(1, 3))) == DANCE_OK;
  for (int64_t i = 0; i < count && good; ++i) {
    const int64_t w = i % s[4], h = i / s[4] % s[3], t = i / (s[4] * s[3]) % s[2], plane = i / (s[4] * s[3] * s[2]);
    good = y[at(true, s, plane / s[1], plane % s[1], t, h, w)] == x[i];
  }
  if (!good) std::printf("to channels last: seed %u, %s: wrong\n", seed, isa);
  return good;
}

bool run_max_pool(Random& r, uint32_t seed, const char* isa) {
  const int64_t s[5] = {r.range(1, 2), r.range(1, 40), r.range(1, 5), r.range(1, 9), r.range(1, 9)};
  int64_t kernel[3], strides[3], pads[6], out[5] = {s[0], s[1]};
  for (int i = 0; i < 3; ++i) {
    kernel[i] = r.range(1, 3), strides[i] = r.range(1, 2), pads[i] = r.range(0, kernel[i] - 1), pads[i + 3] = r.range(0, kernel[i] - 1);
    const int64_t room = s[2 + i] + pads[i] + pads[i + 3] - kernel[i];
    if (room < 0) return true;
    out[2 + i] = room / strides[i] + 1;
  }
  const int64_t count = out[0] * out[1] * out[2] * out[3] * out[4];
  auto x = exact<float>(s[0] * s[1] * s[2] * s[3] * s[4]), y = exact<float>(count);
  for (int64_t i = 0; i < s[0] * s[1] * s[2] * s[3] * s[4]; ++i) x[i] = r.value();
  auto by_channel = exact<float>(s[0] * out[2] * s[1]), by_pixel = exact<float>(s[0] * out[2] * out[3] * out[4]);
  const DanceMagnitudes magnitudes{by_channel.get(), by_pixel.get()};
  bool good = dance_max_pool3d(s, kernel, strides, pads, 0, x.get(), y.get(), &magnitudes, int32_t(r.range(1, 3))) == DANCE_OK;
  for (int64_t i = 0; i < count && good; ++i) {
    const int64_t w = i % out[4], h = i / out[4] % out[3], t = i / (out[4] * out[3]) % out[2], plane = i / (out[4] * out[3] * out[2]);
    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t k = 0; k < kernel[0] * kernel[1] * kernel[2]; ++k) {
      const int64_t ti = t * strides[0] - pads[0] + k / (kernel[2] * kernel[1]), hi = h * strides[1] - pads[1] + k / kernel[2] % kernel[1];
      const int64_t wi = w * strides[2] - pads[2] + k % kernel[2];
      if (ti < 0 || ti >= s[2] || hi < 0 || hi >= s[3] || wi < 0 || wi >= s[4]) continue;
      largest = std::fmax(largest, x[at(true, s, plane / s[1], plane % s[1], ti, hi, wi)]);
    }
    good = y[at(true, out, plane / s[1], plane % s[1], t, h, w)] == largest;
  }
  if (!good) std::printf("max pool: seed %u, %s: wrong\n", seed, isa);
  return good;
}

bool run_scaled_swish(Random& r, uint32_t seed, const char* isa) {
  const int64_t s[5] = {r.range(1, 2), r.range(1, 70), r.range(1, 3), r.range(1, 20), r.range(1, 13)};
  const int64_t count = s[0] * s[1] * s[2] * s[3] * s[4];
  auto x = exact<float>(count), y = exact<float>(count), scale = exact<float>(s[0] * s[1]);
  for (int64_t i = 0; i < count; ++i) x[i] = 10 * r.value();
  for (int64_t i = 0; i < s[0] * s[1]; ++i) scale[i] = r.value();
  bool good = dance_scaled_swish(s, 0, x.get(), scale.get(), y.get(), int32_t(r.range(1, 3))) == DANCE_OK;
  for (int64_t i = 0; i < count && good; ++i) {
    const float a = x[i] * scale[i / (count / s[0]) * s[1] + i % s[1]];
    good = std::fabs(y[i] - double(a) / (1 + std::exp(-double(a)))) <= 1e-6 * std::fabs(a);
  }
  if (!good) std::printf("scaled swish: seed %u, %s: wrong\n", seed, isa);
  return good;
}

// One gate by hand, in double: a perceptron whose weights are drawn, over statistics that are.
bool run_thresholds(Random& r, uint32_t seed, const char* isa) {
  const int64_t t = r.range(1, 9), c = r.range(1, 40), h = r.range(1, 12), w = r.range(1, 12), bins = 8, rows = 4, columns = 4;
  const int64_t hidden = r.range(1, 20), inputs = bins + c + rows * columns + 2, gates = r.range(1, 5), points = r.range(2, 6);
  auto drawn = [&r](int64_t count) {
    auto values = exact<float>(count);
    for (int64_t i = 0; i < count; ++i) values[i] = std::fabs(r.value());
    return values;
  };
  auto by_channel = drawn(t * c), by_pixel = drawn(t * h * w), frame_bins = drawn(t * bins), grid_rows = drawn(rows * h),
       grid_columns = drawn(w * columns), hidden_w = drawn(hidden * inputs), hidden_b = drawn(hidden),
       output_w = drawn(3 * gates * hidden), output_b = drawn(3 * gates), scale = drawn(3 * gates), asked = drawn(points),
       fed = drawn(points), tau = drawn(3 * gates);
  for (int64_t i = 0; i < points; ++i) asked[i] = fed[i] = float(i) / float(points - 1);  // fed is what is asked for
  for (int64_t i = 0; i < 3 * gates * hidden; ++i) output_w[i] *= 1e-3f;                   // or all sigmoids were 1
  const float budget = 0.05f * float(r.range(1, 18));
  dance::Workspace workspace;
  dance::thresholds({by_channel.get(), by_pixel.get(), t, c, h, w, budget, frame_bins.get(), grid_rows.get(), grid_columns.get(), bins,
              rows, columns, asked.get(), fed.get(), points, hidden_w.get(), hidden_b.get(), output_w.get(), output_b.get(),
              hidden, gates, scale.get(), tau.get()},
             workspace);
  auto mean = [](const std::vector<double>& values) {
    double sum = 0;
    for (double value : values) sum += value;
    return sum / double(values.size());
  };
  std::vector<double> frames(t), channels(c), pixels(h * w), x(inputs);
  for (int64_t i = 0; i < t; ++i) {
    for (int64_t j = 0; j < c; ++j) frames[i] += by_channel[i * c + j], channels[j] += by_channel[i * c + j];
    for (int64_t j = 0; j < h * w; ++j) pixels[j] += by_pixel[i * h * w + j];
  }
  const double frame = mean(frames), channel = mean(channels), pixel = mean(pixels);
  for (int64_t i = 0; i < t; ++i)
    for (int64_t j = 0; j < bins; ++j) x[j] += frames[i] / frame * frame_bins[i * bins + j];
  for (int64_t i = 0; i < c; ++i) x[bins + i] = channels[i] / channel;
  for (int64_t i = 0; i < h; ++i)
    for (int64_t j = 0; j < w; ++j)
      for (int64_t k = 0; k < rows * columns; ++k)
        x[bins + c + k] += pixels[i * w + j] / pixel * grid_rows[k / columns * h + i] * grid_columns[j * columns + k % columns];
  x[inputs - 2] = budget, x[inputs - 1] = std::log(budget);
  bool good = true;
  for (int64_t i = 0; i < 3 * gates; ++i) {
    double output = output_b[i];
    for (int64_t j = 0; j < hidden; ++j) {
      double sum = hidden_b[j];
      for (int64_t k = 0; k < inputs; ++k) sum += hidden_w[j * inputs + k] * x[k];
      output += output_w[i * hidden + j] * std::fmax(sum, 0.0);
    }
    const double expected = scale[i] / (1 + std::exp(-output)) * std::fmin((1 - budget) / 0.1, 1.0);
    good = good && std::fabs(tau[i] - expected) <= 1e-5 * expected;
  }
  if (!good) std::printf("thresholds: seed %u, %s: wrong\n", seed, isa);
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  const uint32_t cases = argc > 1 ? uint32_t(std::atoi(argv[1])) : 100, first = argc > 2 ? uint32_t(std::atoi(argv[2])) : 0;
  int failed = 0;
  for (int isa = 0; isa < dance_isa_count(); ++isa) {
    if (!dance_force_isa(dance_isa_name(isa))) {
      std::printf("%s: not supported by this machine, skipped\n", dance_isa_name(isa));
      continue;
    }
    for (uint32_t seed = first; seed < first + cases; ++seed) {
      Random r{std::mt19937(seed)};
      failed += !run_conv(r, seed, dance_isa_name(isa));
      failed += !run_expand_depthwise(r, seed, dance_isa_name(isa));
      failed += !run_gate(r, seed, dance_isa_name(isa));
      failed += !run_costs(r, seed, dance_isa_name(isa));
      failed += !run_to_channels_last<float>(r, seed, dance_isa_name(isa), 0);
      failed += !run_to_channels_last<uint16_t>(r, seed, dance_isa_name(isa), 1);
      failed += !run_max_pool(r, seed, dance_isa_name(isa));
      failed += !run_scaled_swish(r, seed, dance_isa_name(isa));
      failed += !run_thresholds(r, seed, dance_isa_name(isa));
    }
    std::printf("%s: %u cases\n", dance_isa_name(isa), cases);
  }
  for (int i = 0; i < dance_bf16_count(); ++i) {
    const char* name = dance_bf16_name(i);
    if (!dance_force_isa(name)) {
      std::printf("%s: not supported by this machine, skipped\n", name);
      continue;
    }
    for (uint32_t seed = first; seed < first + cases; ++seed) {
      Random r{std::mt19937(seed)};
      failed += !run_conv(r, seed, name, true);
    }
    std::printf("%s: %u cases\n", name, cases);
  }
  std::printf(failed ? "%d FAILED\n" : "all good\n", failed);
  return failed != 0;
}
