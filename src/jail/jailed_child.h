#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "jail/jail_namespaces.h"

namespace crosvm::test {

struct ChildReport {
  std::string text;  ///< what `live` returned
  int status = -1;   ///< exit status; 128 and more: a signal
};

/// Ends the child; returns its status.
inline int wait_for(const NamespacedProcess& process) {
  siginfo_t ended = {};
  EXPECT_EQ(::waitid(static_cast<idtype_t>(3 /* P_PIDFD */), static_cast<id_t>(process.pidfd.get()),
                     &ended, WEXITED),
            0);
  return ended.si_code == CLD_EXITED ? ended.si_status : 128 + ended.si_status;
}

/// Runs `live` in a process in namespaces of its own. Only for tests without threads: it is called
/// after a clone, without an exec.
inline ChildReport run_in_namespaces(const std::function<std::string()>& live) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return {};
  Fd hear(ends[0]);
  Fd tell(ends[1]);
  auto process = clone_into_namespaces([&] {
    const std::string text = live();
    (void)!::write(tell.get(), text.data(), text.size());
    ::_exit(0);
  });
  if (!process) {
    ADD_FAILURE() << process.error().what();
    return {};
  }
  tell = Fd();
  ChildReport report;
  char buffer[4096];
  ssize_t got = 0;
  while ((got = ::read(hear.get(), buffer, sizeof(buffer))) > 0) {
    report.text.append(buffer, static_cast<size_t>(got));
  }
  report.status = wait_for(*process);
  return report;
}

}  // namespace crosvm::test
