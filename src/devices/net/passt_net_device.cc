#include "devices/net/passt_net_device.h"

#include <utility>

#include "devices/net/net_device.h"
#include "devices/net/stream_connector.h"
#include "devices/net/stream_dialer.h"
#include "devices/net/stream_port.h"

namespace crosvm {
namespace {

/// A port that asks for another connection when its own is lost.
class ReconnectingPort : public StreamPort {
 public:
  using StreamPort::StreamPort;
  Result<void> ask(EventLoop& loop, Fd connector) {
    asker_ = TRY(StreamAsker::create(loop, std::move(connector),
                                     [this](Fd socket) { connect(std::move(socket)); }));
    on_lost([this] { asker_->ask(); });
    return {};
  }

 private:
  std::unique_ptr<StreamAsker> asker_;
};

}  // namespace

Result<PasstNetFactory::Resources> PasstNetFactory::open(const Config& config) {
  return Resources{.socket = TRY(connect_stream(config.network)), .connector = {}};
}

Result<std::unique_ptr<VirtioDevice>> PasstNetFactory::create(const Config& config,
                                                              Resources resources,
                                                              const DeviceContext& context) {
  if (config.vq_pairs != 1) return fail(Error::invalid("a card on passt has one queue pair"));
  auto make_port = [&](EventLoop& loop, size_t) -> Result<std::unique_ptr<NetPort>> {
    auto port =
        std::make_unique<ReconnectingPort>(loop, std::move(resources.socket), config.network);
    if (resources.connector) TRY(port->ask(loop, std::move(resources.connector)));
    return port;
  };
  return TRY(NetDevice::create(config, make_port, context));
}

}  // namespace crosvm
