#pragma once

#include <span>
#include <string_view>

namespace crosvm {

/// What a benchmark was started with, without its name. `--load TEXT` at the front is taken off.
struct BenchArguments {
  BenchArguments(int count, char** arguments)
      : rest(arguments + 1, static_cast<size_t>(count - 1)) {
    if (rest.size() < 2 || std::string_view(rest[0]) != "--load") return;
    load_ = rest[1];
    rest = rest.subspan(2);
  }
  /// Only loads with TEXT in their names are.
  bool wants(std::string_view load) const { return load.find(load_) != load.npos; }

  std::span<char*> rest;

 private:
  std::string_view load_;
};

}  // namespace crosvm
