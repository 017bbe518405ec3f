// One layer of a network: checks a call, knows the memory it takes, and runs it. All that a plugin does besides
// speaking one of TensorRT's APIs.
#pragma once
#include <memory>

#include "packed_weights.h"
#include "shapes.h"
#include "state.h"

namespace dance {
namespace trt {

class Layer {
 public:
  // state.kind is set.
  explicit Layer(const State& state);
  // Shares the pool of packed weights, has none itself.
  Layer(const Layer& other);
  Layer& operator=(const Layer&) = delete;
  ~Layer();

  const OpKind& kind() const { return *state_.kind; }
  const State& state() const { return state_; }
  const char* where() const { return where_.c_str(); }

  // Throws Refusal where shapes do not fit together; extents may be unknown.
  OutputShape shape(const Desc* inputs, int count, int output) const;
  // Whether tensor `position` (inputs, then outputs) may be of that type, after those before it.
  bool supports(int position, const Desc* tensors, bool linear, Element mask) const;

  // Build: remembers what the engine will need at run time, for shapes from `least` to `most`. Does nothing for a layer
  // of an engine: that memory is given out.
  void configure(const Desc* least, const Desc* most, int count);
  // Bytes for a call with inputs up to these, at least what `configure` found.
  std::size_t workspace(const Desc* inputs, int count) const;

  // See to it that packed weights have a place before `enqueue`, which allocates nothing. `reserve`: for whichever
  // clone is attached or runs first; `attach`: for this one, which then packs anew. Throw Refusal where memory is
  // short; do nothing for gates and before `configure`.
  void reserve();
  void release_reserve();
  void attach();
  void detach();
  // Announces the inputs and outputs of the next calls. Throws Refusal for what does not fit and where memory is short.
  void prepare(const Desc* inputs, const Desc* outputs);

  void enqueue(const Desc* inputs, const Desc* outputs, const void* const* in, void* const* out, void* workspace,
               cuda::Stream stream);

 private:
  void check(const Desc* inputs, int count) const;
  void check_types(const Desc* inputs, const Desc* outputs) const;
  cuda::ConvSetup conv_setup(const Desc* inputs) const;
  cuda::GateSetup gate_setup(const Desc* inputs, Element mask) const;
  void note(const Desc* inputs);
  void renew(const Desc* inputs, const Desc* outputs);
  void own_packed(std::size_t bytes);
  void pack(const void* weights, cuda::Stream stream);
  void must(cuda::Status status) const;

  State state_;
  const bool built_;  // restored from an engine
  std::string where_;
  std::shared_ptr<Pool> pool_;

  // The shapes of the last call and what follows from them.
  bool prepared_ = false;
  Desc inputs_[kMaxInputs];
  Desc outputs_[kMaxOutputs];
  cuda::ConvSetup conv_;
  cuda::GateSetup gate_;
  std::size_t workspace_bytes_ = 0, packed_bytes_ = 0;

  Buffer packed_;
  const void* packed_from_ = nullptr;  // the W that packed_ holds
  cuda::Algorithm packed_for_ = cuda::Algorithm::automatic;
  Type packed_type_ = Type::f32;
};

}  // namespace trt
}  // namespace dance
