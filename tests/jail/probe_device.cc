#include "probe_device.h"

#include <fcntl.h>
#include <liburing.h>
#include <sys/stat.h>

#include <string>
#include <utility>

#include "base/format.h"
#include "base/packet_socket.h"
#include "devices/all_devices.h"
#include "jail/spawner_process.h"
#include "jail/worker_order.h"
#include "probe_acts.h"

namespace crosvm::test {
namespace {

/// Of make_device_rings.
constexpr uint32_t kRingEntries = 256;
constexpr int kMostDescriptors = 4096;

/// Where the kernel puts what in the memory of a ring with so many entries. It says so only to who
/// makes one, which is over when the filter is there.
io_uring_params& ring_layout() {
  static io_uring_params layout = {};
  return layout;
}

/// The ring that the process was given, whose operations IoUring does not let a device choose.
class RawRing {
 public:
  explicit RawRing(const std::vector<IoUring>& rings) {
    if (rings.empty() || ring_layout().sq_entries == 0) return;
    mapped_ = io_uring_queue_mmap(rings[0].descriptor().get(), &ring_layout(), &ring_) == 0;
    if (mapped_) CHECK(*ring_.sq.kring_entries == kRingEntries);
  }
  io_uring* get() { return mapped_ ? &ring_ : nullptr; }

 private:
  io_uring ring_ = {};  // goes with the process
  bool mapped_ = false;
};

/// All that are open, by kind, files with their inodes: "0 character, 3 socket, 6 file 1234".
std::string describe_descriptors() {
  std::string text;
  for (int fd = 0; fd < kMostDescriptors; ++fd) {
    struct stat status = {};
    if (::fstat(fd, &status) != 0) continue;
    text += format_text("{}{} ", text.empty() ? "" : ", ", fd);
    if (S_ISSOCK(status.st_mode)) {
      text += "socket";
    } else if (S_ISCHR(status.st_mode)) {
      text += "character";
    } else if (S_ISREG(status.st_mode)) {
      text += format_text("file {}", status.st_ino);
    } else {
      text += (status.st_mode & S_IFMT) == 0 ? "anonymous" : "other";
    }
  }
  return text;
}

void ask_for_files_without_end() {
  PacketSocket channel(Fd(::fcntl(kWorkerChannel, F_DUPFD_CLOEXEC, 0)), kWorkerPackets);
  const Packet request{.text = R"({"open":[],"from":0,"writable":false})", .fds = {}};
  while (channel.send(request)) {
  }
}

}  // namespace

Result<ProbeConfig> ProbeFactory::parse(const KeyValues& text) {
  ProbeConfig config;
  TRY(text.read({kv_key("act", config.act), kv_key("flood", config.flood),
                 kv_key("outside", config.outside), kv_key("other", config.other),
                 kv_key("image", config.image).require()}));
  if (config.act && *config.act >= probe_acts().size()) {
    return fail(Error::invalid(format_text("there is no act {}", *config.act)));
  }
  return config;
}

Result<ProbeFactory::Resources> ProbeFactory::open(const Config& config) {
  return Resources{.image = TRY(open_path(config.image, O_RDWR))};
}

size_t ProbeFactory::rings(const Config&) {
  io_uring scratch = {};
  if (io_uring_queue_init_params(kRingEntries, &scratch, &ring_layout()) == 0) {
    io_uring_queue_exit(&scratch);
  }
  return 1;
}

Result<std::unique_ptr<VirtioDevice>> ProbeFactory::create(const Config& config, Resources,
                                                           DeviceContext context) {
  if (config.flood) ask_for_files_without_end();
  if (!config.act) return fail(Error::invalid(format_text("it has {}", describe_descriptors())));
  RawRing ring(context.rings);
  const ProbeTargets targets{.outside = static_cast<pid_t>(config.outside),
                             .ring = ring.get(),
                             .own_descriptors = {},
                             .other_file = config.other};
  const long result = probe_acts()[*config.act].attempt(targets);
  return fail(Error::invalid(format_text("the act gave {}", result)));
}

const DeviceType* find_probe(std::string_view name) {
  static constexpr DeviceType kProbe = device_type<ProbeFactory>();
  return name == kProbe.name ? &kProbe : find_device(name);
}

}  // namespace crosvm::test
