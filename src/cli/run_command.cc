#include "cli/run_command.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include "base/format.h"
#include "base/key_value.h"
#include "base/log.h"
#include "cli/disk_options.h"
#include "cli/restart_devices.h"
#include "cli/serial_options.h"
#include "cli/vhost_user_options.h"
#include "devices/net/net_config.h"

namespace crosvm {

static constexpr std::array<KvName<Nested>, 3> kv_names(Nested) {
  return {{{"off", Nested::kOff}, {"auto", Nested::kAuto}, {"on", Nested::kOn}}};
}

static constexpr std::array<KvName<KernelEntry>, 3> kv_names(KernelEntry) {
  return {
      {{"auto", KernelEntry::kAuto}, {"linux", KernelEntry::kLinux}, {"pvh", KernelEntry::kPvh}}};
}

namespace {

/// A key that is known and refused: reading it is the error.
struct UnbuiltKey {
  std::string_view name;
};
Result<void> read_kv(const KvValue&, UnbuiltKey& key) {
  return fail(Error::invalid(format_text("{} is not supported by this build yet", key.name)));
}

/// A 128-bit UUID, "12345678-9abc-def0-1234-56789abcdef0" or without the dashes.
struct Uuid {
  std::array<uint8_t, 16> bytes = {};
};
Result<void> read_kv(const KvValue& value, Uuid& uuid) {
  std::string text;
  TRY(value.read(text));
  bool dashed = text.size() == 36;
  size_t digits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    bool is_dash = dashed && (i == 8 || i == 13 || i == 18 || i == 23);
    int digit = text[i] >= '0' && text[i] <= '9'   ? text[i] - '0'
                : text[i] >= 'a' && text[i] <= 'f' ? text[i] - 'a' + 10
                : text[i] >= 'A' && text[i] <= 'F' ? text[i] - 'A' + 10
                                                   : -1;
    bool good = is_dash ? text[i] == '-' : digit >= 0 && digits < 32;
    if (!good) digits = 33;
    if (!good) break;
    if (is_dash) continue;
    uuid.bytes[digits / 2] = static_cast<uint8_t>(uuid.bytes[digits / 2] << 4 | digit);
    ++digits;
  }
  if (digits == 32) return {};
  return fail(value.error(
      format_text("`{}` is not a UUID like 01234567-89ab-cdef-0123-456789abcdef", text)));
}

Result<void> take_cpus(RunOptions& options, std::string_view value) {
  size_t boot_cpu = 0;  // has an effect on aarch64 only
  UnbuiltKey clusters{"clusters"}, core_types{"core-types"}, freq_domains{"freq-domains"},
      mte{"mte"}, sve{"sve"};
  TRY(read_key_values(
      value, {kv_key("num-cores", options.config.vcpus), kv_key("clusters", clusters),
              kv_key("core-types", core_types), kv_key("boot-cpu", boot_cpu),
              kv_key("freq-domains", freq_domains), kv_key("mte", mte), kv_key("sve", sve)}));
  if (boot_cpu != 0 && boot_cpu >= options.config.vcpus) {
    log::warn("--cpus boot-cpu={}: there are {} vCPUs; vCPU 0 boots", boot_cpu,
              options.config.vcpus);
  }
  return {};
}

Result<void> take_mem(RunOptions& options, std::string_view value) {
  return read_key_values(value, {kv_key("size", options.config.memory_mib)});
}

Result<void> take_serial(RunOptions& options, std::string_view value) {
  options.config.serial.push_back(TRY(parse_serial(value)));
  return {};
}

Result<void> take_block(RunOptions& options, std::string_view value) {
  options.disks.push_back(TRY(parse_disk(value)));
  return {};
}

template <bool kReadOnly, bool kRoot>
Result<void> take_old_disk(RunOptions& options, std::string_view value) {
  options.disks.push_back(
      TRY(parse_disk(value, ForcedDiskKeys{.read_only = kReadOnly, .root = kRoot})));
  return {};
}

Result<void> take_async_executor(RunOptions& options, std::string_view value) {
  options.async_executor = TRY(parse_async_executor(value));
  return {};
}

Result<void> take_net(RunOptions& options, std::string_view value) {
  options.nets.push_back(TRY(parse_net(value)));
  return {};
}
template <auto kMember>
Result<void> take_net_ip(RunOptions& options, std::string_view value) {
  options.old_nets.*kMember = TRY(parse_ipv4(value));
  return {};
}
Result<void> take_mac(RunOptions& options, std::string_view value) {
  options.old_nets.mac = TRY(parse_mac(value));
  return {};
}
Result<void> take_tap_name(RunOptions& options, std::string_view value) {
  options.old_nets.tap_names.emplace_back(value);
  return {};
}
template <class Number>
Result<Number> read_number(std::string_view value) {
  Number number = 0;
  const char* end = value.data() + value.size();
  auto [stopped, code] = std::from_chars(value.data(), end, number);
  if (code == std::errc() && stopped == end) return number;
  return fail(Error::invalid(
      format_text("not a decimal number up to {}", std::numeric_limits<Number>::max())));
}
Result<void> take_tap_fd(RunOptions& options, std::string_view value) {
  options.old_nets.tap_fds.push_back(TRY(read_number<int>(value)));
  return {};
}
Result<void> take_net_vq_pairs(RunOptions& options, std::string_view value) {
  options.old_nets.vq_pairs = TRY(read_number<uint16_t>(value));
  return {};
}
Result<void> take_vhost_net(RunOptions& options, std::string_view) {
  options.old_nets.vhost_net = true;
  return {};
}
Result<void> take_vhost_net_device(RunOptions& options, std::string_view value) {
  options.old_nets.vhost_device = std::string(value);
  return {};
}

Result<void> take_vhost_user(RunOptions& options, std::string_view value) {
  options.config.vhost_user.push_back(TRY(parse_vhost_user(value)));
  return {};
}

Result<void> take_vsock(RunOptions& options, std::string_view value) {
  options.config.vsock = TRY(parse_vsock(value));
  return {};
}

Result<void> take_cid(RunOptions& options, std::string_view value) {
  options.old_vsock.cid = TRY(parse_cid(value));
  return {};
}

Result<void> take_vhost_vsock_device(RunOptions& options, std::string_view value) {
  options.old_vsock.device = std::string(value);
  return {};
}

Result<void> take_vhost_vsock_fd(RunOptions& options, std::string_view value) {
  options.old_vsock.fd = TRY(parse_vsock_fd(value));
  return {};
}

enum class OldVhostUser { kBlock, kConsole, kFs, kGpu, kHwsim, kNet, kSnd, kVsock, kWl };

template <OldVhostUser kType>
Result<void> take_old_vhost_user(RunOptions& options, std::string_view value) {
  constexpr std::array<std::string_view, 9> kTypes = {
      "block", "console", "fs", "gpu", "mac80211-hwsim", "net", "sound", "vsock", "wl"};
  // Of a shared directory the tag stood behind the path; now the back-end tells it.
  if (kType == OldVhostUser::kFs) value = value.substr(0, value.rfind(':'));
  options.config.vhost_user.push_back(
      TRY(old_vhost_user(kTypes[static_cast<size_t>(kType)], value)));
  return {};
}

Result<void> take_vhost_user_timeout(RunOptions& options, std::string_view value) {
  uint64_t ms = 0;
  const char* end = value.data() + value.size();
  auto [stopped, code] = std::from_chars(value.data(), end, ms);
  if (code != std::errc() || stopped != end) {
    return fail(Error::invalid("not a decimal number of milliseconds"));
  }
  constexpr uint64_t kForever = std::numeric_limits<int64_t>::max() / 1'000'000;
  options.config.vhost_user_connect_timeout = std::chrono::milliseconds(std::min(ms, kForever));
  return {};
}

Result<void> take_hypervisor(RunOptions& options, std::string_view value) {
  static constexpr std::array<std::string_view, 1> kNames = {"kvm"};
  KeyValues values = TRY(KeyValues::parse(value));
  KvValue hypervisor = TRY(values.as_enum());
  TRY(hypervisor.variant(kNames));
  options.hypervisor_device = options.config.kvm_device;
  return hypervisor.read_variant_fields({kv_key("device", *options.hypervisor_device)});
}

Result<void> take_irqchip(RunOptions&, std::string_view value) {
  static constexpr std::array<std::string_view, 3> kNames = {"kernel", "split", "userspace"};
  KeyValues values = TRY(KeyValues::parse(value));
  KvValue irqchip = TRY(values.as_enum());
  size_t index = TRY(irqchip.variant(kNames));
  TRY(irqchip.expect_plain());
  if (index == 0) return {};
  return fail(Error::invalid(
      format_text("{} is not supported by this build yet; use kernel", kNames[index])));
}

Result<void> take_nested(RunOptions& options, std::string_view value) {
  return read_key_values(value, {kv_key("mode", options.config.nested)});
}

Result<void> take_kernel_entry(RunOptions& options, std::string_view value) {
  KeyValues values = TRY(KeyValues::parse(value));
  return TRY(values.as_enum()).read(options.config.kernel_entry);
}

Result<void> take_smbios(RunOptions& options, std::string_view value) {
  SmbiosIdentity& smbios = options.config.smbios;
  std::optional<Uuid> uuid;
  TRY(read_key_values(
      value,
      {kv_key("bios-vendor", smbios.bios_vendor), kv_key("bios-version", smbios.bios_version),
       kv_key("manufacturer", smbios.manufacturer), kv_key("product-name", smbios.product_name),
       kv_key("serial-number", smbios.serial_number), kv_key("uuid", uuid),
       kv_key("oem-strings", smbios.oem_strings)}));
  if (uuid) smbios.uuid = uuid->bytes;
  return {};
}

/// What reads the value of an option. The table says which options there are; this, what they do.
struct Reader {
  std::string_view name;
  Result<void> (*take)(RunOptions& options, std::string_view value);
};

/// Stores the text in a member of RunOptions or Config.
template <auto kMember>
Result<void> store(RunOptions& options, std::string_view value) {
  if constexpr (requires { options.*kMember; }) {
    options.*kMember = std::string(value);
  } else {
    options.config.*kMember = std::string(value);
  }
  return {};
}
template <auto kMember>
Result<void> append(RunOptions& options, std::string_view value) {
  if constexpr (requires { options.*kMember; }) {
    (options.*kMember).emplace_back(value);
  } else {
    (options.config.*kMember).emplace_back(value);
  }
  return {};
}
template <bool Config::* kMember, bool kTo>
Result<void> set(RunOptions& options, std::string_view) {
  options.config.*kMember = kTo;
  return {};
}
/// Stores the text in a member of SandboxOptions.
template <auto kMember>
Result<void> store_sandbox(RunOptions& options, std::string_view value) {
  options.config.sandbox_options.*kMember = std::string(value);
  return {};
}
Result<void> take_seccomp_log_failures(RunOptions& options, std::string_view) {
  options.config.sandbox_options.seccomp_log_failures = true;
  return {};
}
Result<void> take_restart_devices(RunOptions& options, std::string_view value) {
  options.config.sandbox_options.restart_devices = TRY(parse_restart_devices(value));
  return {};
}
/// For switches that ask for what this build always does: it has no such device.
Result<void> nothing_to_do(RunOptions&, std::string_view) { return {}; }

Result<void> take_no_legacy(RunOptions& options, std::string_view) {
  options.config.i8042 = false;
  options.config.rtc = false;
  return {};
}

constexpr Reader kReaders[] = {
    {"acpi-table", append<&Config::acpi_tables>},
    {"async-executor", take_async_executor},
    {"block", take_block},
    {"cid", take_cid},
    {"cpus", take_cpus},
    {"disable-sandbox", set<&Config::sandbox, false>},
    {"disable-virtio-intx", set<&Config::virtio_intx, false>},
    {"disk", take_old_disk<true, false>},
    {"host-ip", take_net_ip<&OldNetOptions::host_ip>},
    {"hugepages", set<&Config::hugepages, true>},
    {"hypervisor", take_hypervisor},
    {"initrd", store<&Config::initrd>},
    {"irqchip", take_irqchip},
    {"kernel-entry", take_kernel_entry},
    {"kvm-device", store<&RunOptions::kvm_device>},
    {"lock-guest-memory", set<&Config::lock_guest_memory, true>},
    {"mac", take_mac},
    {"mem", take_mem},
    {"name", store<&Config::name>},
    {"nested", take_nested},
    {"net", take_net},
    {"net-vq-pairs", take_net_vq_pairs},
    {"netmask", take_net_ip<&OldNetOptions::netmask>},
    {"no-balloon", nothing_to_do},
    {"no-i8042", set<&Config::i8042, false>},
    {"no-legacy", take_no_legacy},
    {"no-rng", set<&Config::rng, false>},
    {"no-rtc", set<&Config::rtc, false>},
    {"no-smt", set<&Config::smt, false>},
    {"no-usb", nothing_to_do},
    {"oem-strings", append<&RunOptions::oem_strings>},
    {"params", append<&Config::params>},
    {"pivot-root", store_sandbox<&SandboxOptions::pivot_root>},
    {"restart-devices", take_restart_devices},
    {"root", take_old_disk<true, true>},
    {"rwdisk", take_old_disk<false, false>},
    {"rwroot", take_old_disk<false, true>},
    {"seccomp-log-failures", take_seccomp_log_failures},
    {"seccomp-policy-dir", store_sandbox<&SandboxOptions::seccomp_policy_dir>},
    {"serial", take_serial},
    {"smbios", take_smbios},
    {"socket", store<&Config::socket>},
    {"syslog-tag", store<&RunOptions::syslog_tag>},
    {"tap-fd", take_tap_fd},
    {"tap-name", take_tap_name},
    {"vhost-net", take_vhost_net},
    {"vhost-net-device", take_vhost_net_device},
    {"vhost-user", take_vhost_user},
    {"vhost-user-blk", take_old_vhost_user<OldVhostUser::kBlock>},
    {"vhost-user-connect-timeout-ms", take_vhost_user_timeout},
    {"vhost-user-console", take_old_vhost_user<OldVhostUser::kConsole>},
    {"vhost-user-fs", take_old_vhost_user<OldVhostUser::kFs>},
    {"vhost-user-gpu", take_old_vhost_user<OldVhostUser::kGpu>},
    {"vhost-user-mac80211-hwsim", take_old_vhost_user<OldVhostUser::kHwsim>},
    {"vhost-user-net", take_old_vhost_user<OldVhostUser::kNet>},
    {"vhost-user-snd", take_old_vhost_user<OldVhostUser::kSnd>},
    {"vhost-user-vsock", take_old_vhost_user<OldVhostUser::kVsock>},
    {"vhost-user-wl", take_old_vhost_user<OldVhostUser::kWl>},
    {"vhost-vsock-device", take_vhost_vsock_device},
    {"vhost-vsock-fd", take_vhost_vsock_fd},
    {"vsock", take_vsock},
};

const Reader* find_reader(std::string_view name) {
  auto found = std::ranges::find(kReaders, name, &Reader::name);
  return found == std::end(kReaders) ? nullptr : &*found;
}

Result<void> check_sizes(const Config& config) {
  constexpr uint64_t kMost = std::numeric_limits<uint64_t>::max() >> 20;
  if (config.memory_mib == 0) {
    return fail(Error::invalid("--mem 0: a VM without memory cannot run; give a size in MiB"));
  }
  if (config.memory_mib > kMost) {
    return fail(Error::invalid(
        format_text("--mem {}: more MiB than 64 bits can count in bytes", config.memory_mib)));
  }
  if (config.vcpus == 0) {
    return fail(Error::invalid("--cpus 0: a VM without vCPUs cannot run; give 1 or more"));
  }
  return {};
}

}  // namespace

