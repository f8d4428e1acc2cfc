#include "vmm/exit_state.h"

#include <gtest/gtest.h>

namespace crosvm {
namespace {

TEST(ExitState, StatusesAreTheOnesScriptsKnow) {  // cli.md 6.1
  EXPECT_EQ(exit_status(ExitState::kStop, true), 0);
  EXPECT_EQ(exit_status(ExitState::kReset, true), 32);
  EXPECT_EQ(exit_status(ExitState::kCrash, true), 33);
  EXPECT_EQ(exit_status(ExitState::kGuestPanic, true), 34);
  EXPECT_EQ(exit_status(ExitState::kWatchdog, true), 36);
}

TEST(ExitState, WithoutExtendedStatusEveryEndIsZero) {
  for (ExitState state : {ExitState::kStop, ExitState::kReset, ExitState::kCrash,
                          ExitState::kGuestPanic, ExitState::kWatchdog}) {
    EXPECT_EQ(exit_status(state, false), 0) << name_of(state);
  }
}

TEST(ExitPolicy, APanicTurnsTheResetThatFollowsIntoGuestPanic) {
  ExitPolicy policy;
  EXPECT_EQ(policy.from_guest(ExitState::kReset), ExitState::kReset);
  policy.note_panic(PanicCode::kPanicked);
  EXPECT_EQ(policy.from_guest(ExitState::kReset), ExitState::kGuestPanic);
  EXPECT_EQ(policy.from_guest(ExitState::kStop), ExitState::kGuestPanic);
}

TEST(ExitPolicy, ACrashKernelTakesThePanicBack) {
  ExitPolicy policy;
  policy.note_panic(PanicCode::kPanicked);
  policy.note_panic(PanicCode::kCrashKernelLoaded);
  EXPECT_EQ(policy.from_guest(ExitState::kReset), ExitState::kReset);
}

}  // namespace
}  // namespace crosvm
