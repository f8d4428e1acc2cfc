#include "vmm/console_link.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "base/format.h"
#include "devices/console/console_device.h"
#include "vmm/console_pumps.h"

namespace crosvm {
namespace {

struct Pipe {
  Fd read;
  Fd write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return fail(Error::from_errno("creating", "a pipe to a console device"));
  }
  return Pipe{.read = Fd(ends[0]), .write = Fd(ends[1])};
}

/// A console without a name has no use for control queues, and its hvc number is settled when the
/// driver finds it; a name is for ports that programs of the guest open.
bool has_hvc(const SerialConfig& port) { return port.console || !port.name; }

ConsolePortConfig port_config(const SerialConfig& port, const SerialEnds& ends, bool alone) {
  ConsolePortConfig config;
  if (!ends.output_name.empty()) config.output = ends.output_name;
  if (!ends.input_name.empty()) config.input = ends.input_name;
  if (ends.keyboard) config.sizes = "terminal size";
  if (!alone || !has_hvc(port)) config.name = port.name;
  config.console = port.console;
  config.timestamp = port.out_timestamp && port.type != SerialConfig::Type::kUnix;
  return config;
}

}  // namespace

ConsoleLink::~ConsoleLink() = default;

Result<std::unique_ptr<ConsoleLink>> ConsoleLink::open(const SerialConfig& port, size_t number,
                                                       const SerialHost& host) {
  auto link = TRY(open(std::span(&port, 1), format_text("console{}", number), host));
  link->request_.pci_address = port.pci_address;
  return link;
}

Result<std::unique_ptr<ConsoleLink>> ConsoleLink::open(std::span<const SerialConfig> ports,
                                                       const std::string& name,
                                                       const SerialHost& host) {
  std::unique_ptr<ConsoleLink> link(new ConsoleLink());
  ConsoleConfig config;
  ConsoleResources resources;
  for (const SerialConfig& port : ports) {
    SerialEnds ends = TRY(open_serial_ends(port, host));
    config.ports.push_back(port_config(port, ends, ports.size() == 1));
    TRY(link->connect(std::move(ends), host, resources));
  }
  if (const auto& sizes = ports.front().max_queue_sizes) {
    config.queue_sizes = {sizes->at(0), sizes->at(1)};
  }
  link->request_ = {.type = std::string(ConsoleFactory::kName),
                    .name = name,
                    .text = console_config_text(config)};
  link->device_ = TRY(opened_device<ConsoleFactory>(link->request_.text, std::move(resources)));
  return link;
}

Result<void> ConsoleLink::connect(SerialEnds ends, const SerialHost& host,
                                  ConsoleResources& resources) {
  if (ends.line_output) {
    Pipe pipe = TRY(make_pipe());
    outputs_.push_back(
        TRY(OutputPump::create(host.loop, std::move(pipe.read), std::move(ends.line_output))));
    ends.output = std::move(pipe.write);
  }
  if (ends.keyboard) {
    reads_terminal_ = true;
    Pipe sizes = TRY(make_pipe());
    sizes_ = std::move(sizes.write);
    resources.sizes.push_back(std::move(sizes.read));
    Pipe keys = TRY(make_pipe());
    inputs_.push_back(
        std::make_unique<InputPump>(host.loop, std::move(ends.keyboard), std::move(keys.write)));
    ends.input = std::move(keys.read);
  }
  if (ends.output) resources.outputs.push_back(std::move(ends.output));
  if (ends.input) resources.inputs.push_back(std::move(ends.input));
  return {};
}

void ConsoleLink::resize(ConsoleSize size) {
  if (!sizes_) return;
  // A full pipe: the device has older sizes to read first, and SIGWINCH comes again.
  [[maybe_unused]] const ssize_t put = ::write(sizes_.get(), &size, sizeof(size));
}

std::vector<std::string> console_parameters(std::span<const SerialConfig> ports) {
  std::vector<std::string> parameters;
  size_t hvc = 0;
  for (const SerialConfig& port : ports) {
    if (port.hardware == SerialConfig::Hardware::kSerial && port.console) {
      parameters.push_back(format_text("ttyS{}", port.num - 1));
    }
    if (port.hardware != SerialConfig::Hardware::kVirtioConsole || !has_hvc(port)) continue;
    if (port.console) parameters.push_back(format_text("hvc{}", hvc));
    ++hvc;
  }
  return parameters;
}

}  // namespace crosvm
