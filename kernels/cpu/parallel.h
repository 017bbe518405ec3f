// Work items over threads that somebody else owns: ONNX Runtime's pool, or the test runner's threads.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace dance {

struct Parallel {
  // Calls fn(arg, i) for every i in [0, total), on any threads, and returns when all are done.
  void (*run)(void* self, void (*fn)(void* arg, std::size_t i), std::size_t total, void* arg);
  void* self;
  int workers;  // how many calls are worth making at once; 1: everything on the calling thread
};

// body(worker, item) for every item in [0, items); worker in [0, parallel.workers) names scratch that no other
// thread uses meanwhile. Which worker takes which item is left to chance: results must not depend on it.
template <class Body>
void for_items(const Parallel& parallel, int64_t items, const Body& body) {
  const int64_t workers = std::min<int64_t>(parallel.workers, items);
  if (workers <= 1) {
    for (int64_t item = 0; item < items; ++item) body(0, item);
    return;
  }
  struct Shared {
    const Body* body;
    int64_t items;
    std::atomic<int64_t> next;
  } shared{&body, items, {0}};
  parallel.run(
      parallel.self,
      [](void* arg, std::size_t worker) {
        Shared& s = *static_cast<Shared*>(arg);
        for (int64_t item; (item = s.next.fetch_add(1, std::memory_order_relaxed)) < s.items;)
          (*s.body)(int(worker), item);
      },
      std::size_t(workers), &shared);
}

}  // namespace dance
