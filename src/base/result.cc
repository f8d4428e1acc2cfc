#include "base/result.h"

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "base/log.h"

namespace crosvm {

Error Error::from_errno(std::string_view doing, std::string_view object) {
  return from_errno(doing, object, errno);
}

Error Error::from_errno(std::string_view doing, std::string_view object, int error_number) {
  std::string what;
  what.append(doing).append(" ").append(object).append(": ");
  what += std::generic_category().message(error_number);
  if (error_number == EMFILE) what += "; raise RLIMIT_NOFILE (ulimit -Hn)";
  return Error(static_cast<std::errc>(error_number), std::move(what));
}

Error&& Error::context(std::string_view where) && {
  std::string longer(where);
  longer.append(": ").append(what_);
  what_ = std::move(longer);
  return std::move(*this);
}

void check_failed(const char* file, int line, const char* condition) {
  log::error("internal error at {}:{}: {} does not hold; please report it", file, line, condition);
  // Not abort(): as PID 1 of a namespace a process cannot deliver itself a signal, a trap it can.
  __builtin_trap();
}

}  // namespace crosvm

/// What the C++ library calls for an exception that nobody caught, as when memory is used up. Its
/// own would name the exception's type as it is written in C++, and 60 KB of crosvm would be for
/// that.
void __gnu_cxx::__verbose_terminate_handler() {
  const char* what = "an exception";
  try {
    throw;
  } catch (const std::exception& thrown) {
    what = thrown.what();
  } catch (...) {
  }
  crosvm::log::error("internal error: nobody caught {}; please report it", what);
  __builtin_trap();
}
