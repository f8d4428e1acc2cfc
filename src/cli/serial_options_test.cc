#include "cli/serial_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace crosvm {
namespace {

using ::testing::HasSubstr;
using Type = SerialConfig::Type;
using Hardware = SerialConfig::Hardware;

std::string error_of(std::string_view text) {
  auto port = parse_serial(text);
  return port ? "no error" : port.error().what();
}

Result<std::vector<SerialConfig>> complete(std::vector<std::string_view> texts) {
  std::vector<SerialConfig> ports;
  for (std::string_view text : texts) ports.push_back(TRY(parse_serial(text)));
  TRY(complete_serial(ports));
  return ports;
}

std::string conflict_of(std::vector<std::string_view> texts) {
  auto ports = complete(std::move(texts));
  return ports ? "no error" : ports.error().what();
}

TEST(SerialOptionsTest, ReadsEveryKey) {
  auto port = parse_serial(
      "type=unix-stream,hardware=serial,num=2,name=log,path=/run/s,input-unix-stream,console,"
      "earlycon,out-timestamp,debugcon-port=0x403");
  ASSERT_TRUE(port) << port.error().what();
  EXPECT_EQ(port->type, Type::kUnixStream);
  EXPECT_EQ(port->num, 2);
  EXPECT_EQ(port->name, "log");
  EXPECT_EQ(port->path, "/run/s");
  EXPECT_TRUE(port->input_unix_stream && port->console && port->earlycon && port->out_timestamp);
  EXPECT_EQ(port->debugcon_port, 0x403);
}

TEST(SerialOptionsTest, DefaultsToASinkOnCom1) {
  auto port = parse_serial("");
  ASSERT_TRUE(port);
  EXPECT_EQ(port->type, Type::kSink);
  EXPECT_EQ(port->hardware, Hardware::kSerial);
  EXPECT_EQ(port->num, 1);
  EXPECT_FALSE(port->console || port->earlycon || port->stdin_input || port->out_timestamp);
  EXPECT_EQ(port->debugcon_port, 0x402);
}

TEST(SerialOptionsTest, TypeMayGoWithoutItsKey) {
  EXPECT_EQ(parse_serial("stdout,stdin")->type, Type::kStdout);
  EXPECT_EQ(parse_serial("syslog,console=true")->type, Type::kSyslog);
  EXPECT_THAT(error_of("printer"), HasSubstr("unknown variant `printer`, expected one of `file`"));
}

TEST(SerialOptionsTest, OldUnderscoresAreAliases) {
  auto port = parse_serial("hardware=debugcon,out_timestamp=true,debugcon_port=1026,num=9");
  ASSERT_TRUE(port) << port.error().what();
  EXPECT_TRUE(port->out_timestamp);
  EXPECT_EQ(port->debugcon_port, 1026);
  EXPECT_EQ(error_of("out_timestamp,out-timestamp"), "duplicate field `out-timestamp`");
}

TEST(SerialOptionsTest, RefusesWhatContradictsItself) {
  EXPECT_THAT(error_of("input=/dev/null,stdin"), HasSubstr("input and stdin"));
  EXPECT_THAT(error_of("num=0"), HasSubstr("use 1 to 4"));
  EXPECT_THAT(error_of("num=5"), HasSubstr("use 1 to 4"));
  EXPECT_THAT(error_of("num=256"), HasSubstr("num: `256` is not within 0 to 255"));
  EXPECT_THAT(error_of("hardware=debugcon,num=0"), HasSubstr("start at 1"));
  EXPECT_THAT(error_of("pci-address=00:01.0"), HasSubstr("virtio-console only"));
  EXPECT_THAT(error_of("max-queue-sizes=[8,8]"), HasSubstr("virtio-console only"));
  EXPECT_THAT(error_of("speed=9600"), HasSubstr("unknown field `speed`"));
}

TEST(SerialOptionsTest, ReadsVirtioConsole) {
  auto port = parse_serial(
      "hardware=virtio-console,num=200,name=agent,pci-address=00:1f.0,max-queue-sizes=[64,1024]");
  ASSERT_TRUE(port) << port.error().what();
  EXPECT_EQ(port->hardware, Hardware::kVirtioConsole);
  EXPECT_EQ(port->num, 200);
  EXPECT_EQ(port->name, "agent");
  EXPECT_EQ(port->pci_address, "00:1f.0");
  EXPECT_EQ(port->max_queue_sizes, (std::vector<uint16_t>{64, 1024}));
  EXPECT_EQ(parse_serial("hardware=legacy-virtio-console")->hardware, Hardware::kVirtioConsole);
}

TEST(SerialOptionsTest, RefusesWhatVirtioConsoleCannotBe) {
  const std::string console = "hardware=virtio-console,";
  EXPECT_THAT(error_of(console + "num=0"), HasSubstr("start at 1"));
  EXPECT_THAT(error_of(console + "pci-address=00:40.0"), HasSubstr("pci-address"));
  for (const char* sizes : {"[]", "[256]", "[256,256,256]", "[100,256]", "[256,0]"}) {
    EXPECT_THAT(error_of(console + "max-queue-sizes=" + sizes),
                HasSubstr("the receive and the transmit queue"))
        << sizes;
  }
  EXPECT_THAT(error_of(console + "name=\"\""), HasSubstr("name has 0 bytes"));
  EXPECT_THAT(error_of(console + "name=" + std::string(256, 'n')), HasSubstr("give 1 to 255"));
  EXPECT_EQ(error_of(console + "name=" + std::string(255, 'n')), "no error");
}

TEST(SerialOptionsTest, EveryVmHasFourPortsAndAConsole) {
  auto ports = complete({});
  ASSERT_TRUE(ports);
  ASSERT_EQ(ports->size(), 4u);
  EXPECT_EQ((*ports)[0].type, Type::kStdout);
  EXPECT_TRUE((*ports)[0].console && (*ports)[0].stdin_input);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_EQ((*ports)[i].type, Type::kSink);
    EXPECT_EQ((*ports)[i].num, i + 1);
    EXPECT_FALSE((*ports)[i].console || (*ports)[i].stdin_input);
  }
}

