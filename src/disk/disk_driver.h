#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "disk/disk.h"
#include "disk/raw_disk.h"
#include "disk/raw_image.h"

/// Tests of disks of any format.
namespace crosvm::test {

struct DriverRequest final : DiskRequest {
  void disk_done(int error) override {
    EXPECT_EQ(result, -1) << "told twice";
    result = error;
  }
  int result = -1;  // until it is done
};

/// Plays a device above a disk: its loop, and memory of its own for buffers.
class DiskDriver {
 public:
  DiskDriver() : loop_(std::move(*EventLoop::create())) {}

  EventLoop& loop() { return *loop_; }

  /// A raw disk on `path`.
  std::unique_ptr<Disk> open_raw(const std::string& path, bool read_only, int flags = 0) {
    auto image = open_path(path, (read_only ? O_RDONLY : O_RDWR) | flags);
    EXPECT_TRUE(image) << image.error().what();
    auto fd = std::make_shared<const Fd>(std::move(*image));
    auto facts = inspect_raw_image(*fd, path);
    EXPECT_TRUE(facts) << facts.error().what();
    auto disk = RawDisk::create(std::move(*make_async_file(*loop_, fd, {})), *facts,
                                {.read_only = read_only}, path);
    EXPECT_TRUE(disk) << disk.error().what();
    return std::move(*disk);
  }

  int wait(Disk& disk, DriverRequest& request) {
    disk.start(request);
    EXPECT_EQ(request.result, -1) << "told before submit";
    disk.submit();
    while (request.result < 0) EXPECT_TRUE(loop_->run_once(std::chrono::seconds(10)));
    return request.result;
  }
  int run(Disk& disk, DiskRequest::Kind kind, uint64_t offset = 0, uint64_t length = 0) {
    DriverRequest request;
    request.kind = kind;
    request.offset = offset;
    request.length = length;
    return wait(disk, request);
  }
  int write(Disk& disk, uint64_t offset, std::string text) {
    DriverRequest request;
    request.kind = DiskRequest::Kind::kWrite;
    request.offset = offset;
    request.length = text.size();
    request.buffers = scatter(text);
    return wait(disk, request);
  }
  /// Reads through buffers of random sizes; the errno instead when there is one.
  std::string read(Disk& disk, uint64_t offset, size_t length) {
    DriverRequest request;
    std::string text(length, '?');
    request.offset = offset;
    request.length = length;
    request.buffers = scatter(text);
    const int error = wait(disk, request);
    return error == 0 ? text : "errno " + std::to_string(error);
  }
  DiskRequest::Extent extent(Disk& disk, uint64_t offset, uint64_t length) {
    DriverRequest request;
    request.kind = DiskRequest::Kind::kExtent;
    request.offset = offset;
    request.length = length;
    EXPECT_EQ(wait(disk, request), 0);
    return request.extent;
  }

  /// Reads at random places, several at a time, must give what is in `model`; and every extent that
  /// is told to be zero must be.
  void compare(Disk& disk, std::string_view model, int reads, size_t longest) {
    ASSERT_EQ(disk.size(), model.size());
    for (int done = 0; done < reads;) {
      std::vector<std::unique_ptr<DriverRequest>> requests;
      std::vector<std::string> texts(1 + random_() % 8);
      for (std::string& text : texts) {
        auto request = std::make_unique<DriverRequest>();
        request->length = random_() % (std::min(longest, model.size()) + 1);
        request->offset = random_() % (model.size() - request->length + 1);
        text.assign(request->length, '?');
        request->buffers = scatter(text);
        disk.start(*request);
        requests.push_back(std::move(request));
        ++done;
      }
      disk.submit();
      for (size_t i = 0; i < requests.size(); ++i) {
        while (requests[i]->result < 0) ASSERT_TRUE(loop_->run_once(std::chrono::seconds(10)));
        ASSERT_EQ(requests[i]->result, 0);
        ASSERT_TRUE(texts[i] == model.substr(requests[i]->offset, requests[i]->length))
            << "bytes at " << requests[i]->offset << ", " << requests[i]->length;
      }
    }
    for (uint64_t at = 0; at < model.size();) {
      const DiskRequest::Extent found = extent(disk, at, model.size() - at);
      ASSERT_GT(found.length, 0u);
      ASSERT_LE(found.length, model.size() - at);
      if (found.is_zero) {
        ASSERT_EQ(model.substr(at, found.length).find_first_not_of('\0'), std::string_view::npos);
      }
      at += found.length;
    }
  }

  std::mt19937_64& random() { return random_; }

 private:
  std::vector<GuestSlice> scatter(std::string& text) {
    std::vector<GuestSlice> slices;
    std::span<std::byte> rest = std::as_writable_bytes(std::span(text));
    while (!rest.empty()) {
      const size_t taken =
          slices.size() == 7 ? rest.size() : std::min<size_t>(rest.size(), random_() % 9000);
      slices.push_back(GuestSlice::over(rest.first(taken)));
      rest = rest.subspan(taken);
    }
    return slices;
  }

  std::unique_ptr<EventLoop> loop_;
  std::mt19937_64 random_{1};
};

/// A folder of its own, gone when this is.
class TemporaryFolder {
 public:
  TemporaryFolder() : path_(::testing::TempDir() + "disk_XXXXXX") {
    EXPECT_NE(::mkdtemp(path_.data()), nullptr);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  std::string path(std::string_view name) const { return path_ + "/" + std::string(name); }
  std::string write(std::string_view name, std::string_view bytes) const {
    const Fd fd = std::move(*open_path(path(name), O_WRONLY | O_CREAT | O_TRUNC));
    EXPECT_TRUE(write_full(fd, std::as_bytes(std::span(bytes)), path(name)));
    return path(name);
  }
  std::string read(std::string_view name) const {
    const auto fd = open_path(path(name), O_RDONLY);
    if (!fd) return {};
    std::string bytes(*file_size(*fd, path(name)), '?');
    EXPECT_TRUE(read_full_at(*fd, 0, std::as_writable_bytes(std::span(bytes)), path(name)));
    return bytes;
  }

 private:
  std::string path_;
};

struct Ran {
  int status = -1;
  std::string output;  // and what it complains of
};

/// Runs a program through the shell.
inline Ran run_program(const std::string& command) {
  Ran ran;
  std::FILE* pipe = ::popen(
      ("export PATH=$PATH:/usr/sbin:/sbin; (" + command + ") 2>&1 </dev/null").c_str(), "re");
  if (pipe == nullptr) return ran;
  char chunk[4096];
  while (const size_t got = std::fread(chunk, 1, sizeof(chunk), pipe))
    ran.output.append(chunk, got);
  const int status = ::pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

inline bool has_program(const std::string& name) {
  return run_program("command -v " + name).status == 0;
}

/// Bytes of every kind, in runs: zeroes, one byte again and again, random ones.
inline std::string mixed_bytes(std::mt19937_64& random, size_t size, size_t unit) {
  std::string bytes;
  while (bytes.size() < size) {
    const size_t run = std::min(size - bytes.size(), unit * (1 + random() % 20));
    switch (random() % 3) {
      case 0:
        bytes.append(run, '\0');
        break;
      case 1:
        bytes.append(run, static_cast<char>(random()));
        break;
      default:
        for (size_t i = 0; i < run; ++i) bytes.push_back(static_cast<char>(random() >> (i % 8)));
    }
  }
  return bytes;
}

}  // namespace crosvm::test
