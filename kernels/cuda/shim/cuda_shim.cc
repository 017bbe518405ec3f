#include "cuda_shim.h"

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include <ucontext.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace shim {
namespace {

constexpr std::size_t kStackBytes = 128 << 10;

enum class State { runnable, at_block_barrier, at_warp_barrier, done };

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  State state = State::done;
  int exchanges = 0;  // warp exchanges so far; its parity says which slots are in use
};

struct Warp { uint64_t slots[2][32]; };

struct SharedArray { void* data; std::size_t bytes; };

std::vector<Fiber> fibers;
std::vector<Warp> warps;
std::mt19937 random_engine;
ucontext_t scheduler;
int current = -1;
const std::function<void()>* kernel_now = nullptr;
std::unique_ptr<char[]> dynamic;
long launch_count = 0;
#ifdef __SANITIZE_ADDRESS__
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
std::size_t scheduler_stack_bytes = 0;
#endif

std::vector<SharedArray>& shared_arrays() {
  static std::vector<SharedArray> arrays;
  return arrays;
}

void fail(const char* what) {
  std::fprintf(stderr, "shim: %s (block %u,%u,%u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z);
  std::abort();
}

void to_scheduler(bool last) {
  Fiber& fiber = fibers[std::size_t(current)];
#ifdef __SANITIZE_ADDRESS__
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(last ? nullptr : &fake, scheduler_stack, scheduler_stack_bytes);
#endif
  (void)last;
  swapcontext(&fiber.context, &scheduler);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(fake, &scheduler_stack, &scheduler_stack_bytes);
#endif
}

void fiber_main() {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack, &scheduler_stack_bytes);
#endif
  (*kernel_now)();
  fibers[std::size_t(current)].state = State::done;
  to_scheduler(true);
}

void run(int index) {
  current = index;
  const unsigned thread = unsigned(index);
  threadIdx = dim3(thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y));
  Fiber& fiber = fibers[std::size_t(index)];
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&scheduler_fake_stack, fiber.stack.get(), kStackBytes);
#endif
  swapcontext(&scheduler, &fiber.context);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(scheduler_fake_stack, nullptr, nullptr);
#endif
}

void start_one(Fiber& fiber) {
  if (!fiber.stack) fiber.stack.reset(new char[kStackBytes]);
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  fiber.state = State::runnable;
  fiber.exchanges = 0;
}

void start(int count) {
  for (int i = 0; i < count; ++i) start_one(fibers[std::size_t(i)]);
}

std::vector<int> order(int count) {
  std::vector<int> indices(std::size_t(count), 0);
  const unsigned kind = random_engine() % 3;
  for (int i = 0; i < count; ++i) indices[std::size_t(i)] = kind == 0 ? i : count - 1 - i;
  if (kind == 2)
    for (int i = count - 1; i > 0; --i) std::swap(indices[std::size_t(i)], indices[random_engine() % unsigned(i + 1)]);
  return indices;
}

// Lets those go on whose barrier is complete; returns false where nobody waits any more.
bool release(int count) {
  int done = 0, at_block = 0, released = 0;
  for (int i = 0; i < count; ++i) {
    done += fibers[std::size_t(i)].state == State::done;
    at_block += fibers[std::size_t(i)].state == State::at_block_barrier;
  }
  if (done == count) return false;
  if (at_block == count) {
    for (int i = 0; i < count; ++i) fibers[std::size_t(i)].state = State::runnable;
    return true;
  }
  for (int first = 0; first < count; first += 32) {
    const int end = first + 32 < count ? first + 32 : count;
    int waiting = 0;
    for (int i = first; i < end; ++i)
      waiting += fibers[std::size_t(i)].state == State::at_warp_barrier &&
                 fibers[std::size_t(i)].exchanges == fibers[std::size_t(first)].exchanges;
    if (waiting != end - first) continue;
    for (int i = first; i < end; ++i) fibers[std::size_t(i)].state = State::runnable;
    ++released;
  }
  if (!released) fail("threads wait at different barriers, or some have left");
  return true;
}

void run_block(int count) {
  for (SharedArray& array : shared_arrays()) std::memset(array.data, 0xff, array.bytes);
  start(count);
  do {
    for (int index : order(count))
      if (fibers[std::size_t(index)].state == State::runnable) run(index);
  } while (release(count));
}

}  // namespace

void seed(unsigned value) { random_engine.seed(value); }
long launches() { return launch_count; }
long long fmas = 0;

bool shared_array(void* data, std::size_t bytes) {
  shared_arrays().push_back(SharedArray{data, bytes});
  std::memset(data, 0xff, bytes);  // met for the first time in the middle of a block
  return true;
}

void* dynamic_shared() { return dynamic.get(); }
int lane() { return current % 32; }

uint64_t* warp_slots() {
  return warps[std::size_t(current / 32)].slots[fibers[std::size_t(current)].exchanges & 1];
}

static void wait(State state) {
  fibers[std::size_t(current)].state = state;
  to_scheduler(false);
}

void block_barrier() { wait(State::at_block_barrier); }

void warp_barrier() {
  ++fibers[std::size_t(current)].exchanges;
  wait(State::at_warp_barrier);
}

void launch(dim3 grid, dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  const int count = int(block.x * block.y * block.z);
  if (count < 1 || count > 1024 || grid.x < 1 || grid.y < 1 || grid.z < 1 || grid.y > 65535 || grid.z > 65535 ||
      shared_bytes > (48u << 10))
    fail("a launch that CUDA would refuse");
  ++launch_count;
  if (int(fibers.size()) < count) fibers = std::vector<Fiber>(std::size_t(count));
  if (int(warps.size()) * 32 < count) warps.resize(std::size_t(count + 31) / 32);
  kernel_now = &kernel;
  blockDim = block;
  gridDim = grid;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        dynamic.reset(new char[shared_bytes + 1]);  // of exact size: the address sanitizer sees one byte too many
        std::memset(dynamic.get(), 0xff, shared_bytes);
        run_block(count);
      }
}

}  // namespace shim
