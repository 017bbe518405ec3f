// Memory as a device gives it: aligned, of the exact size, with room around it that nobody may write.
#pragma once
#include <cstdlib>
#include <cstring>

#include "node.h"

namespace checks {

class Memory {
 public:
  explicit Memory(std::size_t bytes) : bytes_(bytes), whole_(2 * kRoom + (bytes + 255) / 256 * 256, kFill) {
    const std::size_t past = reinterpret_cast<std::size_t>(whole_.data()) % 16;
    begin_ = kRoom + (past ? 16 - past : 0);
  }
  void* data() { return whole_.data() + begin_; }
  const unsigned char* data() const { return whole_.data() + begin_; }
  std::size_t bytes() const { return bytes_; }
  bool intact() const {
    for (std::size_t i = 0; i < whole_.size(); ++i)
      if ((i < begin_ || i >= begin_ + bytes_) && whole_[i] != kFill) return false;
    return true;
  }
  bool operator==(const Memory& other) const {
    return bytes_ == other.bytes_ && !std::memcmp(data(), other.data(), bytes_);
  }

 private:
  static constexpr std::size_t kRoom = 256;
  static constexpr unsigned char kFill = 0xa5;
  std::size_t bytes_, begin_;
  std::vector<unsigned char> whole_;
};

inline std::size_t bytes_of(const Tensor& tensor) {
  std::size_t bytes = size_of(tensor.type);
  for (int64_t extent : tensor.dims) bytes *= std::size_t(extent);
  return bytes;
}

// One call with memory of its own; false where the plugin refuses. Ends the program where it wrote what is not its own.
struct Call {
  Tensors in, out;
  std::vector<Memory> inputs, outputs;
  Call(const Tensors& in_tensors, const Tensors& out_tensors) : in(in_tensors), out(out_tensors) {
    for (const Tensor& tensor : in) inputs.emplace_back(bytes_of(tensor));
    for (const Tensor& tensor : out) outputs.emplace_back(bytes_of(tensor));
  }
  bool run(Node& node, std::size_t workspace_bytes) {
    Memory workspace(workspace_bytes);
    const std::vector<Memory> before = inputs;
    std::vector<const void*> from;
    std::vector<void*> to;
    for (Memory& memory : inputs) from.push_back(memory.data());
    for (Memory& memory : outputs) to.push_back(memory.data());
    const bool done = node.enqueue(in, out, from, to, workspace.data());
    bool clean = workspace.intact();
    for (std::size_t i = 0; i < inputs.size(); ++i) clean = clean && inputs[i] == before[i] && inputs[i].intact();
    for (const Memory& memory : outputs) clean = clean && memory.intact();
    if (!clean) {
      std::fprintf(stderr, "a call wrote outside of its outputs and workspace\n");
      std::exit(1);
    }
    return done;
  }
};

}  // namespace checks
