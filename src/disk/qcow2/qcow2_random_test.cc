// Random requests to images of every kind do what they do to a flat array of bytes; qemu-img
// agrees.

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>

#include "base/format.h"
#include "disk/flat_model.h"
#include "disk/qcow2/qcow2_rig.h"
#include "disk/qcow2/qemu_img.h"

namespace crosvm {
namespace {

using test::FlatModel;
using test::MemoryFile;
using test::Qcow2Rig;
using test::QemuImg;
using test::TestRequest;
using Kind = DiskRequest::Kind;
using Bytes = std::vector<std::byte>;

bool is_full() { return std::getenv("CROSVM_TEST_FULL") != nullptr; }

/// One image, its model, and what is on its way.
class RandomImage {
 public:
  explicit RandomImage(uint64_t seed) : random_(seed), rig_(seed) { choose(seed); }

  void run(int operations) {
    if (starts_with_qemu_) {
      make_with_qemu();
    } else {
      rig_.make(options_);
    }
    rig_.open();
    ASSERT_EQ(rig_.disk->size(), options_.size);
    for (int i = 0; i < operations && !testing::Test::HasFatalFailure(); ++i) step();
    drain();
    if (testing::Test::HasFatalFailure()) return;
    adopt();
    rig_.close();
    rig_.expect_clean();
    if (QemuImg::is_there()) ask_qemu();
  }
  std::string text() const {
    return format_text(
        "version {} cluster {} refcount {} extended {} size {} backing {} data {} "
        "qemu {} compressed {} snapshot {} preallocation {}",
        options_.version, options_.cluster_size, options_.refcount_bits, options_.extended_l2,
        options_.size, rig_.backing != nullptr, rig_.data_file != nullptr, starts_with_qemu_,
        compressed_, snapshot_, static_cast<int>(options_.preallocation));
  }

 private:
  uint64_t below(uint64_t limit) { return random_() % limit; }

  void choose(uint64_t seed) {
    options_.cluster_size = 512ULL << (seed % 13);
    if (options_.cluster_size > 65536 && below(3) != 0) options_.cluster_size = 65536;
    options_.version = below(5) == 0 ? 2 : 3;
    if (options_.version == 3) {
      options_.refcount_bits = 1U << below(7);
      options_.extended_l2 = options_.cluster_size >= 16384 && below(2) == 0;
      options_.lazy_refcounts = below(4) == 0;
    }
    options_.size =
        (1 + below(std::min<uint64_t>(options_.cluster_size * 64, 8 << 20) / 512)) * 512;
    const uint64_t kind = below(4);
    starts_with_qemu_ = QemuImg::is_there() && kind == 0;
    if (kind == 1) {
      make_backing(512 * (1 + below(options_.size / 256)));
    } else if (kind == 2 && options_.version == 3 && below(2) == 0) {
      rig_.data_file = std::make_unique<MemoryFile>(0);
      options_.data_file_name = "data.raw";
      options_.raw_data = below(2) == 0;
    }
    const bool may_preallocate = kind != 1 || options_.extended_l2;
    if (may_preallocate) options_.preallocation = static_cast<Qcow2Preallocation>(below(4));
    const bool is_preallocated = options_.preallocation != Qcow2Preallocation::kOff;
    if (rig_.data_file && (options_.raw_data || is_preallocated)) {
      rig_.data_file->resize(options_.size);
    }
    rig_.limits.l2_bytes = below(2) == 0 ? 0 : 16 << 20;
    rig_.limits.block_bytes = below(2) == 0 ? 1 << 20 : 8 << 20;
    Bytes bytes = rig_.backing ? rig_.backing->bytes() : Bytes();
    bytes.resize(options_.size);
    model_.start(std::move(bytes));
  }

  void make_backing(uint64_t size) {
    Bytes bytes(size);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random_() % 3);
    rig_.backing = std::make_unique<MemoryFile>();
    rig_.backing->set_bytes(std::move(bytes));
    options_.backing_name = "backing.raw";
    options_.backing_format = "raw";
  }

  /// An image that qemu-img has filled, perhaps compressed, perhaps with a snapshot.
  void make_with_qemu() {
    Bytes bytes(options_.size);
    for (uint64_t at = 0; at < bytes.size(); at += 4096) {
      if (below(3) != 0) continue;
      const size_t end = std::min<size_t>(bytes.size(), at + 4096);
      for (size_t i = at; i < end; ++i) bytes[i] = static_cast<std::byte>(i / 7 + at);
    }
    qemu_.save("start.raw", bytes);
    compressed_ = below(2) == 0;
    std::string options = format_text("compat={},cluster_size={},refcount_bits={}",
                                      options_.version == 2 ? "0.10" : "1.1", options_.cluster_size,
                                      options_.version == 2 ? 16 : options_.refcount_bits);
    if (options_.extended_l2) options += ",extended_l2=on";
    if (options_.lazy_refcounts) options += ",lazy_refcounts=on";
    if (compressed_ && options_.version == 3 && below(2) == 0) options += ",compression_type=zstd";
    // Few bits do not count the uses of a cluster twice, above all one of many compressed ones.
    snapshot_ = options_.refcount_bits > (compressed_ ? 8 : 1) && below(2) == 0;
    ASSERT_EQ(qemu_.run(format_text("convert {} -f raw -O qcow2 -o {} start.raw test.qcow2",
                                    compressed_ ? "-c" : "", options)),
              0)
        << qemu_.said();
    if (snapshot_) {
      ASSERT_EQ(qemu_.run("snapshot -c before test.qcow2"), 0) << qemu_.said();
    }
    snapshot_bytes_ = bytes;
    model_.start(std::move(bytes));
    rig_.file.set_bytes(qemu_.load("test.qcow2"));
  }

