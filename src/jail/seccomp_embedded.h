#pragma once

#include <linux/filter.h>

#include <span>
#include <string_view>

namespace crosvm {

/// One of the project's own policies, compiled when this program was built.
struct EmbeddedPolicy {
  std::string_view name;
  std::span<const sock_filter> code;
};

/// Sorted by name. Written by policy_compiler.
extern const std::span<const EmbeddedPolicy> kEmbeddedPolicies;

}  // namespace crosvm
