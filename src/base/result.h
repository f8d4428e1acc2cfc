#pragma once

#include <cerrno>
#include <expected>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace crosvm {

/// A failure: a code to branch on, and a sentence that grows on its way up.
class [[nodiscard]] Error {
 public:
  Error(std::errc code, std::string what) : code_(code), what_(std::move(what)) {}

  /// "opening disk.img: No such file or directory", with errno's code.
  static Error from_errno(std::string_view doing, std::string_view object);
  /// The same for an errno value kept from earlier.
  static Error from_errno(std::string_view doing, std::string_view object, int error_number);
  /// A mistake in what the user, a file or a peer gave us.
  static Error invalid(std::string what) {
    return Error(std::errc::invalid_argument, std::move(what));
  }

  /// Puts `where` and ": " before the sentence.
  Error&& context(std::string_view where) &&;

  std::errc code() const { return code_; }
  const std::string& what() const { return what_; }

 private:
  std::errc code_;
  std::string what_;
};

template <class T = void>
using Result = std::expected<T, Error>;

/// The failed Result from an Error: `return fail(Error::invalid("…"));`
inline std::unexpected<Error> fail(Error error) { return std::unexpected<Error>(std::move(error)); }

/// A Result with `where` put before its error, if it has one.
template <class T>
Result<T> with_context(Result<T> result, std::string_view where) {
  if (!result) return fail(std::move(result).error().context(where));
  return result;
}

/// Logs the sentence and aborts. For our own mistakes only; see CHECK.
[[noreturn]] void check_failed(const char* file, int line, const char* condition);

}  // namespace crosvm

/// Yields the value of a Result, or returns its error from the enclosing function.
#define TRY(...)                                                                     \
  ({                                                                                 \
    auto&& crosvm_try_result = (__VA_ARGS__);                                        \
    if (!crosvm_try_result.has_value()) [[unlikely]]                                 \
      return std::unexpected<::crosvm::Error>(std::move(crosvm_try_result).error()); \
    *std::move(crosvm_try_result);                                                   \
  })

/// Aborts in every build when `condition` is false. Never for what a guest, a file or a peer says.
#define CHECK(condition)                                      \
  do {                                                        \
    if (!(condition)) [[unlikely]]                            \
      ::crosvm::check_failed(__FILE__, __LINE__, #condition); \
  } while (false)
