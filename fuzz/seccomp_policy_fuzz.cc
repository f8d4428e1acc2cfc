#include <cstdint>
#include <string>

#include "base/result.h"
#include "jail/seccomp_compile.h"
#include "jail/seccomp_policy.h"

// The input is a policy and what it includes; each architecture compiles it.
namespace crosvm {
namespace {

void parse_and_compile(const std::string& text, PolicyArch arch) {
  const PolicyReader read = [&](const std::string& path) -> Result<std::string> {
    if (path == "/p/a.policy") return text;
    if (path == "/p/b") return text.substr(text.size() / 2);
    return fail(Error(std::errc::no_such_file_or_directory, path));
  };
  auto policy = parse_seccomp_policy("/p/a.policy", arch, read);
  if (!policy) {
    CHECK(policy.error().what().starts_with("/p/a.policy:"));
    return;
  }
  auto code = compile_seccomp_policy(*policy, arch);
  if (code) {
    CHECK(!code->empty() && code->size() <= BPF_MAXINSNS);
  } else {
    CHECK(code.error().code() == std::errc::invalid_argument);
  }
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  for (auto arch :
       {crosvm::PolicyArch::kX86_64, crosvm::PolicyArch::kAarch64, crosvm::PolicyArch::kRiscv64}) {
    crosvm::parse_and_compile(text, arch);
  }
  return 0;
}
