#include "disk/composite/create_composite.h"

#include <unistd.h>

#include <filesystem>
#include <set>
#include <span>

#include "base/format.h"
#include "disk/composite/composite_descriptor.h"
#include "disk/stored_name.h"
#include "disk/tools/target_file.h"

namespace crosvm {
namespace {

constexpr uint64_t kUnit = 4096;
constexpr std::string_view kHeaderName = ".header";
constexpr std::string_view kFooterName = ".footer";
constexpr std::string_view kFillerName = ".filler";

uint64_t round_up(uint64_t value) { return (value + kUnit - 1) / kUnit * kUnit; }

Result<void> check(const CompositePlan& plan) {
  if (plan.partitions.empty() || plan.partitions.size() > gpt::kMostPartitions) {
    return fail(
        Error::invalid(format_text("{}: a composite disk has 1 to {} partitions, not {}", plan.path,
                                   gpt::kMostPartitions, plan.partitions.size())));
  }
  std::set<std::string_view> labels;
  uint64_t total = 0;
  for (const CompositePartition& partition : plan.partitions) {
    if (!labels.insert(partition.label).second) {
      return fail(Error::invalid(format_text(
          "{}: two partitions have the label {}; give one another", plan.path, partition.label)));
    }
    if (partition.size == 0) {
      return fail(
          Error::invalid(format_text("{}: is empty; a partition needs bytes", partition.path)));
    }
    if (partition.writable && partition.size % kUnit != 0) {
      return fail(Error::invalid(format_text(
          "{}: its size of {} bytes is not a multiple of {}, which a writable partition needs; "
          "grow it with truncate, or leave out writable",
          partition.path, partition.size, kUnit)));
    }
    if (partition.size > INT64_MAX / 2 - total) {
      return fail(
          Error::invalid(format_text("{}: is too large with {}", plan.path, partition.path)));
    }
    total += partition.size;
  }
  return {};
}

/// The files of the tables are found wherever the folder goes.
std::string own_name(const CompositePlan& plan, std::string_view suffix) {
  return as_file_name(std::filesystem::path(plan.path).filename().string() + std::string(suffix));
}

Result<gpt::Guid> or_random(const std::optional<gpt::Guid>& guid) {
  if (guid) return *guid;
  return gpt::random_guid();
}

/// A full file system is to be noticed here, not when some of the files have their names.
Result<void> write_durably(const Fd& file, std::string_view bytes, const std::string& name) {
  TRY(write_full(file, std::as_bytes(std::span(bytes)), name));
  if (::fsync(file.get()) != 0) return fail(Error::from_errno("writing", name));
  return {};
}

/// All of them, or as if none had been.
Result<void> commit_all(std::span<TargetFile> files) {
  for (size_t i = 0; i < files.size(); ++i) {
    Result<void> done = files[i].place();
    if (done) continue;
    for (TargetFile& earlier : files.first(i)) earlier.withdraw();
    return done;
  }
  for (TargetFile& file : files) file.settle();
  return {};
}

}  // namespace

Result<CompositeFiles> plan_composite(const CompositePlan& plan) {
  TRY(check(plan));
  CompositeDescriptor made;
  std::vector<gpt::Partition> partitions;
  made.components.push_back({.path = own_name(plan, kHeaderName)});
  uint64_t offset = gpt::kFirstSector * gpt::kSector;
  for (const CompositePartition& partition : plan.partitions) {
    const uint64_t aligned = round_up(partition.size);
    made.components.push_back({.path = TRY(stored_name(plan.path, partition.path)),
                               .offset = offset,
                               .writable = partition.writable});
    if (partition.size < aligned) {
      made.components.push_back(
          {.path = own_name(plan, kFillerName), .offset = offset + partition.size});
    }
    partitions.push_back({.label = partition.label,
                          .guid = TRY(or_random(partition.guid)),
                          .first_sector = offset / gpt::kSector,
                          .sectors = aligned / gpt::kSector});
    offset += aligned;
  }
  made.components.push_back({.path = own_name(plan, kFooterName), .offset = offset});
  made.length = round_up(offset + gpt::kBackupSectors * gpt::kSector);
  gpt::Tables tables = TRY(with_context(
      gpt::make_tables(TRY(or_random(plan.disk_guid)), made.length / gpt::kSector, partitions),
      plan.path));
  const size_t padding = made.length - offset - tables.end.size();
  return CompositeFiles{.descriptor = composite_bytes(made),
                        .header = std::move(tables.start),
                        .footer = std::string(padding, '\0') + tables.end,
                        .filler = std::string(kUnit, '\0')};
}

std::array<std::string, 4> composite_names(const std::string& path) {
  return {path + std::string(kFillerName), path + std::string(kHeaderName),
          path + std::string(kFooterName), path};
}

Result<void> create_composite(const CompositePlan& plan) {
  const CompositeFiles files = TRY(plan_composite(plan));
  const std::array<std::string, 4> names = composite_names(plan.path);
  const std::array<std::string_view, 4> contents = {files.filler, files.header, files.footer,
                                                    files.descriptor};
  std::vector<TargetFile> made;
  for (size_t i = 0; i < names.size(); ++i) {
    made.push_back(TRY(TargetFile::create(names[i])));
    TRY(write_durably(made.back().fd(), contents[i], names[i]));
  }
  return commit_all(made);
}

}  // namespace crosvm
