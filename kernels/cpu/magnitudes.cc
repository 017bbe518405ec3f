#include "magnitudes.h"

#include <algorithm>

namespace dance {

Magnitudes::Magnitudes(const MagnitudeOutputs& out, const void* y, Type type, bool channels_last, int64_t n,
                       int64_t frames, int64_t channels, int64_t pixels)
    : isa_(isa_current()), y_(static_cast<const char*>(y) + n * frames * channels * pixels * (type == Type::f32 ? 4 : 2)),
      type_(type), channels_last_(channels_last), frames_(frames), channels_(channels), pixels_(pixels) {
  if (!out.channel) return;
  channel_ = out.channel + n * frames * channels;
  pixel_ = out.pixel + n * frames * pixels;
}

void Magnitudes::begin(int64_t parts, int64_t blocks, Workspace& workspace) {
  if (!wanted()) return;
  parts_ = parts, blocks_ = blocks;
  const std::size_t doubles = std::size_t(parts * frames_ * channels_);
  const std::size_t floats = blocks > 1 ? std::size_t(blocks * frames_ * pixels_) : 0;
  channel_parts_ = workspace.magnitudes.of<double>(doubles + (floats + 1) / 2);
  std::fill(channel_parts_, channel_parts_ + doubles, 0.0);
  pixel_blocks_ = blocks > 1 ? reinterpret_cast<float*>(channel_parts_ + doubles) : pixel_;
}

void Magnitudes::add(int64_t part, int64_t block, int64_t frame, int64_t channel, int64_t channels, int64_t pixel,
                     int64_t pixels) const {
  if (!wanted()) return;
  const int64_t at = channels_last_ ? (frame * pixels_ + pixel) * channels_ + channel
                                    : (channel * frames_ + frame) * pixels_ + pixel;
  MagnitudesArgs a{};
  a.x = y_ + at * (type_ == Type::f32 ? 4 : 2);
  a.type = type_;
  a.channels = channels, a.pixels = pixels;
  a.channel_stride = channels_last_ ? 1 : frames_ * pixels_;
  a.pixel_stride = channels_last_ ? channels_ : 1;
  a.channel_sums = channel_parts_ + (part * frames_ + frame) * channels_ + channel;
  a.pixel_sums = pixel_blocks_ + (block * frames_ + frame) * pixels_ + pixel;
  a.pixel_scale = blocks_ == 1 ? 1.0 / double(channels_) : 1.0;
  isa_.magnitudes(a);
}

void Magnitudes::end() const {
  if (!wanted()) return;
  const int64_t slabs = frames_ * channels_, all_pixels = frames_ * pixels_;
  for (int64_t i = 0; i < slabs; ++i) {
    double sum = 0.0;
    for (int64_t part = 0; part < parts_; ++part) sum += channel_parts_[part * slabs + i];
    channel_[i] = float(sum / double(pixels_));
  }
  if (blocks_ == 1) return;
  for (int64_t i = 0; i < all_pixels; ++i) {
    double sum = 0.0;
    for (int64_t block = 0; block < blocks_; ++block) sum += double(pixel_blocks_[block * all_pixels + i]);
    pixel_[i] = float(sum / double(channels_));
  }
}

}  // namespace dance