bool is_run_option_read(std::string_view name) { return find_reader(name) != nullptr; }

Result<RunOptions> read_run_options(const CommandLine& line) {
  RunOptions options;
  for (const GivenOption& given : line.options()) {
    const Reader* reader = find_reader(given.option->name);
    if (!reader) continue;  // refused, or ignored by the table's own word
    if (auto taken = reader->take(options, given.value); !taken) {
      return fail(given.error(taken.error().what()));
    }
  }
  if (!line.positionals.empty()) options.config.kernel = line.positionals.front();
  return options;
}

/// Other cards are of other kinds, or the kernel's.
bool has_card_with_process(const Config& config) {
  return std::ranges::any_of(config.nets, [](const NetRequest& card) {
    return !card.vhost_device && !std::holds_alternative<NetRequest::Passt>(card.network) &&
           !std::holds_alternative<UserNetConfig>(card.network);
  });
}

/// The kinds of devices that shall be started anew are kinds that the VM has.
Result<void> check_restart_devices(const Config& config) {
  for (const std::string& kind : config.sandbox_options.restart_devices) {
    const bool there =
        (kind == "rng" && config.rng) || (kind == "net" && has_card_with_process(config)) ||
        std::ranges::any_of(config.disks,
                            [&kind](const DeviceRequest& request) { return request.type == kind; });
    if (there) continue;
    return fail(Error::invalid(
        format_text("--restart-devices: the VM has no device of the kind {0}{1}; give it one, or "
                    "leave {0} out",
                    kind, kind == "net" ? ", which is a card on a tap without vhost-net" : "")));
  }
  return {};
}

