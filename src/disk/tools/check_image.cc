#include "disk/tools/check_image.h"

#include <algorithm>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/fd.h"
#include "disk/android_sparse/sparse_map.h"
#include "disk/image_file.h"
#include "disk/image_reader.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_header.h"
#include "disk/qcow2/sync_file.h"
#include "disk/tools/copy_image.h"
#include "disk/tools/qcow2_facts.h"
#include "disk/tools/stoppable_file.h"
#include "disk/tools/tool_image.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {
namespace {

constexpr size_t kReadBytes = 1 << 20;

/// Takes back that the image is marked as corrupt.
Result<void> clear_corrupt(SyncFile& file, Qcow2Header header) {
  header.incompatible &= ~kQcow2IncompatibleCorrupt;
  std::vector<std::byte> start(kQcow2HeaderSector);
  TRY(file.read_at(0, start));
  patch_qcow2_header(header, start);
  TRY(file.write_at(0, start));
  return file.flush();
}

/// Why no VM can use the image with the files that it names; empty when one can. Without locks: a
/// chain that comes back to the image would wait for itself.
std::string problem_of_chain(std::shared_ptr<const Fd> image, const CheckPlan& plan) {
  const auto opened = ToolImage::open(plan.path, {.format = ImageFormat::kQcow2,
                                                  .allowed = plan.allowed,
                                                  .file = std::move(image),
                                                  .lock_named = false});
  return opened ? "" : opened.error().what();
}

Result<CheckOutcome> check_tables(std::shared_ptr<const Fd> image, const CheckPlan& plan,
                                  ToolProgress& progress) {
  auto file =
      std::make_unique<StoppableFile>(TRY(make_sync_file(std::move(image), plan.path)), progress);
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

Result<CheckOutcome> check_qcow2_image(const std::shared_ptr<const Fd>& image,
                                       const CheckPlan& plan, ToolProgress& progress) {
  CheckOutcome outcome = TRY(check_tables(image, plan, progress));
  auto file = TRY(make_sync_file(image, plan.path));
  const Qcow2Header header = TRY(read_qcow2_header(*file, plan.path));
  if (header.backing_name || header.has_data_file()) {
    outcome.chain_problem = problem_of_chain(image, plan);
  }
  return outcome;
}

/// What is stored is read; a pattern is as good as its chunk, however often it is repeated.
Result<CheckOutcome> check_sparse_image(const Fd& file, const CheckPlan& plan,
                                        ToolProgress& progress) {
  ImageReader reader = TRY(ImageReader::create(file, plan.path));
  const SparseMap map = TRY(SparseMap::read(reader));
  std::vector<std::byte> bytes(kReadBytes);
  for (uint64_t at = 0; at < map.size();) {
    const SparseMap::Run run = map.at(at);
    for (uint64_t done = 0; run.is_stored && done < run.length; done += bytes.size()) {
      const auto piece = std::min<uint64_t>(bytes.size(), run.length - done);
      TRY(reader.read(run.file_offset + done, std::span(bytes).first(piece)));
      TRY(progress.tell(at + done, map.size()));
    }
    at += run.length;
    TRY(progress.tell(at, map.size()));
  }
  CheckOutcome outcome;
  outcome.format = ImageFormat::kAndroidSparse;
  return outcome;
}

}  // namespace

Result<CheckOutcome> check_image(const CheckPlan& plan) {
  ToolProgress progress(plan.path, plan.show_progress);
  {
    auto image = std::make_shared<const Fd>(
        TRY(open_image_file(plan.path, {.read_only = !plan.repair, .for_tool = true})));
    const ImageFormat format = TRY(detect_image_format(*image, plan.path));
    if (format == ImageFormat::kQcow2) return check_qcow2_image(image, plan, progress);
    if (format == ImageFormat::kAndroidSparse) return check_sparse_image(*image, plan, progress);
  }
  ToolImage image = TRY(ToolImage::open(plan.path, {.allowed = plan.allowed}));
  TRY(read_through(image, plan.path, progress));
  CheckOutcome outcome;
  outcome.format = image.format();
  return outcome;
}

}  // namespace crosvm
