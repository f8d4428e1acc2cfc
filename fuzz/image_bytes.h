#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "base/log.h"
#include "disk/raw_disk.h"
#include "disk/raw_image.h"

/// Opening bytes as the image of a disk.
namespace crosvm::fuzz {

/// One for all inputs.
inline EventLoop& event_loop() {
  static const std::unique_ptr<EventLoop> loop = [] {
    (void)log::configure({.filter = "off", .use_syslog = false});
    auto made = EventLoop::create();
    CHECK(made.has_value());
    return *std::move(made);
  }();
  return *loop;
}

inline std::shared_ptr<const Fd> file_of(std::span<const uint8_t> bytes) {
  Fd fd(::memfd_create("fuzz", MFD_CLOEXEC));
  CHECK(fd);
  CHECK(write_full(fd, std::as_bytes(bytes), "fuzz").has_value());
  return std::make_shared<const Fd>(std::move(fd));
}

inline std::unique_ptr<Disk> raw_disk(const std::shared_ptr<const Fd>& file, bool read_only) {
  auto facts = inspect_raw_image(*file, "fuzz");
  CHECK(facts.has_value());
  auto async = make_async_file(event_loop(), file, {});
  CHECK(async.has_value());
  auto disk = RawDisk::create(*std::move(async), *facts, {.read_only = read_only}, "fuzz");
  CHECK(disk.has_value());
  return *std::move(disk);
}

struct ImageRequest final : DiskRequest {
  void disk_done(int error) override {
    CHECK(result < 0 && error >= 0);
    result = error;
  }
  int result = -1;
  std::vector<std::byte> bytes;
};

/// Does requests of `kinds` at places spread over the disk and past its end, all at once.
inline void use_disk(Disk& disk, std::span<const DiskRequest::Kind> kinds) {
  constexpr uint64_t kLongest = 100'000;
  std::vector<std::unique_ptr<ImageRequest>> requests;
  const uint64_t size = disk.size();
  const std::pair<uint64_t, uint64_t> places[] = {
      {0, kLongest}, {size / 2, 1}, {size / 3, kLongest}, {size - size / 7, kLongest}, {size, 1}};
  for (const auto& [offset, most] : places) {
    for (const DiskRequest::Kind kind : kinds) {
      auto request = std::make_unique<ImageRequest>();
      request->kind = kind;
      request->offset = offset;
      request->length = offset == size ? most : std::min(most, size - std::min(offset, size));
      request->bytes.resize(request->length);
      request->buffers = {GuestSlice::over(request->bytes)};
      disk.start(*request);
      requests.push_back(std::move(request));
    }
  }
  disk.submit();
  for (const auto& request : requests) {
    while (request->result < 0) {
      CHECK(event_loop().run_once(std::chrono::seconds(10)).has_value());
    }
    const bool is_inside = request->offset < size;
    if (request->kind == DiskRequest::Kind::kExtent && is_inside && request->result == 0 &&
        request->length > 0) {
      CHECK(request->extent.length > 0 && request->extent.length <= request->length);
    }
    const bool has_place = request->kind != DiskRequest::Kind::kFlush;
    CHECK(is_inside || !has_place || request->result != 0 || request->length == 0);
  }
}

}  // namespace crosvm::fuzz
