#include "disk/tools/check_image.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "base/fd.h"
#include "disk/image_file.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/sync_file.h"
#include "disk/tools/copy_image.h"
#include "disk/tools/qcow2_facts.h"
#include "disk/tools/tool_image.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {
namespace {

/// Takes back that the image is marked as corrupt.
Result<void> clear_corrupt(SyncFile& file, Qcow2Header header) {
  header.incompatible &= ~kQcow2IncompatibleCorrupt;
  std::vector<std::byte> start(kQcow2HeaderSector);
  TRY(file.read_at(0, start));
  patch_qcow2_header(header, start);
  TRY(file.write_at(0, start));
  return file.flush();
}

Result<CheckOutcome> check_qcow2_image(std::shared_ptr<const Fd> image, const CheckPlan& plan) {
  auto file = TRY(make_sync_file(std::move(image), plan.path));
  Qcow2Header header = TRY(read_qcow2_header(*file, plan.path));
  if (plan.repair && header.is_dirty()) {
    TRY(rebuild_qcow2_refcounts(*file, plan.path));
    header = TRY(read_qcow2_header(*file, plan.path));
  }
  Qcow2Report report = TRY(check_qcow2(*file, plan.path, Qcow2Repair::kNothing));
  CheckOutcome outcome;
  outcome.format = ImageFormat::kQcow2;
  if (plan.repair && report.errors == 0 && report.leaks > 0) {
    outcome.repaired_leaks = report.leaks;
    (void)TRY(check_qcow2(*file, plan.path, Qcow2Repair::kLeaks));
    report = TRY(check_qcow2(*file, plan.path, Qcow2Repair::kNothing));
    outcome.repaired_leaks -= std::min(outcome.repaired_leaks, report.leaks);
  }
  outcome.errors = report.errors;
  outcome.leaks = report.leaks;
  outcome.messages = std::move(report.messages);
  if (header.is_dirty()) {
    outcome.messages.emplace_back(
        "it was not closed, and its refcounts wait to be counted anew: --repair does so, and a VM "
        "that opens it for writing");
  }
  if (!header.is_corrupt()) return outcome;
  if (plan.repair && outcome.errors == 0) {
    TRY(clear_corrupt(*file, header));
  } else {
    ++outcome.errors;
    outcome.messages.emplace_back("it is marked as corrupt");
  }
  return outcome;
}

}  // namespace

Result<CheckOutcome> check_image(const CheckPlan& plan) {
  ToolProgress progress(plan.path, plan.show_progress);
  {
    auto image =
        std::make_shared<const Fd>(TRY(open_image_file(plan.path, {.read_only = !plan.repair})));
    if (TRY(detect_image_format(*image, plan.path)) == ImageFormat::kQcow2) {
      return check_qcow2_image(std::move(image), plan);
    }
  }
  ToolImage image = TRY(ToolImage::open(plan.path, {.allowed = plan.allowed}));
  TRY(read_through(image, plan.path, progress));
  CheckOutcome outcome;
  outcome.format = image.format();
  return outcome;
}

}  // namespace crosvm
