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

TEST(SerialOptionsTest, RefusesVirtioConsoleUntilItIsBuilt) {
  EXPECT_THAT(error_of("hardware=virtio-console"), HasSubstr("not supported by this build yet"));
  EXPECT_THAT(error_of("hardware=legacy-virtio-console,num=1,pci-address=00:01.0"),
              HasSubstr("not supported by this build yet"));
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
  auto ports = complete({"hardware=debugcon,num=1", "num=4,console", "num=2,console"});
  ASSERT_TRUE(ports);
  ASSERT_EQ(ports->size(), 5u);
  for (uint8_t i = 0; i < 4; ++i) EXPECT_EQ((*ports)[i].num, i + 1);
  EXPECT_EQ((*ports)[4].hardware, Hardware::kDebugcon);
}

TEST(SerialOptionsTest, PortsMustNotDisagree) {
  EXPECT_THAT(conflict_of({"num=2", "stdout,num=2"}), HasSubstr("serial 2 is given twice"));
  EXPECT_EQ(conflict_of({"num=1", "hardware=debugcon,num=1"}), "no error");
  EXPECT_THAT(conflict_of({"num=1,earlycon", "num=2,earlycon"}), HasSubstr("both have earlycon"));
  EXPECT_THAT(conflict_of({"hardware=debugcon,earlycon"}), HasSubstr("earlycon needs"));
  EXPECT_THAT(conflict_of({"stdin", "num=2,stdin"}), HasSubstr("both read stdin"));
  EXPECT_THAT(conflict_of({"file"}), HasSubstr("type=file needs path"));
  EXPECT_THAT(conflict_of({"unix"}), HasSubstr("type=unix needs path"));
  EXPECT_THAT(conflict_of({"stdout,input-unix-stream"}), HasSubstr("needs type=unix-stream"));
  EXPECT_THAT(conflict_of({"unix-stream,path=/s,input-unix-stream,input=/i"}),
              HasSubstr("cannot both be given"));
}

}  // namespace
}  // namespace crosvm