  bool overlaps(uint64_t offset, uint64_t length) const {
    return std::ranges::any_of(running_, [&](const auto& request) {
      return offset < request->offset + request->length && request->offset < offset + length;
    });
  }

  void step() {
    reap();
    const uint64_t what = below(100);
    if (what < 2) return reopen();
    if (what < 3) return resize();
    if (running_.size() >= 8 || what < 20) {
      rig_.queue.end_one();
      return;
    }
    if (what < 23) return begin(Kind::kFlush, 0, 0);
    uint64_t length = 1 + below(below(4) == 0 ? options_.cluster_size * 4 : 8192);
    const uint64_t offset = below(options_.size);
    length = std::min(length, options_.size - offset);
    if (overlaps(offset, length)) return;
    if (what < 55) return begin(Kind::kWrite, offset, length);
    if (what < 75) return begin(Kind::kRead, offset, length);
    if (what < 85) return begin(Kind::kWriteZeroes, offset, length);
    if (what < 95) return begin(Kind::kDiscard, offset, length);
    begin(Kind::kExtent, offset, length);
  }

  void begin(Kind kind, uint64_t offset, uint64_t length) {
    running_.push_back(std::make_unique<TestRequest>(kind, offset, length));
    TestRequest& request = *running_.back();
    request.may_unmap = below(2) == 0;
    if (kind == Kind::kWrite) {
      for (std::byte& byte : request.bytes) byte = static_cast<std::byte>(random_());
    }
    rig_.disk->start(request);
    rig_.disk->submit();
  }

  void reap() {
    for (auto& request : running_) {
      if (request->result >= 0) ended(*request);
    }
    std::erase_if(running_, [](const auto& request) { return request->result >= 0; });
  }

  void ended(const TestRequest& request) {
    ASSERT_EQ(request.result, 0) << text();
    expect_right(model_.ended(request, request.bytes));
  }

  void expect_right(std::optional<uint64_t> wrong) const {
    ASSERT_FALSE(wrong) << text() << ": byte " << *wrong;
  }

  void drain() {
    while (rig_.queue.end_one()) {
    }
    reap();
    ASSERT_TRUE(running_.empty()) << "never told";
  }

  /// What discards have left counts from now on.
  void adopt() {
    TestRequest request(Kind::kRead, 0, options_.size);
    ASSERT_EQ(rig_.run(request), 0);
    expect_right(model_.settle(std::move(request.bytes)));
  }

  void reopen() {
    drain();
    adopt();
    rig_.close();
    rig_.expect_clean();
    rig_.open();
    adopt();
  }

  void resize() {
    drain();
    if (snapshot_) return;
    const uint64_t size = 512 * (1 + below(options_.size / 256));
    ASSERT_EQ(rig_.resize(size), 0) << text();
    options_.size = size;
    model_.resize(size);
  }

  void ask_qemu() {
    qemu_.save("test.qcow2", rig_.file.bytes());
    if (rig_.backing) qemu_.save("backing.raw", rig_.backing->bytes());
    if (rig_.data_file) qemu_.save("data.raw", rig_.data_file->bytes());
    ASSERT_EQ(qemu_.run("check -f qcow2 test.qcow2"), 0) << text() << "\n" << qemu_.said();
    ASSERT_EQ(qemu_.run("convert -f qcow2 -O raw test.qcow2 now.raw"), 0) << qemu_.said();
    EXPECT_TRUE(qemu_.load("now.raw") == model_.bytes()) << text();
    if (options_.raw_data) {
      EXPECT_TRUE(qemu_.load("data.raw") == model_.bytes()) << text();
    }
    if (!snapshot_) return;
    ASSERT_EQ(qemu_.run("convert -f qcow2 -l before -O raw test.qcow2 before.raw"), 0)
        << qemu_.said();
    EXPECT_TRUE(qemu_.load("before.raw") == snapshot_bytes_) << text();
  }

  std::mt19937_64 random_;
  Qcow2Rig rig_;
  Qcow2CreateOptions options_;
  bool starts_with_qemu_ = false;
  bool compressed_ = false;
  bool snapshot_ = false;
  FlatModel model_;
  Bytes snapshot_bytes_;
  std::vector<std::unique_ptr<TestRequest>> running_;
  QemuImg qemu_;
};

TEST(Qcow2RandomTest, RandomRequestsDoWhatAFlatModelDoes) {
  const uint64_t images = is_full() ? 300 : 40;
  for (uint64_t seed = 0; seed < images && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    RandomImage image(seed);
    image.run(is_full() ? 10'000 : 600);
    if (HasFailure()) ADD_FAILURE() << image.text();
  }
}

}  // namespace
}  // namespace crosvm
