#include "refused_isa.h"

#include "isa.h"

namespace dance {

std::string isa_refusal() {
  const char* const asked = isa_refused();
  if (!asked) return "";
  std::string names;
  int count;
  const IsaKernels* const* const list = isa_list(&count);
  for (int i = 0; i < count; ++i) {
    if (!list[i]->supported()) continue;
    names += (names.empty() ? "" : ", ") + std::string(list[i]->name);
    for (const PairKernels* const* pairs = list[i]->pairs; *pairs; ++pairs)
      if ((*pairs)->supported()) names += std::string(", ") + (*pairs)->name;
  }
  return std::string("environment variable DANCE_ISA is '") + asked + "', which this processor, or this build of the " +
         "library, has not; unset it, or name one of " + names;
}

}  // namespace dance
