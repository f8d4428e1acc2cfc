#include "cli/doctor.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/format.h"
#include "base/json.h"
#include "cli/doctor_checks.h"
#include "cli/doctor_host.h"

namespace crosvm {
namespace doctor {
namespace {

constexpr int kReportVersion = 1;
constexpr std::array<std::string_view, 3> kVerdicts = {"ok", "no", "limited"};  // by exit status

std::string_view name_of(Status status) {
  constexpr std::array<std::string_view, 4> kNames = {"ok", "note", "limit", "fail"};
  return kNames[static_cast<size_t>(status)];
}

bool has(const std::vector<Check>& checks, Status status) {
  return std::ranges::find(checks, status, &Check::status) != checks.end();
}

std::string names_of(const std::vector<Check>& checks, Status status) {
  std::string names;
  for (const Check& check : checks) {
    if (check.status == status) names += (names.empty() ? "" : ", ") + check.id;
  }
  return names;
}

}  // namespace

int verdict(const std::vector<Check>& checks) {
  if (has(checks, Status::kFail)) return 1;
  return has(checks, Status::kLimit) ? 2 : 0;
}

std::string report_json(const std::vector<Check>& checks) {
  Json list = Json::array();
  for (const Check& check : checks) {
    Json one;
    one.set("id", check.id);
    one.set("status", name_of(check.status));
    one.set("object", check.object);
    one.set("cause", check.cause);
    one.set("fix", check.fix);
    list.push_back(std::move(one));
  }
  Json report;
  report.set("version", kReportVersion);
  report.set("verdict", kVerdicts[static_cast<size_t>(verdict(checks))]);
  report.set("checks", std::move(list));
  return report.dump_pretty() + "\n";
}

std::string report_text(const std::vector<Check>& checks) {
  std::string text;
  size_t column = 0;  // of what is examined
  for (const Check& check : checks) column = std::max(column, check.id.size() + 2);
  for (const Check& check : checks) {
    text += format_text("{:<5}  {:<{}}{}: {}\n", name_of(check.status), check.id, column,
                        check.object, check.cause);
    if (!check.fix.empty()) text += format_text("{:<{}}fix: {}\n", "", column + 7, check.fix);
  }
  switch (verdict(checks)) {
    case 0:
      return text + "This host runs stock guests.\n";
    case 1:
      return text + format_text("This host cannot run stock guests: see {}.\n",
                                names_of(checks, Status::kFail));
    default:
      return text + format_text("This host runs stock guests, with limits: {}.\n",
                                names_of(checks, Status::kLimit));
  }
}

}  // namespace doctor

int run_doctor(const DoctorOptions& options, std::FILE* out) {
  std::vector<doctor::Check> checks = doctor::run_checks(doctor::this_host());
  std::string report = options.json ? doctor::report_json(checks) : doctor::report_text(checks);
  std::fputs(report.c_str(), out);
  std::fflush(out);
  return doctor::verdict(checks);
}

}  // namespace crosvm
