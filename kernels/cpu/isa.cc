#include "isa.h"

#include <atomic>
#include <cstdlib>
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

namespace {

struct Choice {
  const IsaKernels* isa = nullptr;
  const PairKernels* pairs = nullptr;  // null: the best that the machine has
};

// Empty where this machine has none of that name.
Choice named(const char* name) {
  for (const IsaKernels* isa : kVariants) {
    if (std::strcmp(isa->name, name) == 0 && isa->supported()) return {isa, nullptr};
    for (const PairKernels* const* pairs = isa->pairs; *pairs; ++pairs)
      if (std::strcmp((*pairs)->name, name) == 0 && isa->supported() && (*pairs)->supported()) return {isa, *pairs};
  }
  return {};
}

const char* wanted() {
  const char* name = std::getenv("DANCE_ISA");
  return name && *name ? name : nullptr;
}

const Choice& by_environment() {
  static const Choice choice = wanted() ? named(wanted()) : Choice{};
  return choice;
}

const IsaKernels& best() {
  static const IsaKernels* const isa = [] {
    for (const IsaKernels* entry : kVariants)
      if (entry->supported()) return entry;
    return kVariants[kCount - 1];
  }();
  return *isa;
}

std::atomic<const IsaKernels*> forced{nullptr};
std::atomic<const PairKernels*> forced_pairs{nullptr};

Choice current() {
  const IsaKernels* isa = forced.load();
  if (isa) return {isa, forced_pairs.load()};
  return by_environment().isa ? by_environment() : Choice{&best(), nullptr};
}

}  // namespace

const IsaKernels* const* isa_list(int* count) {
  *count = kCount;
  return kVariants;
}

const PairKernels* IsaKernels::bf16() const {
  const PairKernels* const chosen = current().pairs;
  for (const PairKernels* const* entry = pairs; *entry; ++entry)
    if (*entry == chosen) return chosen;  // supported, or it had not been chosen
  for (const PairKernels* const* entry = pairs; *entry; ++entry)
    if ((*entry)->supported()) return *entry;
  return nullptr;
}

const IsaKernels& isa_current() { return *current().isa; }

bool bf16_offered() {
  const PairKernels* pairs = isa_current().bf16();
  return pairs && (pairs->native || forced.load() || by_environment().isa);
}

bool force_isa(const char* name) {
  const Choice choice = name ? named(name) : Choice{};
  if (name && !choice.isa) return false;
  forced_pairs = choice.pairs;
  forced = choice.isa;
  return true;
}

const char* isa_refused() { return wanted() && !by_environment().isa ? wanted() : nullptr; }

}  // namespace dance
