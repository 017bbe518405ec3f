// Reading ONNX Runtime's values and attributes; every failure is an Error, turned into a status at the border.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "ort_abi.h"

namespace dance_ort {

struct Error {
  OrtErrorCode code;
  std::string text;
};

// ONNX Runtime's functions, and whether it is new enough for the newest one that is used.
struct Api {
  const OrtApi* functions;
  bool shape_reference;
  operator const OrtApi*() const { return functions; }
};

// Throws Error with the status' text, and releases it.
void check(const OrtApi* api, OrtStatus* status);

// Extents of a tensor. Every op looks at a dozen shapes in every call, so that none of them takes memory.
class Shape {
 public:
  static constexpr std::size_t kMaxRank = 8;  // of the tensors that ops take: 5

  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) : Shape(extents.begin(), extents.end()) {}
  Shape(const int64_t* first, const int64_t* last);  // at most kMaxRank

  std::size_t size() const { return rank_; }
  int64_t operator[](std::size_t i) const { return extents_[i]; }
  const int64_t* data() const { return extents_; }
  const int64_t* begin() const { return extents_; }
  const int64_t* end() const { return extents_ + rank_; }

 private:
  int64_t extents_[kMaxRank] = {};
  std::size_t rank_ = 0;
};

bool operator==(const Shape& a, const Shape& b);
inline bool operator!=(const Shape& a, const Shape& b) { return !(a == b); }

struct Tensor {
  void* data = nullptr;
  Shape shape;
};

std::string text(const Shape& shape);  // [1,48,16,56,56]
std::string text(const std::vector<int64_t>& integers);

Tensor tensor_of(const Api& api, const OrtValue* value);
Tensor input(const Api& api, const OrtKernelContext* context, std::size_t index);
void* output(const OrtApi* api, OrtKernelContext* context, std::size_t index, const Shape& shape);

// The node's name, "" where it has none.
std::string node_name(const OrtApi* api, const OrtKernelInfo* info);
// False where the node lacks the attribute; throws where it is there and of another type.
bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, std::vector<int64_t>& values);
bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, int64_t& value);
bool attribute(const OrtApi* api, const OrtKernelInfo* info, const char* name, float& value);

}  // namespace dance_ort
