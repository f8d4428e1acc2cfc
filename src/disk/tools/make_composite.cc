#include "disk/tools/make_composite.h"

#include <utility>

#include "base/format.h"
#include "disk/tools/held_signals.h"
#include "disk/tools/target_file.h"
#include "disk/tools/tool_image.h"

namespace crosvm {
namespace {

std::string_view take_field(std::string_view& text) {
  const size_t colon = text.find(':');
  const std::string_view field = text.substr(0, colon);
  text = colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
  return field;
}

std::unexpected<Error> refuse(std::string_view text, std::string_view why) {
  return fail(Error::invalid(
      format_text("partition {}: {}; it is LABEL:FILE[:writable[:GUID]]", text, why)));
}

/// The size of the disk in the image, which the composite disk must leave alone.
Result<uint64_t> size_beside(const std::string& composite, const CompositePartition& partition) {
  ToolImage image = TRY(ToolImage::open(partition.path, {.read_only = !partition.writable}));
  for (const std::string& name : composite_names(composite)) {
    if (!image.consists_of(name)) continue;
    return fail(Error::invalid(
        format_text("{}: would be written over, but partition {} consists of it; give the "
                    "composite disk another name",
                    name, partition.label)));
  }
  return image.disk().size();
}

/// No VM could have it open for both.
Result<void> check_only_once(const CompositePartition& partition,
                             std::span<const CompositePartition> others) {
  for (const CompositePartition& other : others) {
    if (!partition.writable && !other.writable) continue;
    if (!is_same_file(partition.path, other.path)) continue;
    return fail(Error::invalid(
        format_text("{}: is partition {} and partition {}, and written to; give each a file of its "
                    "own, or leave out writable at both",
                    partition.path, other.label, partition.label)));
  }
  return {};
}

}  // namespace

Result<CompositePartition> parse_partition(std::string_view text) {
  if (text.find(':') == std::string_view::npos) return refuse(text, "it names no file");
  std::string_view rest = text;
  CompositePartition partition;
  partition.label = take_field(rest);
  partition.path = take_field(rest);
  if (partition.path.empty()) return refuse(text, "it names no file");
  const std::string_view access = take_field(rest);
  if (!access.empty() && access != "writable") {
    return refuse(text, format_text("its third field is '{}'", access));
  }
  partition.writable = !access.empty();
  const std::string_view guid = take_field(rest);
  if (!guid.empty()) {
    partition.guid = TRY(with_context(gpt::parse_guid(guid), format_text("partition {}", text)));
  }
  return partition;
}

Result<void> make_composite(const std::string& path, std::span<const std::string_view> partitions) {
  const HeldSignals signals;  // so that all files get their names, or none
  CompositePlan plan{.path = path, .partitions = {}};
  for (const std::string_view text : partitions) {
    CompositePartition partition = TRY(parse_partition(text));
    TRY(check_only_once(partition, plan.partitions));
    partition.size = TRY(size_beside(path, partition));
    plan.partitions.push_back(std::move(partition));
  }
  TRY(signals.check());
  return create_composite(plan);
}

}  // namespace crosvm
