#define FMT_HEADER_ONLY
#define FMT_STATIC_THOUSANDS_SEPARATOR ','  // else it brings all of the C++ locales
#define SPDLOG_FMT_EXTERNAL
#define SPDLOG_HEADER_ONLY
#include "base/log.h"

#include <spdlog/sinks/base_sink.h>
#include <spdlog/spdlog.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "base/format.h"
#include "base/log_stream.h"
#include "base/system_log.h"
#include "base/utf8.h"

namespace crosvm::log {
namespace {

struct ModuleLevel {
  std::string module;
  Level level;
};

struct Filter {
  Level fallback = Level::kInfo;
  std::vector<ModuleLevel> modules;
};

constexpr std::array<std::pair<std::string_view, Level>, 6> kLevels = {{
    {"off", Level::kOff},
    {"error", Level::kError},
    {"warn", Level::kWarn},
    {"info", Level::kInfo},
    {"debug", Level::kDebug},
    {"trace", Level::kTrace},
}};

Result<Level> parse_level(std::string_view text) {
  for (const auto& [name, level] : kLevels) {
    if (name == text) return level;
  }
  return fail(Error::invalid(format_text(
      "log level \"{}\" is not known; use off, error, warn, info, debug or trace", text)));
}

Result<Filter> parse_filter(std::string_view text) {
  Filter filter;
  while (!text.empty()) {
    size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
    if (part.empty()) continue;
    size_t equals = part.find('=');
    if (equals == std::string_view::npos) {
      filter.fallback = TRY(parse_level(part));
    } else {
      filter.modules.push_back(
          {std::string(part.substr(0, equals)), TRY(parse_level(part.substr(equals + 1)))});
    }
  }
  return filter;
}

/// "serial" and "platform::serial" both name the module crosvm::platform::serial; a prefix names
/// all modules below it.
bool names(std::string_view pattern, std::string_view module) {
  size_t at = module.find(pattern);
  while (at != std::string_view::npos) {
    size_t end = at + pattern.size();
    bool starts = at == 0 || module.substr(0, at).ends_with("::");
    bool ends = end == module.size() || module.substr(end).starts_with("::");
    if (starts && ends) return true;
    at = module.find(pattern, at + 1);
  }
  return false;
}

spdlog::level::level_enum to_spdlog(Level level) {
  switch (level) {
    case Level::kTrace:
      return spdlog::level::trace;
    case Level::kDebug:
      return spdlog::level::debug;
    case Level::kInfo:
      return spdlog::level::info;
    case Level::kWarn:
      return spdlog::level::warn;
    case Level::kError:
      return spdlog::level::err;
    case Level::kOff:
      break;
  }
  return spdlog::level::off;
}

class StandardError : public spdlog::sinks::base_sink<std::mutex> {
 public:
  void open() {
    std::lock_guard lock(mutex_);
    stream_.open();
  }

 private:
  void sink_it_(const spdlog::details::log_msg& record) override {
    spdlog::memory_buf_t text;
    formatter_->format(record, text);
    std::string_view line(text.data(), text.size());
    stream_.write(line.substr(0, line.find('\n')));  // records have no newline within
  }
  void flush_() override {}

  LogStream stream_{STDERR_FILENO};
};

class Syslog : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit Syslog(const std::string& tag) : log_(tag) {}
  void seal() {
    std::lock_guard lock(mutex_);
    log_.seal();
  }

 private:
  static int severity(spdlog::level::level_enum level) {
    switch (level) {
      case spdlog::level::err:
        return LOG_ERR;
      case spdlog::level::warn:
        return LOG_WARNING;
      case spdlog::level::info:
        return LOG_INFO;
      default:
        return LOG_DEBUG;
    }
  }
  void sink_it_(const spdlog::details::log_msg& record) override {
    log_.write(severity(record.level), {record.payload.data(), record.payload.size()});
  }
  void flush_() override {}

