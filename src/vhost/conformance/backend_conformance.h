#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "virtio/device_backend.h"
#include "virtio/rig/rig.h"

namespace crosvm {

/// What a backend can do beyond the verbs with split rings.
struct BackendAbilities {
  bool packed = false;
  bool config = false;       ///< eight bytes or more that take what the driver writes
  bool needs_reset = false;  ///< the listener hears of a broken ring
  bool many_queues = false;  ///< subjects with `queues` up to 16
};

/// What a subject is made with.
struct SubjectOptions {
  uint16_t queues = 2;
  bool late = false;  ///< requests are answered in another order, later
};

/// A device that runs somewhere behind a backend, with requests whose answers can be told from any
/// others. Outlives the backend.
class BackendSubject {
 public:
  virtual ~BackendSubject() = default;
  /// Once.
  virtual std::unique_ptr<DeviceBackend> take_backend() = 0;
  /// The queue for requests: one of those that a driver may use alone.
  virtual uint16_t queue() const { return 0; }
  virtual std::vector<RigBuffer> request(unsigned number) = 0;
  /// Fails the test when `used` is not what becomes of `request(number)`.
  virtual void expect_answer(const RigUsed& used, unsigned number) = 0;
};

/// A way to run a device.
struct BackendMaker {
  std::string name;  ///< letters and digits
  BackendAbilities abilities;
  /// Why it cannot run on this host, if so: the tests are skipped with these words.
  std::function<std::string()> missing;
  std::function<std::unique_ptr<BackendSubject>(const SubjectOptions&)> make;

  friend void PrintTo(const BackendMaker& maker, std::ostream* to) { *to << maker.name; }
};

/// The rules of DeviceBackend, tested the same for every backend. A test program that links
/// `vhost_conformance` adds its makers:
///
///     INSTANTIATE_TEST_SUITE_P(Workers, BackendConformance, testing::ValuesIn(makers()),
///                              name_of_maker);
class BackendConformance : public testing::TestWithParam<BackendMaker> {
 protected:
  void SetUp() override;
  /// A rig around a new subject.
  Rig make_rig(const RigOptions& options = {}, const SubjectOptions& subject = {});
  RigDriver& driver(Rig& rig) const { return rig.driver(subject_->queue()); }
  /// Sends a request and waits for its answer.
  void exchange(Rig& rig);
  void exchange(Rig& rig, uint16_t queue);
  /// Until the device has seen all verbs so far: it stops and starts another queue.
  void settle(Rig& rig) const;
  BackendSubject& subject() { return *subject_; }
  unsigned next_number() { return ++number_; }

 private:
  std::unique_ptr<BackendSubject> subject_;
  unsigned number_ = 0;
};

std::string name_of_maker(const testing::TestParamInfo<BackendMaker>& info);

/// An EchoDevice in this process, on a thread of its own.
BackendMaker local_maker();
/// An EchoDevice in this process behind VhostUserServer, and VhostUserBackend before it.
BackendMaker vhost_user_maker();
/// The kernel's network device on a tap: needs /dev/vhost-net, /dev/net/tun and CAP_NET_ADMIN.
BackendMaker vhost_net_maker();

}  // namespace crosvm
