#include "costs.h"

#include <locale>
#include <sstream>

namespace dance {
namespace {

// Far beyond any machine's, so that estimates stay finite whatever is given.
constexpr CostName kNames[] = {
    {"in", &Costs::in, 0, 1e4},           {"out", &Costs::out, 0, 1e4},
    {"run", &Costs::run, 0, 1e4},         {"product", &Costs::product, 0.01, 100},
    {"weight", &Costs::weight, 0, 100},   {"indexed", &Costs::indexed, 0, 100},
    {"few", &Costs::few, 0, 100},         {"call", &Costs::call, 0, 1e9},
    {"holes", &Costs::holes, 0.1, 100},   {"scattered", &Costs::scattered, 0, 1e5},
    {"narrow_holes", &Costs::narrow_holes, 0.1, 100},
};
constexpr int kCount = sizeof(kNames) / sizeof(kNames[0]);

// Like a program's own number, whatever the process's language makes of points and commas.
std::istringstream plain(const std::string& text) {
  std::istringstream stream(text);
  stream.imbue(std::locale::classic());
  return stream;
}

std::string number(double value) {
  std::ostringstream stream;
  stream.imbue(std::locale::classic());
  stream << value;
  return stream.str();
}

std::string all_names() {
  std::string names;
  for (const CostName& entry : kNames) names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}

}  // namespace

const CostName* cost_names(int* count) {
  *count = kCount;
  return kNames;
}

bool operator==(const Costs& a, const Costs& b) {
  for (const CostName& entry : kNames)
    if (a.*entry.value != b.*entry.value) return false;
  return true;
}

std::string read_costs(const char* text, Costs& costs) {
  bool seen[kCount] = {};
  std::istringstream words = plain(text);
  for (std::string word; words >> word;) {
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    int i = 0;
    while (i < kCount && name != kNames[i].name) ++i;
    if (i == kCount || equals == std::string::npos)
      return "'" + word + "' is no cost, expected NAME=NUMBER with a name of " + all_names();
    if (seen[i]) return "'" + name + "' is there twice";
    seen[i] = true;
    const CostName& entry = kNames[i];
    const std::string digits = word.substr(equals + 1);
    std::istringstream stream = plain(digits);
    double value = 0;
    // not the stream's words for infinity or NaN, nor anything behind the number
    const bool good = (stream >> value) && stream.peek() == std::istringstream::traits_type::eof();
    if (!good || !(value >= entry.low && value <= entry.high))
      return "'" + name + "' is '" + digits + "', expected a number from " + number(entry.low) + " to " +
             number(entry.high);
    costs.*entry.value = value;
  }
  return "";
}

}  // namespace dance
