#include "disk/tools/make_qcow2.h"

#include "base/format.h"
#include "base/log.h"
#include "disk/async_file.h"
#include "disk/image_names.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/sync_file.h"
#include "disk/stored_name.h"
#include "disk/tools/held_signals.h"
#include "disk/tools/target_file.h"
#include "disk/tools/tool_image.h"

namespace crosvm {
namespace {

constexpr uint64_t kSector = 512;

/// A VM will open it by the image's word: it says so now if that needs leave.
void warn_if_not_let_in(const Qcow2Plan& plan, const std::string& name) {
  ImageNames names({.path = plan.path, .allowed = {}, .read_only = true, .lock = false});
  const auto opened = names.open({.name = name});
  if (!opened) log::warn("{}", opened.error().what());
}

Result<Qcow2CreateOptions> options_of(const Qcow2Plan& plan) {
  Qcow2CreateOptions options;
  if (!plan.backing_file) {
    options.size = plan.size.value_or(0);
  } else {
    if (is_same_file(plan.path, *plan.backing_file)) {
      return fail(Error::invalid(plan.path + ": cannot be its own backing file"));
    }
    ToolImage backing = TRY(ToolImage::open(*plan.backing_file, {.format = plan.backing_format}));
    if (backing.consists_of(plan.path)) {
      return fail(Error::invalid(format_text(
          "{}: {} needs what is in it, as one of its files; give the new image another name",
          plan.path, *plan.backing_file)));
    }
    options.size = backing.disk().size();
    options.backing_format = std::string(name_of(backing.format()));
    options.backing_name = TRY(stored_name(plan.path, *plan.backing_file));
  }
  if (options.size > INT64_MAX - kSector) {
    return fail(Error::invalid(
        format_text("{}: a disk of {} bytes is too large", plan.path, options.size)));
  }
  if (options.size % kSector != 0) {
    const uint64_t size = (options.size / kSector + 1) * kSector;
    log::info("{}: {} bytes are no whole sectors; it gets {}", plan.path, options.size, size);
    options.size = size;
  }
  return options;
}

}  // namespace

Result<void> make_qcow2(const Qcow2Plan& plan) {
  const HeldSignals signals;
  const Qcow2CreateOptions options = TRY(options_of(plan));
  TargetFile target = TRY(TargetFile::create(plan.path));
  auto file = TRY(make_sync_file(borrowed(target.fd()), plan.path));
  TRY(create_qcow2(*file, options, plan.path));
  TRY(signals.check());
  TRY(target.commit());
  if (options.backing_name) warn_if_not_let_in(plan, *options.backing_name);
  return {};
}

}  // namespace crosvm
