#include "base/start_error.h"

#include <cerrno>

#include "base/format.h"

namespace crosvm {

Error start_error(std::string_view doing, std::string_view object, int error_number) {
  const Error why = Error::from_errno(doing, object, error_number);
  if (error_number != EAGAIN) return why;
  return Error(why.code(), format_text("{}; {}", why.what(), kTooManyProcesses));
}

}  // namespace crosvm
