// The six ops as TensorRT sees them, and tensors described without a word of TensorRT: what both API generations share.
#pragma once
#include <cstdint>
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

namespace dance {
namespace trt {

struct OpKind {
  const char* name;
  bool gate;           // else a convolution
  bool adds;           // has the input Z
  bool channels_last;  // layout of X, Y and Z
  int inputs() const { return gate ? 2 : adds ? 7 : 6; }
  int outputs() const { return gate ? 3 : 1; }
};
constexpr int kOpCount = 6;
extern const OpKind kOps[kOpCount];
// "1", the attribute plugin_version of every node; raised when attributes change their meaning.
extern const char* const kPluginVersion;

// Inputs of a convolution. A gate has X and Tau.
enum Input { X = 0, Tau = 1, W = 1, B = 2, FrameKeep = 3, ChannelKeep = 4, FeatureKeep = 5, Z = 6 };
constexpr int kMaxInputs = 7;
constexpr int kMaxOutputs = 3;
const char* input_name(const OpKind& kind, int index);
const char* output_name(const OpKind& kind, int index);
inline bool is_mask(const OpKind& kind, int input) { return !kind.gate && input >= FrameKeep && input <= FeatureKeep; }

enum class Element : int { f32, f16, boolean, other };
const char* element_name(Element element);

constexpr int kMaxRank = 8;
// A tensor's type and extents; an extent that is not known yet is -1.
struct Desc {
  Element type;
  int rank;
  int64_t dims[kMaxRank];
};
bool operator==(const Desc& a, const Desc& b);
// [1,64,?,56,56]
std::string text(const Desc& desc);
std::string text(const std::vector<int64_t>& extents);
// [1,-1,1]
std::string numbers(const int64_t* values, int count);

// What is wrong with a node, an engine or a call, in one line. Thrown inside, logged at TensorRT's border.
struct Refusal {
  std::string text;
};
// Throws: `where`: `tensor` is `came`, expected `expected`.
[[noreturn]] void refuse(const std::string& where, const std::string& tensor, const std::string& came,
                         const std::string& expected);

// How lines begin: GatedConv3d 'layer1.0.conv1'
std::string place(const OpKind& kind, const std::string& node);

// Hands one line to TensorRT's logger, or to stderr where there is none. Each API generation defines it.
void log_error(const char* line) noexcept;

// body() at a noexcept edge: what it throws becomes a line and `failure`.
template <class Result, class Body>
Result guarded(const char* where, Result failure, const Body& body) noexcept {
  try {
    return body();
  } catch (const Refusal& refusal) {
    log_error(refusal.text.c_str());
  } catch (const std::bad_alloc&) {
    log_error("dance plugins: out of host memory");
  } catch (const std::exception& error) {
    char line[512];
    std::snprintf(line, sizeof line, "%s: %s", where, error.what());
    log_error(line);
  } catch (...) {
    log_error(where);
  }
  return failure;
}

}  // namespace trt
}  // namespace dance
