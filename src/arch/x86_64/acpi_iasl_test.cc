#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>

#include "arch/x86_64/acpi_test_util.h"
#include "base/format.h"

/// What ACPICA, the interpreter inside Linux, says of our tables.
namespace crosvm::x86_64 {
namespace {

using testing::HasSubstr;
using testing::Not;

struct Ran {
  int status = -1;
  std::string output;  // both streams
};

Ran run(const std::string& command) {
  Ran ran;
  std::FILE* pipe = ::popen((command + " 2>&1 </dev/null").c_str(), "re");
  if (pipe == nullptr) return ran;
  char chunk[4096];
  while (size_t got = std::fread(chunk, 1, sizeof(chunk), pipe)) ran.output.append(chunk, got);
  const int status = ::pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

class AcpicaTest : public testing::Test {
 protected:
  void SetUp() override {
    if (run("command -v iasl && command -v acpiexec").status != 0)
      GTEST_SKIP() << "iasl and acpiexec are missing: install the package acpica-tools";
    std::string name = testing::TempDir() + "/acpica-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  std::string save(const std::string& name, const TableBytes& bytes) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  static TableBytes load(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    TableBytes bytes;
    for (std::istreambuf_iterator<char> at(file), end; at != end; ++at)
      bytes.push_back(static_cast<std::byte>(*at));
    return bytes;
  }

  /// Disassembles a table and compiles the result, which must raise nothing at all; what iasl
  /// understood of a data table must be what we wrote.
  void check(const FoundTable& table) const {
    SCOPED_TRACE(table.signature);
    const std::string ours = save(table.signature + ".aml", table.bytes);
    const std::string again = folder_ + "/again";
    const Ran taken_apart = run("iasl -p " + again + " -d " + ours);
    EXPECT_EQ(taken_apart.status, 0) << taken_apart.output;
    for (const char* complaint : {"Warning", "Error", "ncorrect checksum", "nvalid"})
      EXPECT_THAT(taken_apart.output, Not(HasSubstr(complaint)));
    const Ran compiled = run("iasl -we -p " + again + " " + again + ".dsl");
    EXPECT_EQ(compiled.status, 0);
    EXPECT_THAT(compiled.output, HasSubstr("0 Errors, 0 Warnings, 0 Remarks"));
    if (table.signature == "DSDT") return;  // iasl may choose other encodings
    TableBytes theirs = load(again + ".aml");
    ASSERT_EQ(theirs.size(), table.bytes.size());
    if (table.signature != "FACS") {  // iasl puts its own name in the header
      std::copy_n(&table.bytes[9], 1, &theirs[9]);
      std::copy_n(&table.bytes[28], 8, &theirs[28]);
    }
    EXPECT_EQ(theirs, table.bytes);
  }

  void check_all(const AcpiConfig& config) const {
    const GuestMemory memory = make_low_memory();
    auto written = write_acpi(memory, kTestBase, kTestEnd, config);
    ASSERT_TRUE(written) << written.error().what();
    for (const FoundTable& table : walk_tables(memory)) check(table);
  }

  /// What acpiexec prints for commands on our DSDT.
  std::string execute(const AcpiConfig& config, const std::string& commands) const {
    const std::string path = save("dsdt.aml", build_dsdt(config));
    const Ran ran = run("cd " + folder_ + " && acpiexec -b '" + commands + "' " + path);
    EXPECT_EQ(ran.status, 0) << ran.output;
    return ran.output;
  }

  std::string folder_;
};

TEST_F(AcpicaTest, TakesTheTablesOfMachinesWithoutPci) {
  for (uint32_t vcpus : {1u, 2u, 4u, 64u, 300u}) {
    SCOPED_TRACE(vcpus);
    check_all(plain_config(vcpus));
  }
}

TEST_F(AcpicaTest, TakesTheTablesOfMachinesWithPci) {
  for (uint32_t vcpus : {1u, 300u}) {
    AcpiConfig config = plain_config(vcpus);
    config.low_power_s0 = true;
    for (const AcpiPci& pci : {small_pci(), crowded_pci()}) {
      SCOPED_TRACE(format_text("{} vCPUs, {} functions", vcpus, pci.functions.size()));
      config.pci = pci;
      check_all(config);
    }
  }
}

TEST_F(AcpicaTest, TakesManyWindowsAndNone) {
  AcpiConfig config = plain_config(2);
  config.pci = small_pci();
  config.pci->irqs.clear();
  config.pci->functions.clear();
  config.pci->mmio.clear();
  check_all(config);
  for (uint64_t i = 0; i < 6; ++i) {
    config.pci->mmio.push_back({{0x80000000 + i * 0x2000000}, 0x1000000});
    config.pci->mmio.push_back({{(i + 1) << 36}, 0x100000000});
  }
  config.pci->ecam = {{0xE0000000}, 0x10000000};
  config.pci->vcfg = {0x3FFFE0000000};
  check_all(config);
}

TEST_F(AcpicaTest, TakesTheUsersTablesMergedIntoOurs) {
  AcpiConfig config = plain_config(2);
  TableBytes fadt = build_fadt(config, {}, {});
  const TableBytes entry = interrupt_overrides_of(make_table("APIC", 5,
                                                             TableBytes{{},
                                                                        {},
                                                                        {},
                                                                        {},
                                                                        {},
                                                                        {},
                                                                        {},
                                                                        {},
                                                                        std::byte{2},
                                                                        std::byte{10},
                                                                        {},
                                                                        std::byte{9},
                                                                        std::byte{9},
                                                                        {},
                                                                        {},
                                                                        {},
                                                                        std::byte{13},
                                                                        {}}))
                               .value()
                               .at(0);
  TableBytes madt = build_madt(config);
  madt.insert(madt.end(), entry.begin(), entry.end());
  seal_table(madt);
  auto user = sort_user_tables({{"facp", fadt}, {"apic", madt}});
  ASSERT_TRUE(user) << user.error().what();
  config.user = *std::move(user);
  check_all(config);
}

constexpr const char* kPciOsc = "(5B 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66)";
constexpr const char* kOtherOsc = "(5C 4D DB 33 F7 1F 1C 40 96 57 74 41 C0 3D D7 66)";

TEST_F(AcpicaTest, OscGrantsAllButShpcHotplugAndAer) {
  AcpiConfig config = plain_config(1);
  config.pci = small_pci();
  const auto osc = [](const char* uuid) {
    return format_text(R"(execute \_SB_.PC00._OSC {} 1 3 (00 00 00 00 1F 01 00 00 FF 00 00 00))",
                       uuid);
  };
  const std::string output = execute(config, osc(kPciOsc) + ";" + osc(kOtherOsc));
  EXPECT_THAT(output, HasSubstr("00 00 00 00 1F 01 00 00 15 00 00 00"));
  EXPECT_THAT(output, HasSubstr("04 00 00 00 1F 01 00 00 FF 00 00 00"));
}

TEST_F(AcpicaTest, TheBridgeRoutesItsPinsAndCoversItsWindows) {
  AcpiConfig config = plain_config(1);
  config.pci = small_pci();
  config.pci->irqs = {{.bus = 0, .device = 2, .function = 3, .pin = 3, .gsi = 11},
                      {.bus = 1, .device = 5, .function = 0, .pin = 0, .gsi = 12}};
  const std::string output = execute(config, R"(execute \VCFG; resources \_SB_.PC00)");
  EXPECT_THAT(output, HasSubstr("0000000100000000"));            // VCFG
  EXPECT_THAT(output, HasSubstr("Address : 0000000000020003"));  // the function, not "any"
  EXPECT_THAT(output, Not(HasSubstr("0000000000050000")));       // behind a bridge
  EXPECT_THAT(output, HasSubstr("Source Index : 0000000B"));     // the GSI
  EXPECT_THAT(output, HasSubstr("Address Maximum : 003F"));
  EXPECT_THAT(output, HasSubstr("Address Minimum : 0CF8"));
  EXPECT_THAT(output, HasSubstr("Address Maximum : F3FFFFFF"));
  EXPECT_THAT(output, HasSubstr("Address Maximum : 000003FFFFFFFFFF"));
}

TEST_F(AcpicaTest, FunctionsOnBus0AreDevices) {
  AcpiConfig config = plain_config(1);
  config.pci = crowded_pci();
  // Device 1 function 2; the bridge at device 8 function 7, named after its secondary bus.
  const std::string output = execute(config, R"(execute \_SB_.PC00.PE0A._ADR;)"
                                             R"(execute \_SB_.PC00.PC09._ADR;)"
                                             R"(execute \_SB_.PC00.PE0A._PRW)");
  EXPECT_THAT(output, HasSubstr("0000000000010002"));
  EXPECT_THAT(output, HasSubstr("0000000000080007"));
  EXPECT_THAT(output, HasSubstr("0000000000000003"));
}

}  // namespace
}  // namespace crosvm::x86_64
