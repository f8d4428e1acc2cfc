#include "devices/vsock/vsock_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Backend = VsockConfig::Backend;

Result<VsockConfig> parse(std::string_view text) {
  return VsockConfig::parse(TRY(KeyValues::parse(text)));
}
std::string error_of(std::string_view text) {
  auto config = parse(text);
  return config ? "no error" : config.error().what();
}

TEST(VsockConfigTest, TheKernelsDevice) {
  const auto config = parse("3");
  ASSERT_TRUE(config) << config.error().what();
  EXPECT_EQ(config->cid, 3u);
  EXPECT_EQ(config->backend, Backend::kKernel);
  EXPECT_EQ(config->device, "/dev/vhost-vsock");
  EXPECT_EQ(config->queue_sizes, (std::array<uint16_t, 3>{256, 256, 256}));
  const auto all = parse("cid=4294967294,device=/dev/v,max-queue-sizes=[64,128,1]");
  ASSERT_TRUE(all) << all.error().what();
  EXPECT_EQ(all->cid, 4294967294u);
  EXPECT_EQ(all->device, "/dev/v");
  EXPECT_EQ(all->queue_sizes, (std::array<uint16_t, 3>{64, 128, 1}));
}

TEST(VsockConfigTest, Ours) {
  const auto config = parse(
      "cid=5,backend=user,connect=[1024:/run/a.sock,1025/seqpacket:m,\"9:/a b,[c]\"],"
      "listen=[22:/tmp/ssh]");
  ASSERT_TRUE(config) << config.error().what();
  EXPECT_EQ(config->backend, Backend::kUser);
  EXPECT_THAT(
      config->connect,
      testing::ElementsAre(VsockRule{.port = 1024, .seqpacket = false, .path = "/run/a.sock"},
                           VsockRule{.port = 1025, .seqpacket = true, .path = "m"},
                           VsockRule{.port = 9, .seqpacket = false, .path = "/a b,[c]"}));
  EXPECT_THAT(config->listen,
              testing::ElementsAre(VsockRule{.port = 22, .seqpacket = false, .path = "/tmp/ssh"}));
  EXPECT_TRUE(parse("5,backend=user")->connect.empty());  // nothing is reached
}

TEST(VsockConfigTest, ItsTextParsesToTheSame) {
  for (const char* text :
       {"3", "cid=9,device=/dev/v,max-queue-sizes=[1,2,4]", "cid=5,backend=user",
        "cid=5,backend=user,connect=[1:a,\"2/seqpacket:b\\\"\\\\ ,]\"],listen=[1:a:b,3:c]"}) {
    const auto config = parse(text);
    ASSERT_TRUE(config) << text << ": " << config.error().what();
    const auto again = parse(config->to_text());
    ASSERT_TRUE(again) << config->to_text() << ": " << again.error().what();
    EXPECT_EQ(*again, *config) << text;
  }
}

TEST(VsockConfigTest, ContextIdsThatNoGuestCanHave) {
  EXPECT_THAT(error_of("0"), HasSubstr("hypervisor"));
  EXPECT_THAT(error_of("1"), HasSubstr("own"));
  EXPECT_THAT(error_of("2"), HasSubstr("the host's"));
  EXPECT_THAT(error_of("4294967295"), HasSubstr("any"));
  EXPECT_THAT(error_of("4294967296"), AllOf(HasSubstr("32 bits"), HasSubstr("from 3 to")));
  EXPECT_THAT(error_of("18446744073709551615"), HasSubstr("32 bits"));
  EXPECT_THAT(error_of("device=/dev/v"), HasSubstr("missing field `cid`"));
}

TEST(VsockConfigTest, KeysThatDisagree) {
  EXPECT_THAT(error_of("3,backend=user,device=/dev/vhost-vsock"),
              HasSubstr("leave out one of the two"));
  EXPECT_THAT(error_of("3,connect=[1:a]"), HasSubstr("add backend=user"));
  EXPECT_THAT(error_of("3,backend=kernel,listen=[1:a]"), HasSubstr("add backend=user"));
  EXPECT_THAT(error_of("3,backend=user,connect=[1:a,1:b]"), HasSubstr("port 1 is given twice"));
  EXPECT_THAT(error_of("3,backend=user,connect=[1:a,1/seqpacket:b]"), HasSubstr("given twice"));
  EXPECT_THAT(error_of("3,backend=user,listen=[1:a,2:a]"), HasSubstr("path a is given twice"));
  EXPECT_THAT(error_of("3,max-queue-sizes=[256,256]"), HasSubstr("max-queue-sizes"));
  for (const char* sizes : {"[0,1,1]", "[1,3,1]", "[1,1,65535]"}) {
    EXPECT_THAT(error_of(std::string("3,max-queue-sizes=") + sizes),
                HasSubstr("not a power of two"));
  }
}

TEST(VsockConfigTest, RulesThatAreNone) {
  for (const char* rule : {"1024", ":/a", "x:/a", "0:/a", "4294967295:/a", "-1:/a",
                           "1024:", "1/stream:/a", "1/seqpacket/:/a", " 1:/a", "0x10:/a"}) {
    EXPECT_THAT(error_of(std::string("3,backend=user,connect=[\"") + rule + "\"]"),
                AllOf(HasSubstr("connect: `"), HasSubstr("PORT/seqpacket:PATH")))
        << rule;
  }
  std::string many = "3,backend=user,listen=[";
  for (int i = 1; i <= 65; ++i) many += std::to_string(i) + ":p" + std::to_string(i) + ",";
  many.back() = ']';
  EXPECT_THAT(error_of(many), HasSubstr("at most 64"));
}

}  // namespace
}  // namespace crosvm
