// A hostile driver of a disk. The first byte chooses the disk, the rest is what the driver does.

#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "base/format.h"
#include "base/log.h"
#include "devices/block/block_device.h"
#include "hostile_device.h"

namespace crosvm {
namespace {

constexpr off_t kDiskBytes = 1 << 20;

/// An image in memory, the same file for all inputs, zeroed.
int empty_image() {
  static const int fd = [] {
    (void)log::configure({.filter = "off", .use_syslog = false});
    return ::memfd_create("disk", 0);  // inherited, as if we were started with it
  }();
  CHECK(::ftruncate(fd, 0) == 0 && ::ftruncate(fd, kDiskBytes) == 0);
  return fd;
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  if (size == 0) return 0;
  const RigOptions options{
      .place = RigPlace::kInline, .packed = (data[0] & 1) != 0, .max_queue_size = 16};
  const int image = empty_image();
  std::string text = format_text("path=/proc/self/fd/{},lock=false,packed-queue,id=fuzz", image);
  if ((data[0] & 2) != 0) text += ",ro";
  if ((data[0] & 4) != 0) text += ",sparse=false";
  play_hostile_device(make_rig<BlockFactory>(text, options), {data + 1, size - 1},
                      [](FuzzInput&) {});
  CHECK(::lseek(image, 0, SEEK_END) == kDiskBytes);
  return 0;
}
