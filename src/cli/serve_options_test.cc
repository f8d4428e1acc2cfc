#include "cli/serve_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using testing::HasSubstr;

Result<ServeConfig> config_of(const std::vector<std::string_view>& arguments) {
  const CommandLine line = TRY(parse_command_line(root_command(), arguments));
  TRY(check_supported(line));
  return make_serve_config(line, TRY(read_serve_options(line)));
}
std::string error_of(const std::vector<std::string_view>& arguments) {
  auto config = config_of(arguments);
  return config ? "no error" : config.error().what();
}
BlockConfig disk_of(const ServedDevice& device) {
  return *BlockConfig::parse(*KeyValues::parse(device.text));
}

TEST(ServeOptionsTest, ADiskIsServedWithoutDiscard) {
  auto config = config_of(
      {"device", "--async-executor", "epoll", "block", "--file", "/d.img", "--socket-path", "/s"});
  ASSERT_TRUE(config) << config.error().what();
  ASSERT_EQ(config->devices.size(), 1u);
  EXPECT_FALSE(config->jailed);
  EXPECT_TRUE(config->confined);
  const ServedDevice& device = config->devices[0];
  EXPECT_EQ(device.type, "block");
  EXPECT_EQ(device.socket, "/s");
  EXPECT_EQ(device.fd, std::nullopt);
  EXPECT_EQ(disk_of(device).path, "/d.img");
  EXPECT_FALSE(disk_of(device).sparse);
  EXPECT_FALSE(disk_of(device).read_only);
  EXPECT_TRUE(disk_of(device).lock);
  EXPECT_EQ(disk_of(device).async_executor, AsyncExecutor::kEpoll);
}

TEST(ServeOptionsTest, ReadOnlyIsTheOneWordBehindTheFile) {
  auto config = config_of({"device", "block", "--file", "/d.img:read-only", "--fd", "7"});
  ASSERT_TRUE(config) << config.error().what();
  EXPECT_EQ(disk_of(config->devices[0]).path, "/d.img");
  EXPECT_TRUE(disk_of(config->devices[0]).read_only);
  EXPECT_EQ(config->devices[0].fd, 7u);
  EXPECT_THAT(error_of({"device", "block", "--file", "/d.img:rw", "--fd", "7"}),
              HasSubstr("`rw` is not known"));
  EXPECT_THAT(error_of({"device", "block", "--file", ":read-only", "--fd", "7"}),
              HasSubstr("path of an image"));
}

TEST(ServeOptionsTest, ExactlyOneSocket) {
  EXPECT_THAT(error_of({"device", "rng"}), HasSubstr("exactly one of --socket-path and --fd"));
  EXPECT_THAT(error_of({"device", "rng", "--fd", "3", "--socket-path", "s"}),
              HasSubstr("leave out the others"));
  EXPECT_THAT(error_of({"device", "rng", "--socket", "a", "--socket-path", "s"}),
              HasSubstr("leave out the others"));
  EXPECT_THAT(error_of({"device", "rng", "--fd", "three"}), HasSubstr("decimal number"));
  EXPECT_EQ(config_of({"device", "rng", "--socket", "/old"})->devices[0].socket, "/old");
}

TEST(ServeOptionsTest, AConsoleIsOnStdoutAndStdinUnlessToldOtherwise) {
  using Type = SerialConfig::Type;
  auto port_of = [](std::vector<std::string_view> arguments) {
    arguments.insert(arguments.begin(), {"device", "console", "--fd", "3"});
    return config_of(arguments)->devices[0].ports.at(0);
  };
  EXPECT_EQ(port_of({}).type, Type::kStdout);
  EXPECT_TRUE(port_of({}).stdin_input);
  EXPECT_EQ(port_of({"--syslog"}).type, Type::kSyslog);
  EXPECT_FALSE(port_of({"--syslog"}).stdin_input);
  EXPECT_EQ(port_of({"--output-file", "o"}).type, Type::kFile);
  EXPECT_EQ(port_of({"--output-file", "o"}).path, "o");
  EXPECT_TRUE(port_of({"--output-file", "o"}).stdin_input);
  EXPECT_EQ(port_of({"--input-file", "i"}).input, "i");
  EXPECT_FALSE(port_of({"--input-file", "i"}).stdin_input);
  EXPECT_THAT(error_of({"device", "console", "--fd", "3", "--syslog", "--output-file", "o"}),
              HasSubstr("--syslog and --output-file"));
}

