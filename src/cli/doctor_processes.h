#pragma once

#include <cstdio>
#include <string>
#include <vector>

#include "cli/descriptor_purpose.h"

namespace crosvm {

/// `crosvm doctor --processes`: what the processes of the VM behind the control socket at `path`
/// are confined to, for people or, with `json`, for programs. Returns the exit status: 0, or 1 when
/// there is no such VM.
int run_doctor_processes(const std::string& path, bool json, std::FILE* out);

namespace doctor {

/// {"version":1,"processes":[{"pid","parent","role","name","user","namespaces","capabilities",
/// "no_new_privs","threads":[{"tid","name","filters"}…],"limits":[{"name","soft","hard"}…],
/// "descriptors":[{"number","object","purpose"}…]}…]}: of namespaces and limits those that are not
/// the VMM's; "namespaces" and "descriptors" are null where this user may not see them.
std::string processes_json(const std::vector<ProcessFacts>& tree,
                           const DescriptorPurposes& purposes);
std::string processes_text(const std::vector<ProcessFacts>& tree,
                           const DescriptorPurposes& purposes);

}  // namespace doctor
}  // namespace crosvm
