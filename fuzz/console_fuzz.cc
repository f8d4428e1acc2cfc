// A hostile driver of a console device with two ports, while the host's side writes, reads and
// resizes.

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <csignal>

#include "devices/console/console_device.h"
#include "hostile_device.h"

namespace crosvm {
namespace {

struct Host {
  Host() {
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    theirs = Fd(ends[0]);
    ours = Fd(ends[1]);
    CHECK(::pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
    sizes = Fd(ends[0]);
    size_writer = Fd(ends[1]);
  }
  void act(FuzzInput& input) {
    std::array<std::byte, 64> bytes;
    const uint8_t what = input.byte();
    input.fill(std::span(bytes).first(what % 8));
    if (what & 8) [[maybe_unused]]
      ssize_t put = ::write(ours.get(), bytes.data(), what % 8);
    if (what & 16) [[maybe_unused]]
      ssize_t put = ::write(size_writer.get(), bytes.data(), what % 8);
    if (what & 32) [[maybe_unused]]
      ssize_t got = ::read(ours.get(), bytes.data(), bytes.size());
    if (what == 255) ours = Fd();
  }
  Fd theirs, ours, sizes, size_writer;
};

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  static const auto ignored = ::signal(SIGPIPE, SIG_IGN);
  (void)ignored;
  if (size == 0) return 0;
  Host host;
  ConsoleResources resources;
  resources.outputs.push_back(*host.theirs.duplicate());
  resources.inputs.push_back(std::move(host.theirs));
  resources.sizes.push_back(std::move(host.sizes));
  auto device = opened_device<ConsoleFactory>("ports=[[output=o,input=i,sizes=s,console],[name=b]]",
                                              std::move(resources));
  const RigOptions options{.place = RigPlace::kInline,
                           .packed = (data[0] & 1) != 0,
                           .refused_features = (data[0] & 2) != 0 ? 2U : 0U};  // MULTIPORT
  play_hostile_device(must_have_rig(Rig::create(*std::move(device), options)), {data + 1, size - 1},
                      [&](FuzzInput& input) { host.act(input); });
  return 0;
}
