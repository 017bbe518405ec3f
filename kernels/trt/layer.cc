#include "layer.h"

#include <algorithm>

namespace dance {
namespace trt {
namespace {

// Of the batch sizes of a profile so many are tried: how sums are split depends on the shape.
constexpr int64_t kBatchesTried = 64;

int type_index(Element type) { return type == Element::f16 ? 1 : 0; }
bool is_float(Element type) { return type == Element::f32 || type == Element::f16; }

cuda::MaskType mask_type(Element mask) {
  return mask == Element::boolean ? cuda::MaskType::byte : cuda::MaskType::f32;
}

bool known(const Desc* inputs, int count) {
  for (int i = 0; i < count; ++i)
    for (int axis = 0; axis < inputs[i].rank; ++axis)
      if (inputs[i].dims[axis] < 1) return false;
  return true;
}

std::string megabytes(uint64_t bytes) { return std::to_string((bytes + (1 << 20) - 1) >> 20) + " MB"; }

}  // namespace

Layer::Layer(const State& state)
    : state_(state), built_(state.configured), where_(place(*state.kind, state.node)), pool_(std::make_shared<Pool>()) {}

Layer::Layer(const Layer& other)
    : state_(other.state_), built_(other.built_), where_(other.where_), pool_(other.pool_) {}

Layer::~Layer() { detach(); }

void Layer::must(cuda::Status status) const {
  if (status == cuda::Status::ok) return;
  std::string line = where_ + ": " + cuda::status_text(status);
  if (status == cuda::Status::launch_failed) line += " (CUDA error " + std::to_string(cuda::last_cuda_error()) + ")";
  throw Refusal{line};
}

void Layer::check(const Desc* inputs, int count) const {
  if (count != kind().inputs())
    throw Refusal{where_ + ": " + std::to_string(count) + " inputs, expected " + std::to_string(kind().inputs())};
  check_inputs(kind(), where_, state_.attributes, inputs);
}

OutputShape Layer::shape(const Desc* inputs, int count, int output) const {
  check(inputs, count);
  return output_shape(kind(), state_.attributes, inputs, output);
}

bool Layer::supports(int position, const Desc* tensors, bool linear, Element mask) const {
  const Element type = tensors[position].type;
  if (!linear) return false;
  if (position == X) return is_float(type);
  if (position >= kind().inputs()) return type == (kind().gate ? mask : tensors[X].type);
  if (kind().gate) return type == Element::f32;  // tau
  if (is_mask(kind(), position))
    return type == tensors[FrameKeep].type && (type == Element::f32 || (type == Element::boolean && mask == type));
  return type == tensors[X].type;
}

void Layer::check_types(const Desc* inputs, const Desc* outputs) const {
  std::vector<Desc> tensors(inputs, inputs + kind().inputs());
  tensors.insert(tensors.end(), outputs, outputs + kind().outputs());
  const Element mask = kind().gate && outputs[0].type == Element::f32 ? Element::f32 : Element::boolean;
  for (int i = 0; i < int(tensors.size()); ++i) {
    const bool output = i >= kind().inputs();
    if (!supports(i, tensors.data(), true, mask))
      throw Refusal{where_ + ": " + (output ? output_name(kind(), i - kind().inputs()) : input_name(kind(), i)) +
                    " of type " + element_name(tensors[i].type) + " beside X of type " + element_name(tensors[X].type)};
  }
}

cuda::ConvSetup Layer::conv_setup(const Desc* inputs) const {
  cuda::ConvSetup setup;
  setup.geometry = conv_geometry(kind(), where_, state_.attributes, inputs);
  setup.mask_type = mask_type(inputs[FrameKeep].type);
  setup.minimum = state_.attributes.minimum;
  setup.multiprocessors = int(state_.multiprocessors > 0 ? state_.multiprocessors : cuda::multiprocessor_count());
  must(cuda::conv_init(&setup));
  return setup;
}

cuda::GateSetup Layer::gate_setup(const Desc* inputs, Element mask) const {
  const Layout at = layout_of(kind());
  const int64_t* x = inputs[X].dims;
  cuda::GateSetup setup{};
  setup.n = x[0], setup.c = x[at.c], setup.t = x[at.t], setup.h = x[at.t + 1], setup.w = x[at.t + 2];
  setup.channels_last = kind().channels_last;
  setup.type = inputs[X].type == Element::f16 ? Type::f16 : Type::f32;
  setup.mask_type = mask_type(mask);
  return setup;
}

std::size_t Layer::workspace(const Desc* inputs, int count) const {
  check(inputs, count);
  std::size_t bytes = 0;
  if (kind().gate)
    must(cuda::gate_workspace_bytes(gate_setup(inputs, Element::f32), &bytes));
  else
    must(cuda::workspace_bytes(conv_setup(inputs), &bytes));
  return std::max<std::size_t>(bytes, state_.workspace[type_index(inputs[X].type)]);
}

// Raises what the state keeps to what a call with these inputs takes.
void Layer::note(const Desc* inputs) {
  const int type = type_index(inputs[X].type);
  const std::size_t workspace_bytes = workspace(inputs, kind().inputs());
  std::size_t packed_bytes = 0;
  if (!kind().gate) must(cuda::packed_weights_bytes(conv_setup(inputs), &packed_bytes));
  state_.workspace[type] = std::max<uint64_t>(state_.workspace[type], workspace_bytes);
  state_.packed[type] = std::max<uint64_t>(state_.packed[type], packed_bytes);
}

void Layer::configure(const Desc* least, const Desc* most, int count) {
  check(least, count);
  check(most, count);
  if (!known(least, count) || !known(most, count))
    throw Refusal{where_ + ": configured for shapes that are not known: X is " + text(most[X])};
  if (built_) return;
  if (state_.multiprocessors < 1) state_.multiprocessors = cuda::multiprocessor_count();
  state_.type = most[X].type;
  note(least);
  note(most);
  const int64_t first = least[X].dims[0], last = most[X].dims[0];
  std::vector<Desc> batch(most, most + count);
  for (int64_t n = std::max(first, last - kBatchesTried); n < last; ++n) {
    for (int i = 0; i < count; ++i)
      if (kind().gate || (i != W && i != B)) batch[i].dims[0] = n;
    note(batch.data());
  }
  state_.configured = true;
}

void Layer::own_packed(std::size_t bytes) {
  if (packed_.memory && packed_.bytes >= bytes) return;
  detach();
  packed_ = pool_->take_spare(bytes);
  if (!packed_.memory && pool_->add_spare(bytes)) packed_ = pool_->take_spare(bytes);
  if (!packed_.memory)
    throw Refusal{where_ + ": no " + megabytes(bytes) + " of device memory left for its packed weights"};
}

void Layer::reserve() {
  const uint64_t bytes = state_.packed[type_index(state_.type)];
  if (bytes && !pool_->add_spare(bytes))
    throw Refusal{where_ + ": no " + megabytes(bytes) + " of device memory left for its packed weights"};
}

void Layer::release_reserve() { pool_->drop_spare(); }

void Layer::attach() {
  packed_from_ = nullptr;
  const uint64_t bytes = state_.packed[type_index(state_.type)];
  if (bytes) own_packed(bytes);
}

void Layer::detach() {
  pool_->give_back(packed_);
  packed_ = Buffer();
  packed_from_ = nullptr;
}

void Layer::prepare(const Desc* inputs, const Desc* outputs) {
  renew(inputs, outputs);
  if (!kind().gate) own_packed(packed_bytes_);
}

// Everything that follows from the shapes; costs nothing where they are those of the last call.
void Layer::renew(const Desc* inputs, const Desc* outputs) {
  const int in = kind().inputs(), out = kind().outputs();
  if (prepared_ && std::equal(inputs, inputs + in, inputs_) && std::equal(outputs, outputs + out, outputs_)) return;
  prepared_ = false;
  check(inputs, in);
  check_types(inputs, outputs);
  if (!known(inputs, in)) throw Refusal{where_ + ": X is " + text(inputs[X]) + ", whose extents are not all known"};
  for (int i = 0; i < out; ++i) {
    const Desc expected = output_desc(output_shape(kind(), state_.attributes, inputs, i), outputs[i].type, inputs);
    if (!(outputs[i] == expected)) refuse(where_, output_name(kind(), i), text(outputs[i]), text(expected));
  }
  if (kind().gate) {
    gate_ = gate_setup(inputs, outputs[0].type);
    must(cuda::gate_workspace_bytes(gate_, &workspace_bytes_));
  } else {
    conv_ = conv_setup(inputs);
    must(cuda::workspace_bytes(conv_, &workspace_bytes_));
    must(cuda::packed_weights_bytes(conv_, &packed_bytes_));
  }
  const uint64_t promised = state_.workspace[type_index(inputs[X].type)];
  if (promised && workspace_bytes_ > promised)
    throw Refusal{where_ + ": X of " + text(inputs[X]) + " takes " + std::to_string(workspace_bytes_) +
                  " bytes of workspace, the engine was built with " + std::to_string(promised) +
                  "; rebuild it with a profile that holds this shape as its least, optimal or largest"};
  std::copy(inputs, inputs + in, inputs_);
  std::copy(outputs, outputs + out, outputs_);
  prepared_ = true;
}

void Layer::pack(const void* weights, cuda::Stream stream) {
  if (packed_.bytes < packed_bytes_) {  // never attached, as when a builder times it: initialize has left a spare
    detach();
    packed_ = pool_->take_spare(packed_bytes_);
    if (!packed_.memory) throw Refusal{where_ + ": called before it was initialized or attached to a context"};
  }
  const Type type = conv_.geometry.type;
  if (packed_from_ == weights && packed_for_ == conv_.algorithm && packed_type_ == type) return;
  packed_from_ = nullptr;
  must(cuda::pack_weights(conv_, weights, packed_.memory, stream));
  packed_for_ = conv_.algorithm, packed_type_ = type;
  // While a graph is captured nothing runs: its replays pack for themselves, and a call outside of it packs again.
  if (!is_capturing(stream)) packed_from_ = weights;
}

void Layer::enqueue(const Desc* inputs, const Desc* outputs, const void* const* in, void* const* out, void* workspace,
                    cuda::Stream stream) {
  renew(inputs, outputs);
  if (kind().gate) {
    const float* tau = static_cast<const float*>(in[Tau]);
    must(cuda::gate(gate_, {in[X], tau, out[0], out[1], out[2], workspace, workspace_bytes_}, stream));
    return;
  }
  pack(in[W], stream);
  cuda::ConvTensors tensors{};
  tensors.x = in[X], tensors.packed = packed_.memory, tensors.b = in[B];
  tensors.frame_keep = in[FrameKeep], tensors.channel_keep = in[ChannelKeep], tensors.feature_keep = in[FeatureKeep];
  tensors.z = kind().adds ? in[Z] : nullptr;
  tensors.y = out[0], tensors.workspace = workspace, tensors.workspace_bytes = workspace_bytes_;
  must(cuda::gated_conv3d(conv_, tensors, stream));
}

}  // namespace trt
}  // namespace dance