TEST(SerialOptionsTest, AConsoleElsewhereLeavesCom1ASink) {
  auto ports = complete({"type=stdout,num=3,console"});
  ASSERT_TRUE(ports);
  EXPECT_EQ((*ports)[0].type, Type::kSink);
  EXPECT_EQ((*ports)[2].type, Type::kStdout);
}

TEST(SerialOptionsTest, AConfiguredCom1StaysAsItIs) {
  auto ports = complete({"type=sink,num=1"});
  ASSERT_TRUE(ports);
  EXPECT_EQ((*ports)[0].type, Type::kSink);
  EXPECT_FALSE((*ports)[0].console);
}

TEST(SerialOptionsTest, APortThatReadsStdinKeepsIt) {
  auto ports = complete({"type=stdout,num=2,stdin"});
  ASSERT_TRUE(ports);
  EXPECT_TRUE((*ports)[0].console);
  EXPECT_FALSE((*ports)[0].stdin_input);
  EXPECT_TRUE((*ports)[1].stdin_input);
}

TEST(SerialOptionsTest, PortsAreOrderedByHardwareAndNumber) {
  auto ports = complete({"hardware=debugcon,num=1", "hardware=virtio-console,num=9",
                         "hardware=virtio-console,num=2", "num=4,console", "num=2,console"});
  ASSERT_TRUE(ports);
  ASSERT_EQ(ports->size(), 7u);
  for (uint8_t i = 0; i < 4; ++i) EXPECT_EQ((*ports)[i].num, i + 1);
  EXPECT_EQ((*ports)[4].hardware, Hardware::kVirtioConsole);
  EXPECT_EQ((*ports)[4].num, 2);
  EXPECT_EQ((*ports)[5].num, 9);
  EXPECT_EQ((*ports)[6].hardware, Hardware::kDebugcon);
}

TEST(SerialOptionsTest, PortsMustNotDisagree) {
  EXPECT_THAT(conflict_of({"num=2", "stdout,num=2"}), HasSubstr("serial 2 is given twice"));
  EXPECT_EQ(conflict_of({"num=1", "hardware=debugcon,num=1"}), "no error");
  EXPECT_THAT(conflict_of({"num=1,earlycon", "num=2,earlycon"}), HasSubstr("both have earlycon"));
  EXPECT_THAT(conflict_of({"hardware=debugcon,earlycon"}), HasSubstr("earlycon needs"));
  EXPECT_THAT(conflict_of({"stdin", "num=2,stdin"}), HasSubstr("both read stdin"));
  EXPECT_THAT(conflict_of({"stdin", "hardware=virtio-console,stdin"}),
              HasSubstr("both read stdin"));
  EXPECT_THAT(conflict_of({"hardware=virtio-console,earlycon"}), HasSubstr("earlycon needs"));
  EXPECT_THAT(conflict_of({"hardware=virtio-console", "hardware=legacy-virtio-console"}),
              HasSubstr("virtio-console 1 is given twice"));
  EXPECT_THAT(conflict_of({"hardware=virtio-console,type=file"}), HasSubstr("needs path"));
  EXPECT_THAT(conflict_of({"file"}), HasSubstr("type=file needs path"));
  EXPECT_THAT(conflict_of({"unix"}), HasSubstr("type=unix needs path"));
  EXPECT_THAT(conflict_of({"stdout,input-unix-stream"}), HasSubstr("needs type=unix-stream"));
  EXPECT_THAT(conflict_of({"unix-stream,path=/s,input-unix-stream,input=/i"}),
              HasSubstr("cannot both be given"));
}

}  // namespace
}  // namespace crosvm