TEST(ServeOptionsTest, PortsTakeThePlaceOfTheSingleConsole) {
  testing::internal::CaptureStderr();
  auto config =
      config_of({"device", "console", "--fd", "3", "--output-file", "ignored", "--port",
                 "type=file,path=a,console", "--port", "type=sink,name=agent,hardware=serial"});
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              testing::AllOf(HasSubstr("--output-file has no effect with --port"),
                             HasSubstr("--port: hardware= has no effect")));
  ASSERT_TRUE(config) << config.error().what();
  const auto& ports = config->devices[0].ports;
  ASSERT_EQ(ports.size(), 2u);
  EXPECT_EQ(ports[0].path, "a");
  EXPECT_TRUE(ports[0].console);
  EXPECT_EQ(ports[1].name, "agent");
  EXPECT_EQ(ports[1].hardware, SerialConfig::Hardware::kVirtioConsole);
  EXPECT_THAT(error_of({"device", "console", "--fd", "3", "--port", "stdin", "--port", "stdin"}),
              HasSubstr("two ports read stdin"));
  EXPECT_THAT(error_of({"device", "console", "--fd", "3", "--port", "type=file"}),
              HasSubstr("needs path"));
}

TEST(ServeOptionsTest, SeveralDevicesEachWithASocket) {
  auto config =
      config_of({"devices", "--block", "vhost=/b0,/d.img,ro", "--serial", "vhost=/s0,type=sink",
                 "--block", "vhost=/b1,path=/e.img", "--async-executor", "epoll", "--jail",
                 "/root,seccomp-policy-dir=/p,seccomp-log-failures"});
  ASSERT_TRUE(config) << config.error().what();
  ASSERT_EQ(config->devices.size(), 3u);
  EXPECT_EQ(config->devices[0].name, "serial-0");
  EXPECT_EQ(config->devices[0].type, "console");
  EXPECT_EQ(config->devices[1].name, "block-0");
  EXPECT_EQ(config->devices[1].socket, "/b0");
  EXPECT_TRUE(disk_of(config->devices[1]).read_only);
  EXPECT_TRUE(disk_of(config->devices[1]).sparse);
  EXPECT_EQ(config->devices[2].name, "block-1");
  EXPECT_EQ(disk_of(config->devices[2]).path, "/e.img");
  EXPECT_EQ(disk_of(config->devices[2]).async_executor, AsyncExecutor::kEpoll);
  EXPECT_TRUE(config->jailed);
  EXPECT_EQ(config->sandbox_options.pivot_root, "/root");
  EXPECT_EQ(config->sandbox_options.seccomp_policy_dir, "/p");
  EXPECT_TRUE(config->sandbox_options.seccomp_log_failures);
  const auto open = config_of({"devices", "--block", "vhost=s,d", "--disable-sandbox"});
  EXPECT_FALSE(open->jailed);
  EXPECT_FALSE(open->confined);
}

TEST(ServeOptionsTest, WhatIsNotBuiltIsRefusedByName) {
  EXPECT_THAT(error_of({"devices", "-s", "c", "--block", "vhost=s,d"}), HasSubstr("-s"));
  EXPECT_THAT(error_of({"devices", "--vsock", "vhost=s,cid=3"}), HasSubstr("--vsock"));
  EXPECT_THAT(error_of({"device", "gpu", "--fd", "3"}), HasSubstr("device gpu"));
}

TEST(ServeOptionsTest, NetworkCardsHaveASocketEach) {
  const auto config =
      config_of({"device", "net", "--tap-name", "/a.sock,tap0", "--tap-fd", "/b.sock,7", "--device",
                 "/c.sock,10.0.0.1,255.0.0.0,02:00:00:00:00:01", "--mrg-rxbuf"});
  ASSERT_TRUE(config);
  ASSERT_EQ(config->devices.size(), 3u);
  EXPECT_TRUE(config->confined);
  for (const ServedDevice& device : config->devices) {
    ASSERT_TRUE(device.net);
    EXPECT_EQ(device.type, "net");
    EXPECT_EQ(device.net->mrg_rxbuf, true);
  }
  EXPECT_EQ(config->devices[0].socket, "/a.sock");
  EXPECT_EQ(std::get<NetRequest::TapName>(config->devices[0].net->network).name, "tap0");
  EXPECT_EQ(config->devices[1].name, "net-1");
  EXPECT_EQ(std::get<NetRequest::TapFd>(config->devices[1].net->network).number, 7);
  EXPECT_EQ(std::get<TapAddress>(config->devices[2].net->network).ip, (Ipv4Address{10, 0, 0, 1}));
  const auto jailed = config_of({"devices", "--net", "vhost=/d.sock,tap-name=t,vq-pairs=2"});
  ASSERT_TRUE(jailed);
  EXPECT_TRUE(jailed->jailed);
  EXPECT_EQ(jailed->devices.at(0).socket, "/d.sock");
  EXPECT_EQ(jailed->devices.at(0).net->vq_pairs, 2);
}

