// A qcow2 image that is damaged at places, and requests to the disk in it. The input: which image,
// how many bytes of it change, those changes, then requests.

#include <map>
#include <memory>
#include <vector>

#include "base/log.h"
#include "disk/qcow2/memory_file.h"
#include "disk/qcow2/qcow2_check.h"
#include "disk/qcow2/qcow2_create.h"
#include "disk/qcow2/qcow2_disk.h"
#include "fuzz_input.h"

namespace crosvm {
namespace {

using test::MemoryDisk;
using test::MemoryFile;
using test::MemoryQueue;
using Kind = DiskRequest::Kind;

constexpr uint64_t kDiskBytes = 1 << 20;
constexpr size_t kMostRequests = 256;

struct Request final : DiskRequest {
  void disk_done(int error) override { result = error; }
  std::vector<std::byte> bytes;
  int result = -1;
};

std::unique_ptr<Qcow2Disk> open(MemoryQueue& queue, MemoryFile& file) {
  auto disk = Qcow2Disk::create({.file = std::make_unique<MemoryDisk>(queue, file),
                                 .sync = test::make_memory_sync(file),
                                 .backing = {},
                                 .data_file = {},
                                 .read_only = false,
                                 .object = "fuzz.qcow2"});
  return disk ? std::move(*disk) : nullptr;
}

void play(Qcow2Disk& disk, MemoryQueue& queue, FuzzInput& input) {
  std::vector<std::unique_ptr<Request>> requests;
  while (!input.empty() && requests.size() < kMostRequests) {
    const uint32_t what = input.number(1);
    auto& request = requests.emplace_back(std::make_unique<Request>());
    request->kind = static_cast<Kind>(what % 6);
    request->may_unmap = (what & 64) != 0;
    request->offset = input.number(2) * 128ULL;
    request->length = input.number(1) * 300ULL;
    if (request->kind == Kind::kRead || request->kind == Kind::kWrite) {
      request->bytes.resize(request->length, std::byte{0x5A});
      request->buffers = {GuestSlice::over(request->bytes)};
    }
    disk.start(*request);
    disk.submit();
    for (uint32_t i = what >> 7; i > 0; --i) queue.end_one();
  }
  while (queue.end_one()) {
  }
  for (const auto& request : requests) CHECK(request->result >= 0);
}

uint64_t errors_of(MemoryFile& file) {
  auto sync = test::make_memory_sync(file);
  auto report = check_qcow2(*sync, "fuzz.qcow2", Qcow2Repair::kNothing);
  return report ? report->errors : UINT64_MAX;
}

/// An image with some data in it.
MemoryFile make_image(MemoryQueue& queue, uint32_t choice) {
  MemoryFile file;
  Qcow2CreateOptions options{.size = kDiskBytes};
  options.cluster_size = 512ULL << (choice % 8);
  options.version = (choice & 8) != 0 ? 2 : 3;
  if (options.version == 3) {
    options.refcount_bits = 1U << ((choice >> 4) % 7);
    options.extended_l2 = options.cluster_size >= 16384 && (choice & 128) != 0;
  }
  CHECK(create_qcow2(*test::make_memory_sync(file), options, "fuzz.qcow2"));
  auto disk = open(queue, file);
  CHECK(disk);
  Request write;
  write.kind = Kind::kWrite;
  write.offset = 5000;
  write.length = 70'000;
  write.bytes.resize(write.length, std::byte{0xA5});
  write.buffers = {GuestSlice::over(write.bytes)};
  disk->start(write);
  disk->submit();
  while (queue.end_one()) {
  }
  return file;
}

}  // namespace
}  // namespace crosvm

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  static const bool quiet = log::configure({.filter = "off", .use_syslog = false}).has_value();
  CHECK(quiet);
  FuzzInput input({data, size});
  MemoryQueue queue(size);
  static std::map<uint32_t, MemoryFile> images;  // by choice; each is made once
  const uint32_t choice = input.number(1);
  auto made = images.find(choice);
  if (made == images.end()) made = images.emplace(choice, make_image(queue, choice)).first;
  MemoryFile file = made->second;
  std::vector<std::byte> bytes = file.bytes();
  for (uint32_t left = input.number(1) % 32; left > 0; --left) {
    bytes[input.number(3) % bytes.size()] = static_cast<std::byte>(input.number(1));
  }
  file.set_bytes(std::move(bytes));
  const uint64_t errors = errors_of(file);
  if (auto disk = open(queue, file)) play(*disk, queue, input);
  // What was right stays right.
  CHECK(errors != 0 || errors_of(file) == 0);
  return 0;
}
