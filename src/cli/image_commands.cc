#include "cli/image_commands.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/format.h"
#include "base/log.h"
#include "cli/globals.h"
#include "cli/help.h"
#include "disk/tools/check_image.h"
#include "disk/tools/compact_image.h"
#include "disk/tools/convert_image.h"
#include "disk/tools/image_info.h"
#include "disk/tools/make_composite.h"
#include "disk/tools/make_qcow2.h"
#include "disk/tools/tool_progress.h"

namespace crosvm {
namespace {

constexpr int kLeaks = 2;  // of `disk check`: nothing is damaged

template <class T>
using Names = std::span<const std::pair<std::string_view, T>>;

constexpr std::array<std::pair<std::string_view, ImageFormat>, 4> kFormats = {{
    {"raw", ImageFormat::kRaw},
    {"qcow2", ImageFormat::kQcow2},
    {"zstd", ImageFormat::kZstd},
    {"android-sparse", ImageFormat::kAndroidSparse},
}};
constexpr std::array<std::pair<std::string_view, Qcow2Compression>, 2> kCompressions = {{
    {"zlib", Qcow2Compression::kZlib},
    {"zstd", Qcow2Compression::kZstd},
}};

template <class T>
Result<T> one_of(const GivenOption& given, Names<T> names) {
  std::string known;
  for (const auto& [name, value] : names) {
    if (name == given.value) return value;
    known += format_text("{}{}", known.empty() ? "" : ", ", name);
  }
  return fail(given.error(format_text("expected one of {}", known)));
}

/// Digits alone: `+512` is meant as "so much more" by those who write it.
std::optional<uint64_t> number_of(std::string_view text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [stopped, code] = std::from_chars(text.data(), end, number);
  if (code != std::errc() || stopped != end) return std::nullopt;
  return number;
}

bool has_switch(const CommandLine& line, std::string_view name) {
  return std::ranges::any_of(line.options(),
                             [&](const GivenOption& given) { return given.option->name == name; });
}

std::vector<std::string> allowed_backing(const CommandLine& line) {
  std::vector<std::string> allowed;
  for (const GivenOption& given : line.options()) {
    if (given.option->name == "allow-backing") allowed.emplace_back(given.value);
  }
  return allowed;
}

ImageCommand create_composite_command(const CommandLine& line) {
  return [&line]() -> Result<int> {
    TRY(make_composite(std::string(line.positionals[0]), std::span(line.positionals).subspan(1)));
    return kSuccess;
  };
}

Result<ImageCommand> create_qcow2_command(const CommandLine& line) {
  Qcow2Plan plan{.path = std::string(line.positionals[0])};
  if (line.positionals.size() > 1) {
    plan.size = number_of(line.positionals[1]);
    if (!plan.size) {
      return fail(Error::invalid(
          format_text("Error parsing positional argument 'SIZE' with value '{}': not a decimal "
                      "number of bytes",
                      line.positionals[1])));
    }
  }
  for (const GivenOption& given : line.options()) {
    if (given.option->name == "backing-format") {
      plan.backing_format = TRY(one_of<ImageFormat>(given, kFormats));
    } else {
      plan.backing_file = given.value;
    }
  }
  if (plan.backing_format && !plan.backing_file) {
    return fail(Error::invalid("--backing-format is that of a backing file; give --backing-file"));
  }
  return [&line, plan]() -> Result<int> {
    if (plan.size.has_value() == plan.backing_file.has_value()) {
      print(help_text("crosvm", line));
      return kFailure;
    }
    TRY(make_qcow2(plan));
    return kSuccess;
  };
}

ImageCommand info_command(const CommandLine& line) {
  return [&line]() -> Result<int> {
    const auto chain = TRY(image_info(std::string(line.positionals[0]), allowed_backing(line)));
    print(has_switch(line, "json") ? json_of(chain).dump_pretty() + "\n" : text_of(chain));
    return kSuccess;
  };
}

int tell_tables(const CheckPlan& plan, const CheckOutcome& outcome) {
  for (const std::string& message : outcome.messages) print(message + "\n");
  if (outcome.repaired_leaks > 0) {
    print(format_text("{}: gave back {} leaked clusters\n", plan.path, outcome.repaired_leaks));
  }
  if (outcome.errors > 0) {
    print(
        format_text("{}: {} errors and {} leaked clusters; save what can be read with crosvm "
                    "disk convert, or try qemu-img check -r all on a copy\n",
                    plan.path, outcome.errors, outcome.leaks));
    return kFailure;
  }
  if (outcome.leaks > 0) {
    print(format_text("{}: no errors, {} leaked clusters; --repair gives them back\n", plan.path,
                      outcome.leaks));
    return kLeaks;
  }
  print(format_text("{}: no errors\n", plan.path));
  return kSuccess;
}

int tell_check(const CheckPlan& plan, const CheckOutcome& outcome) {
  const int of_tables = tell_tables(plan, outcome);
  if (outcome.chain_problem.empty()) return of_tables;
  print(format_text(
      "that is of its own tables; it cannot be used with the files that it names:\n{}\n",
      outcome.chain_problem));
  return kFailure;
}

ImageCommand check_command(const CommandLine& line) {
  return [&line]() -> Result<int> {
    const CheckPlan plan{.path = std::string(line.positionals[0]),
                         .repair = has_switch(line, "repair"),
                         .allowed = allowed_backing(line),
                         .show_progress = true};
    return tell_check(plan, TRY(check_image(plan)));
  };
}

Result<ImageCommand> convert_command(const CommandLine& line) {
  ConvertPlan plan{.source = std::string(line.positionals[0]),
                   .target = std::string(line.positionals[1]),
                   .allowed = allowed_backing(line),
                   .show_progress = true};
  for (const GivenOption& given : line.options()) {
    const std::string_view name = given.option->name;
    if (name == "format") plan.format = TRY(one_of<ImageFormat>(given, kFormats));
    if (name == "source-format") plan.source_format = TRY(one_of<ImageFormat>(given, kFormats));
    if (name == "compress" && !plan.compression) plan.compression = Qcow2Compression::kZlib;
    if (name == "compression-type") {
      plan.compression = TRY(one_of<Qcow2Compression>(given, kCompressions));
    }
    if (name == "cluster-size") {
      plan.cluster_size = number_of(given.value);
      if (!plan.cluster_size) return fail(given.error("not a decimal number of bytes"));
    }
  }
  TRY(check_plan(plan));
  return [plan]() -> Result<int> {
    TRY(convert_image(plan));
    return kSuccess;
  };
}

ImageCommand compact_command(const CommandLine& line) {
  return [&line]() -> Result<int> {
    const CompactPlan plan{.path = std::string(line.positionals[0]),
                           .allowed = allowed_backing(line),
                           .show_progress = true};
    const CompactOutcome outcome = TRY(compact_image(plan));
    print(format_text("{}: {} of the host, {} before\n", plan.path, readable_bytes(outcome.after),
                      readable_bytes(outcome.before)));
    return kSuccess;
  };
}

}  // namespace

Result<ImageCommand> read_image_command(const CommandLine& line) {
  const std::string name = line.command_name();
  if (name == "create_composite") return create_composite_command(line);
  if (name == "create_qcow2") return create_qcow2_command(line);
  if (name == "disk info") return info_command(line);
  if (name == "disk check") return check_command(line);
  if (name == "disk convert") return convert_command(line);
  CHECK(name == "disk compact");
  return compact_command(line);
}

}  // namespace crosvm
