#include "isa.h"

#include <atomic>
#include <cstring>

namespace dance {

#if defined(__x86_64__)
extern const IsaKernels isa_avx512, isa_avx2, isa_portable;
static const IsaKernels* const kVariants[] = {&isa_avx512, &isa_avx2, &isa_portable};
#elif defined(__aarch64__)
extern const IsaKernels isa_neon, isa_portable;
static const IsaKernels* const kVariants[] = {&isa_neon, &isa_portable};
#else
extern const IsaKernels isa_portable;
static const IsaKernels* const kVariants[] = {&isa_portable};
#endif
static constexpr int kCount = sizeof(kVariants) / sizeof(kVariants[0]);

static std::atomic<const IsaKernels*> forced{nullptr};

const IsaKernels* const* isa_list(int* count) {
  *count = kCount;
  return kVariants;
}

const IsaKernels& isa_current() {
  static const IsaKernels* const best = [] {
    for (const IsaKernels* isa : kVariants)
      if (isa->supported()) return isa;
    return kVariants[kCount - 1];
  }();
  const IsaKernels* chosen = forced.load();
  return chosen ? *chosen : *best;
}

bool bf16_offered() {
  const PairKernels* pairs = isa_current().bf16();
  return pairs && (pairs->native || forced.load());
}

bool force_isa(const char* name) {
  if (!name) {
    forced = nullptr;
    return true;
  }
  for (const IsaKernels* isa : kVariants)
    if (std::strcmp(isa->name, name) == 0 && isa->supported()) {
      forced = isa;
      return true;
    }
  return false;
}

}  // namespace dance