  SystemLog log_;
};

/// Sinks and filter of the process. Replaced as a whole, so a writing thread sees one or the other.
struct Logger {
  Options options;
  Filter filter;
  std::shared_ptr<StandardError> error_stream;
  std::shared_ptr<Syslog> system_log;
};

Logger make_logger(Filter filter, const Options& options) {
  Logger logger{.options = options,
                .filter = std::move(filter),
                .error_stream = nullptr,
                .system_log = nullptr};
  logger.error_stream = std::make_shared<StandardError>();
  logger.error_stream->set_formatter(std::make_unique<spdlog::pattern_formatter>(
      "[%Y-%m-%dT%H:%M:%S.%F+00:00 %v", spdlog::pattern_time_type::utc));
  if (options.use_syslog) {
    logger.system_log = std::make_shared<Syslog>(options.syslog_tag);
  }
  return logger;
}

std::mutex g_mutex;
std::shared_ptr<const Logger> g_logger;  // guarded by g_mutex; made at first use
std::atomic<Level> g_lowest{Level::kInfo};

std::shared_ptr<const Logger> current() {
  std::lock_guard lock(g_mutex);
  if (!g_logger) g_logger = std::make_shared<Logger>(make_logger(Filter(), Options()));
  return g_logger;
}

Level level_for(const Filter& filter, std::string_view module) {
  Level level = filter.fallback;
  for (const ModuleLevel& entry : filter.modules) {
    if (names(entry.module, module)) level = entry.level;
  }
  return level;
}

constexpr std::string_view upper_name(Level level) {
  switch (level) {
    case Level::kTrace:
      return "TRACE";
    case Level::kDebug:
      return "DEBUG";
    case Level::kInfo:
      return "INFO";
    case Level::kWarn:
      return "WARN";
    case Level::kError:
      return "ERROR";
    case Level::kOff:
      break;
  }
  return "OFF";
}

/// Whether the UTF-8 sequence steers a terminal: U+0000 to U+001F, and U+007F to U+009F, of which
/// U+009B starts a command as ESC [ does.
bool is_control(std::string_view sequence) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(sequence[i]); };
  if (sequence.size() == 1) return byte(0) < 0x20 || byte(0) == 0x7f;
  return byte(0) == 0xc2 && byte(1) < 0xa0;
}

/// Text that a guest, a file or a peer had a hand in must not start a new record or steer the
/// terminal. Bytes that are no UTF-8 may do the latter where the terminal reads something else.
std::string printable(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    const std::string_view sequence = text.substr(0, std::max<size_t>(length, 1));
    text.remove_prefix(sequence.size());
    if (length != 0 && !is_control(sequence)) {
      clean += sequence;
    } else if (sequence == "\t") {
      clean += ' ';
    } else if (sequence == "\n") {
      clean += "\\n";
    } else {
      for (char c : sequence) clean += format_text("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return clean;
}

}  // namespace

Result<void> configure(const Options& options) {
  Filter filter = TRY(parse_filter(options.filter));
  Level lowest = filter.fallback;
  for (const ModuleLevel& entry : filter.modules) lowest = std::min(lowest, entry.level);
  auto logger = std::make_shared<Logger>(make_logger(std::move(filter), options));
  std::lock_guard lock(g_mutex);
  g_logger = std::move(logger);
  g_lowest = lowest;
  return {};
}

Options options() { return current()->options; }

void open_sinks() {
  const auto logger = current();
  logger->error_stream->open();
  if (logger->system_log) logger->system_log->seal();  // opened when it was made
}

bool enabled(Level level, std::string_view module) {
  if (level < g_lowest.load(std::memory_order_relaxed)) return false;
  return level >= level_for(current()->filter, module);
}

void write(Level level, std::string_view module, std::string_view file, int line,
           std::string_view text) {
  if (!enabled(level, module)) return;
  auto logger = current();
  std::string clean = printable(text);
  std::string record = format_text("{} {}] {}", upper_name(level), module, clean);
  logger->error_stream->log(spdlog::details::log_msg("", to_spdlog(level), record));
  if (logger->system_log) {
    size_t slash = file.rfind('/');
    if (slash != std::string_view::npos) file.remove_prefix(slash + 1);
    std::string entry = format_text("[{}:{}] {}", file, line, clean);
    logger->system_log->log(spdlog::details::log_msg("", to_spdlog(level), entry));
  }
}

std::string module_of(std::string_view file) {
  size_t src = file.rfind("src/");
  if (src != std::string_view::npos) file.remove_prefix(src + 4);
  if (size_t dot = file.rfind('.'); dot != std::string_view::npos) file = file.substr(0, dot);
  std::string module = "crosvm::";
  for (char c : file) {
    if (c == '/') {
      module += "::";
    } else {
      module += c;
    }
  }
  return module;
}

void vwrite(Level level, const std::source_location& where, fmt::string_view text,
            fmt::format_args args) {
  if (level < g_lowest.load(std::memory_order_relaxed)) return;
  write(level, module_of(where.file_name()), where.file_name(), static_cast<int>(where.line()),
        format_text_from(text, args));
}

}  // namespace crosvm::log
