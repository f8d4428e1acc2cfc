#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace crosvm {

inline uint64_t hostile_messages = 0;

/// Counts a message that a hostile peer sends; their number is said on standard error at the end of
/// the process.
inline void count_message() {
  if (hostile_messages++ == 0) {
    std::atexit([] {
      std::fprintf(stderr, "hostile messages: %llu\n",
                   static_cast<unsigned long long>(hostile_messages));
    });
  }
}

}  // namespace crosvm
