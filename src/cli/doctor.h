#pragma once

#include <cstdio>
#include <string>
#include <vector>

/// `crosvm doctor`: whether this host runs stock guests, what limits them, and what to change.
namespace crosvm {

struct DoctorOptions {
  bool json = false;  ///< write the versioned report for programs instead of the one for people
};

/// Looks at this host and writes the report to `out`. Returns the exit status: 0 this host runs
/// stock guests, 1 it cannot, 2 it can, with named limits.
int run_doctor(const DoctorOptions& options, std::FILE* out);

namespace doctor {

enum class Status {
  kOk,
  kNote,   ///< costs speed, or matters for few guests; does not change the verdict
  kLimit,  ///< guests run, but a feature is missing
  kFail,   ///< stock guests do not run
};

/// What was found about one thing a VM needs.
struct Check {
  std::string id;  ///< stable name, like "kvm-device"
  Status status = Status::kOk;
  std::string object;   ///< the file, setting or facility
  std::string cause{};  ///< what is wrong with it, or what was seen; never empty
  std::string fix{};    ///< what to run or do; empty when nothing is wrong
};

/// The exit status that the checks amount to.
int verdict(const std::vector<Check>& checks);
/// {"version":1,"verdict":"ok"|"no"|"limited","checks":[{"id","status","object","cause","fix"}…]}
/// with status "ok", "note", "limit" or "fail".
std::string report_json(const std::vector<Check>& checks);
std::string report_text(const std::vector<Check>& checks);

}  // namespace doctor
}  // namespace crosvm
