#pragma once

#include <time.h>

#include <cstdint>
#include <optional>

namespace crosvm {

/// Two decimal digits in one byte, as a real-time clock keeps them. `value` is taken modulo 100.
uint8_t to_bcd(int value);
/// Nothing when a digit is above 9.
std::optional<int> from_bcd(uint8_t value);

/// What the alarm registers of a real-time clock hold, each in BCD.
struct AlarmRegisters {
  uint8_t second = 0;
  uint8_t minute = 0;
  uint8_t hour = 0;
  uint8_t day = 0;
  uint8_t month = 0;
};

/// When the alarm rings: seconds since 1970 of the match in the year of `now` (UTC), or if that has
/// passed or does not exist, in the year after. Nothing when the registers name no time of these
/// years (devices.md 2.3).
std::optional<time_t> next_alarm(const AlarmRegisters& registers, const timespec& now);

}  // namespace crosvm
