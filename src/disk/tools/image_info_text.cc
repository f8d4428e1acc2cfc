#include <algorithm>
#include <string_view>

#include "base/format.h"
#include "disk/tools/image_info.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {
namespace {

/// What an image says may hold anything; a terminal is not to obey it.
std::string shown(std::string_view text) {
  std::string safe(text);
  std::ranges::replace_if(
      safe, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
  return safe;
}

void add_line(std::string& text, std::string_view name, std::string_view value) {
  text += format_text("{:<16}{}\n", format_text("{}:", name), value);
}

std::string size_text(uint64_t bytes) {
  return format_text("{} ({} bytes)", readable_bytes(bytes), bytes);
}

std::string_view name_of(Qcow2Compression compression) {
  return compression == Qcow2Compression::kZlib ? "zlib" : "zstd";
}

std::string_view yes_no(bool yes) { return yes ? "yes" : "no"; }

void add_qcow2(std::string& text, const ImageInfo& info) {
  const Qcow2Header& header = *info.qcow2;
  add_line(text, "version", format_text("{}", header.version));
  add_line(text, "cluster size", format_text("{}", uint64_t{1} << header.cluster_bits));
  add_line(text, "refcount bits", format_text("{}", 1U << header.refcount_order));
  add_line(text, "compression", name_of(header.compression));
  add_line(text, "extended L2", yes_no(header.has_extended_l2()));
  if (header.is_dirty()) add_line(text, "state", "dirty: refcounts are counted anew when opened");
  if (header.is_corrupt()) add_line(text, "state", "corrupt: may only be read");
  if (header.has_data_file()) {
    add_line(text, "data file", shown(header.data_file_name.value_or("(not named)")));
  }
  if (header.backing_name) {
    add_line(text, "backing file",
             format_text("{} ({})", shown(*header.backing_name),
                         shown(header.backing_format.value_or("format not said"))));
  }
  for (const Qcow2SnapshotName& snapshot : info.snapshots) {
    add_line(text, "snapshot", format_text("{} {}", shown(snapshot.id), shown(snapshot.name)));
  }
}

Json json_of_qcow2(const ImageInfo& info) {
  const Qcow2Header& header = *info.qcow2;
  Json json = Json::object();
  json.set("version", header.version);
  json.set("cluster_size", uint64_t{1} << header.cluster_bits);
  json.set("refcount_bits", 1U << header.refcount_order);
  json.set("compression", name_of(header.compression));
  json.set("extended_l2", header.has_extended_l2());
  json.set("lazy_refcounts", (header.compatible & kQcow2CompatibleLazyRefcounts) != 0);
  json.set("dirty", header.is_dirty());
  json.set("corrupt", header.is_corrupt());
  if (header.has_data_file()) json.set("data_file", header.data_file_name.value_or(""));
  if (header.backing_name) {
    json.set("backing_file", *header.backing_name);
    if (header.backing_format) json.set("backing_format", *header.backing_format);
  }
  Json snapshots = Json::array();
  for (const Qcow2SnapshotName& snapshot : info.snapshots) {
    Json one = Json::object();
    one.set("id", snapshot.id);
    one.set("name", snapshot.name);
    snapshots.push_back(std::move(one));
  }
  json.set("snapshots", std::move(snapshots));
  return json;
}

Json json_of(const ImageInfo& info) {
  Json json = Json::object();
  json.set("path", info.path);
  json.set("format", name_of(info.format));
  json.set("virtual_size", info.virtual_size ? Json(*info.virtual_size) : Json());
  json.set("file_size", info.file_size);
  json.set("host_size", info.host_size);
  json.set("being_written", info.is_written);
  if (!info.parts.empty()) {
    Json parts = Json::array();
    for (const std::string& part : info.parts) parts.push_back(part);
    json.set("parts", std::move(parts));
  }
  if (info.qcow2) json.set("qcow2", json_of_qcow2(info));
  if (!info.problem.empty()) json.set("problem", info.problem);
  return json;
}

std::string text_of(const ImageInfo& info) {
  std::string text;
  add_line(text, "image", shown(info.path));
  add_line(text, "format", name_of(info.format));
  add_line(text, "virtual size", info.virtual_size ? size_text(*info.virtual_size) : "not known");
  add_line(text, "file size", size_text(info.file_size));
  add_line(text, "host size", size_text(info.host_size));
  if (info.is_written) add_line(text, "in use", "another process writes to it");
  if (info.qcow2) add_qcow2(text, info);
  for (const std::string& part : info.parts) add_line(text, "part", shown(part));
  if (!info.problem.empty()) add_line(text, "problem", shown(info.problem));
  return text;
}

}  // namespace

std::string text_of(const std::vector<ImageInfo>& chain) {
  std::string text;
  for (const ImageInfo& info : chain) {
    if (!text.empty()) text += '\n';
    text += text_of(info);
  }
  return text;
}

Json json_of(const std::vector<ImageInfo>& chain) {
  Json json;
  for (size_t i = chain.size(); i-- > 0;) {
    Json next = json_of(chain[i]);
    if (!json.is_null()) next.set("backing", std::move(json));
    json = std::move(next);
  }
  return json;
}

}  // namespace crosvm