Result<Config> make_config(RunOptions options) {
  Config config = std::move(options.config);
  if (options.hypervisor_device && options.kvm_device) {
    return fail(Error::invalid(
        "--hypervisor and --kvm-device cannot both be given; use --hypervisor kvm[device=PATH]"));
  }
  if (options.hypervisor_device) config.kvm_device = *std::move(options.hypervisor_device);
  if (options.kvm_device) config.kvm_device = *std::move(options.kvm_device);
  if (!config.sandbox && !config.sandbox_options.restart_devices.empty()) {
    return fail(
        Error::invalid("--restart-devices: with --disable-sandbox no device has a process of its "
                       "own; leave out one of the two"));
  }
  const bool other_console = std::ranges::any_of(
      config.vhost_user, [](const VhostUserRequest& request) { return request.type == "console"; });
  TRY(complete_serial(config.serial, other_console));
  TRY(add_disks(options.disks, options.async_executor, config));
  config.vsock = TRY(choose_vsock(std::move(config.vsock), options.old_vsock));
  if (config.kernel.empty()) {
    return fail(Error::invalid("no kernel to boot; give the path of a bzImage or an ELF vmlinux"));
  }
  TRY(check_sizes(config));
  config.nets = TRY(all_nets(std::move(options.nets), options.old_nets, config.vcpus));
  TRY(check_restart_devices(config));
  std::ranges::move(options.oem_strings, std::back_inserter(config.smbios.oem_strings));
  return config;
}

}  // namespace crosvm
