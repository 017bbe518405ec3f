// Apart from isa.h: that is read by sources compiled per instruction set, which must not see the C++ library.
#pragma once
#include <string>

namespace dance {

// What to say where the environment variable DANCE_ISA names what cannot be had here, with what can; else empty.
std::string isa_refusal();

}  // namespace dance