TEST(ServeOptionsTest, NetworkCardsThatCannotBeAreRefused) {
  EXPECT_THAT(error_of({"device", "net"}), HasSubstr("no card to serve"));
  EXPECT_THAT(error_of({"devices", "--net", "vhost=s,tap-name=t,vhost-net"}),
              HasSubstr("vhost-net"));
  for (const char* value : {"tap0", ",tap0"}) {
    EXPECT_THAT(error_of({"device", "net", "--tap-name", value}), HasSubstr("--tap-name"));
  }
  EXPECT_THAT(error_of({"device", "net", "--tap-fd", "s,x"}), HasSubstr("--tap-fd"));
  for (const char* value : {"s,10.0.0.1", "s,10.0.0.1,255.0.0.0", "s,10.0.0.1,255.0.0.0,02:00"}) {
    EXPECT_THAT(error_of({"device", "net", "--device", value}), HasSubstr("--device"));
  }
}

TEST(ServeOptionsTest, TheSocketComesFirst) {
  auto whole = split_vhost("vhost=/a b,path=x,ro");
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->first, "/a b");
  EXPECT_EQ(whole->second, "path=x,ro");
  EXPECT_EQ(split_vhost("vhost=\"a,\\\"b\",c")->first, "a,\"b");
  EXPECT_EQ(split_vhost("vhost='a,b',c")->second, "c");
  EXPECT_EQ(split_vhost("vhost=/a")->second, "");
  for (const char* text : {"", "path=x,vhost=s", "vhost", "vhost=", "vhost=,x", "vhost='a",
                           "vhost='a'b,c", "vhost=\"", "vhost=\"a\\"}) {
    EXPECT_FALSE(split_vhost(text)) << text;
  }
}

TEST(ServeOptionsTest, SocketsOfTheHostAreNamed) {
  auto config = config_of({"device", "vsock", "--cid", "3", "--connect", "1024:/a", "--connect",
                           "1025/seqpacket:/b,c", "--listen", "22:/l", "--socket-path", "/s"});
  ASSERT_TRUE(config) << config.error().what();
  const ServedDevice& device = config->devices[0];
  EXPECT_EQ(device.type, "vsock");
  auto vsock = VsockConfig::parse(*KeyValues::parse(device.text));
  ASSERT_TRUE(vsock) << vsock.error().what();
  EXPECT_EQ(vsock->cid, 3u);
  EXPECT_EQ(vsock->connect.at(1), (VsockRule{.port = 1025, .seqpacket = true, .path = "/b,c"}));
  EXPECT_EQ(vsock->listen.at(0).port, 22u);

  auto several = config_of({"devices", "--vsock", "vhost=/s,cid=4,backend=user,connect=[1:/a]"});
  ASSERT_TRUE(several) << several.error().what();
  EXPECT_EQ(several->devices[0].name, "vsock-0");
  EXPECT_EQ(several->devices[0].socket, "/s");
}

TEST(ServeOptionsTest, TheKernelsSocketsAreNotServed) {
  const char* kInstead = "run the VM with --vsock";
  EXPECT_THAT(error_of({"device", "vsock", "--cid", "3", "--fd", "5"}), HasSubstr(kInstead));
  EXPECT_THAT(error_of({"devices", "--vsock", "vhost=/s,cid=4"}), HasSubstr(kInstead));
  EXPECT_THAT(error_of({"device", "vsock", "--cid", "3", "--vhost-socket", "/v", "--listen",
                        "22:/l", "--fd", "5"}),
              HasSubstr("leave out one or the other"));
  EXPECT_THAT(error_of({"device", "vsock", "--cid", "1", "--fd", "5"}), HasSubstr("--cid: cid=1"));
  EXPECT_THAT(error_of({"device", "vsock", "--cid", "3", "--listen", "l", "--fd", "5"}),
              HasSubstr("--listen: `l`"));
  EXPECT_THAT(error_of({"device", "vsock", "--cid", "3", "--connect", "1:/a", "--connect", "1:/b",
                        "--fd", "5"}),
              HasSubstr("given twice"));
}

}  // namespace
}  // namespace crosvm
