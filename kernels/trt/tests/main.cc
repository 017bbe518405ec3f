// Drives the plugin library without TensorRT.
//   check_plugins LIBRARY              all checks; ROUNDS in the environment: of the fuzzing
//   check_plugins LIBRARY --creators   what the library registers, a line each
//   check_plugins LIBRARY --run        one call from stdin to stdout, see run_case.cc
#include "checks.h"

namespace checks {

Api* api = nullptr;
int failures = 0;

void failed(const char* file, int line, const char* condition, const char* about) {
  std::fprintf(stderr, "%s:%d: %s: %s\n", file, line, condition, about);
  ++failures;
}

void run_case();

}  // namespace checks

int main(int argc, char** argv) {
  using namespace checks;
  if (argc < 2) return std::fprintf(stderr, "which library?\n"), 2;
  const std::unique_ptr<Api> loaded = load(argv[1]);
  api = loaded.get();
  const std::string what = argc > 2 ? argv[2] : "";
  if (what == "--run") return run_case(), 0;
  if (what == "--creators") {
    for (const std::string& creator : api->creators()) std::printf("%s\n", creator.c_str());
    return 0;
  }
  const char* rounds = std::getenv("ROUNDS");
  for (const Op& op : kOps) {
    check_creation(op);
    check_shapes(op);
    check_formats(op);
    check_life(op);
    check_saved(op, rounds ? std::atoi(rounds) : 2000);
  }
  std::printf("%s: %d failure(s)\n", api->name(), failures);
  return failures != 0;
}
