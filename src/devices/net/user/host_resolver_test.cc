#include "devices/net/user/host_resolver.h"

#include <gtest/gtest.h>

namespace crosvm {
namespace {

std::string resolver(std::string_view text, bool v6 = false) {
  const auto found = resolver_in(text, v6);
  return found ? found->to_text() : "";
}

TEST(HostResolverTest, TheFirstOfAFamily) {
  constexpr std::string_view kText =
      "# nameserver 1.1.1.1\nsearch example.org\nnameserver\t192.0.2.1\r\nnameserver 192.0.2.2\n"
      "nameserver  2001:db8::1 # of the site\nnameserver 2001:db8::2";
  EXPECT_EQ(resolver(kText), "192.0.2.1");
  EXPECT_EQ(resolver(kText, true), "2001:db8::1");
  EXPECT_EQ(resolver("nameserver 127.0.0.53"), "127.0.0.53");
}

TEST(HostResolverTest, None) {
  for (const char* text : {"", "\n", "nameserver", "nameserver ", "nameserver192.0.2.1",
                           " nameserver 192.0.2.1", "nameserver host", "nameserver 2001:db8::1"}) {
    EXPECT_EQ(resolver(text), "") << text;
  }
  EXPECT_EQ(resolver("nameserver fe80::1%eth0\nnameserver 2001:db8::1", true), "")
      << "the library asks the first";
}

}  // namespace
}  // namespace crosvm
