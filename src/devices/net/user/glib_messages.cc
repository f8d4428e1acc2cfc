#include "devices/net/user/glib_messages.h"

#include <dlfcn.h>

#include "base/log.h"
#include "base/log_limit.h"

namespace crosvm {
namespace {

using GlibHandler = void (*)(const char* domain, int level, const char* message, void* data);
using SetGlibHandler = GlibHandler (*)(GlibHandler handler, void* data);

void log_glib_message(const char*, int, const char* message, void*) {
  static LogLimit limit("messages of libslirp");
  if (limit.allows()) log::debug("libslirp: {}", message);
}

}  // namespace

void take_glib_messages() {
  // libslirp brings this library along; it has no headers here for want of any other use.
  const auto set =
      reinterpret_cast<SetGlibHandler>(::dlsym(RTLD_DEFAULT, "g_log_set_default_handler"));
  if (set) set(log_glib_message, nullptr);
}

}  // namespace crosvm
