// Whether AMX tiles may be used here; plain code, which runs on every machine.
#pragma once
#include "isa.h"

namespace dance {

typedef void (*RowsFunction)(const RowsArgs&);

// Processor and system have AMX for bfloat16, the system lets this process use it (asked for once, by the first call, for
// all threads) and `rows`, an implementation by tiles for vectors of 16, computes small products right.
bool amx_usable(RowsFunction rows);

// Whether the rows of a bfloat16 variant compute products of small whole numbers as plain loops do. vector: of its weights.
bool rows_agree(RowsFunction rows, int vector);

}  // namespace dance
