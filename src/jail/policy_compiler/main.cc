// Runs when crosvm is built: compiles the policies of one architecture to C++ arrays.
//   policy_compiler ARCH SANITIZER_POLICY|- OUTPUT.cc POLICY...

#include <fcntl.h>

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.h"
#include "base/format.h"
#include "jail/seccomp_compile.h"
#include "jail/seccomp_policy.h"

namespace crosvm {
namespace {

std::string name_in(const std::string& path) {
  std::string name = path.substr(path.rfind('/') + 1);
  return name.substr(0, name.rfind('.'));
}

Result<std::string> array_of(const std::string& path, const std::string& sanitizer,
                             PolicyArch arch) {
  SeccompPolicy policy = TRY(parse_seccomp_policy(path, arch));
  if (sanitizer != "-") add_to_policy(policy, TRY(parse_seccomp_policy(sanitizer, arch)));
  std::string text = format_text("constexpr sock_filter k_{}[] = {{\n", name_in(path));
  for (const sock_filter& each : TRY(compile_seccomp_policy(policy, arch))) {
    text += format_text("    {{{:#x}, {}, {}, {:#x}}},\n", each.code, each.jt, each.jf, each.k);
  }
  return text + "};\n";
}

Result<std::string> source_of(PolicyArch arch, const std::string& sanitizer,
                              std::vector<std::string> paths) {
  std::ranges::sort(paths, {}, name_in);
  std::string text = "#include \"jail/seccomp_embedded.h\"\n\nnamespace crosvm {\nnamespace {\n\n";
  std::string table = "constexpr EmbeddedPolicy kTable[] = {\n";
  for (const std::string& path : paths) {
    text += TRY(array_of(path, sanitizer, arch));
    table += format_text("    {{\"{}\", k_{}}},\n", name_in(path), name_in(path));
  }
  return text + table +
         "};\n\n}  // namespace\n\nconst std::span<const EmbeddedPolicy> kEmbeddedPolicies = "
         "kTable;\n\n}  // namespace crosvm\n";
}

Result<void> run(std::span<const std::string> arguments) {
  if (arguments.size() < 4) {
    return fail(Error::invalid("usage: policy_compiler ARCH SANITIZER_POLICY|- OUTPUT POLICY..."));
  }
  auto arch = policy_arch_of(arguments[0]);
  if (!arch) return fail(Error::invalid(arguments[0] + " is no architecture with policies"));
  const std::string text =
      TRY(source_of(*arch, arguments[1], {arguments.begin() + 3, arguments.end()}));
  Fd output = TRY(open_path(arguments[2], O_WRONLY | O_CREAT | O_TRUNC));
  return write_full(output, std::as_bytes(std::span(text)), arguments[2]);
}

}  // namespace
}  // namespace crosvm

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  if (auto ran = crosvm::run(arguments); !ran) {
    std::fprintf(stderr, "policy_compiler: %s\n", ran.error().what().c_str());
    return 1;
  }
  return 0;
}
