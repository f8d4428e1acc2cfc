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

ConsoleConfig device_config(const SerialConfig& port, const SerialEnds& ends) {
  ConsolePortConfig config;
  if (!ends.output_name.empty()) config.output = ends.output_name;
  if (!ends.input_name.empty()) config.input = ends.input_name;
  if (ends.keyboard) config.sizes = "terminal size";
  if (!has_hvc(port)) config.name = port.name;
  config.console = port.console;
  config.timestamp = port.out_timestamp && port.type != SerialConfig::Type::kUnix;
  ConsoleConfig device{.ports = {std::move(config)}};
  if (port.max_queue_sizes) {
    device.queue_sizes = {port.max_queue_sizes->at(0), port.max_queue_sizes->at(1)};
  }
  return device;
}

}  // namespace

ConsoleLink::~ConsoleLink() = default;

Result<std::unique_ptr<ConsoleLink>> ConsoleLink::open(const SerialConfig& port, size_t number,
                                                       const SerialHost& host) {
  std::unique_ptr<ConsoleLink> link(new ConsoleLink());
  SerialEnds ends = TRY(open_serial_ends(port, host));
  link->request_ = {.type = std::string(ConsoleFactory::kName),
                    .name = format_text("console{}", number),
                    .text = console_config_text(device_config(port, ends)),
                    .pci_address = port.pci_address};
  if (ends.line_output) {
    Pipe pipe = TRY(make_pipe());
    link->output_ =
        TRY(OutputPump::create(host.loop, std::move(pipe.read), std::move(ends.line_output)));
    ends.output = std::move(pipe.write);
  }
  ConsoleResources resources;
  if (ends.keyboard) {
    link->reads_terminal_ = true;
    Pipe sizes = TRY(make_pipe());
    link->sizes_ = std::move(sizes.write);
    resources.sizes.push_back(std::move(sizes.read));
    Pipe keys = TRY(make_pipe());
    link->input_ =
        std::make_unique<InputPump>(host.loop, std::move(ends.keyboard), std::move(keys.write));
    ends.input = std::move(keys.read);
  }
  if (ends.output) resources.outputs.push_back(std::move(ends.output));
  if (ends.input) resources.inputs.push_back(std::move(ends.input));
  link->device_ = TRY(opened_device<ConsoleFactory>(link->request_.text, std::move(resources)));
  return link;
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
