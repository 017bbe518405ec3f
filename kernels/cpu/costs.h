// What the estimate in choose.cc takes its parts to cost. The built-in values were measured on one machine with AVX-512;
// `dance-bench tune` finds those of another, and a session is given them as text.
#pragma once
#include <string>

namespace dance {

// In steps: one multiplies one input channel of one row with one block of output channels, directly. To be counted up with
// any change to the kernels or to the estimate that makes costs found before it wrong.
constexpr int kCostModel = 3;

struct Costs {
  double in = 14;            // Winograd: transforming one input value of one component: this over a block's columns
  double out = 18;           // back, with the store, of one component of one block
  double run = 2;            // beginning and ending a run of the reduction of a row
  double product = 1;        // one step of the products of components: these read other memory than the direct kernel's
  double weight = 0.15;      // reading a row of weights from outside the L2 cache: this times its columns ...
  double indexed = 0.4;      // ... and where rows are picked by an index
  double few = 1;            // both times this where all weights of the layer take little memory (choose.cc)
  double call = 8000;        // tiles and parts to find, threads to wait for once more
  double holes = 1.03;       // direct: what dropped pixels cost in full tiles, a factor, and ...
  double scattered = 34;     // ... this over the channels a position reads, where no two neighbours are kept
  double narrow_holes = 1.2; // and this factor besides where tiles are one or two vectors wide
};

bool operator==(const Costs& a, const Costs& b);

struct CostName {
  const char* name;
  double Costs::*value;
  double low, high;          // accepted
};

// All of them; `count` entries.
const CostName* cost_names(int* count);

// "in=12.5 out=20": numbers by name, in any order, each at most once; those not named stay as they are in `costs`. Where
// that cannot be, returns what is wrong ("'in' is 'abc', expected ..."), and costs are undefined; else an empty string.
std::string read_costs(const char* text, Costs& costs);

}  // namespace dance
