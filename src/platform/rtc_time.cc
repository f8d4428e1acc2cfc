#include "platform/rtc_time.h"

#include <chrono>

namespace crosvm {

uint8_t to_bcd(int value) { return static_cast<uint8_t>((value / 10 % 10) << 4 | value % 10); }

std::optional<int> from_bcd(uint8_t value) {
  if ((value >> 4) > 9 || (value & 0xf) > 9) return std::nullopt;
  return (value >> 4) * 10 + (value & 0xf);
}

std::optional<time_t> next_alarm(const AlarmRegisters& registers, const timespec& now) {
  using namespace std::chrono;
  const auto second = from_bcd(registers.second);
  const auto minute = from_bcd(registers.minute);
  const auto hour = from_bcd(registers.hour);
  const auto day_of_month = from_bcd(registers.day);
  const auto month_of_year = from_bcd(registers.month);
  if (!second || !minute || !hour || !day_of_month || !month_of_year) return std::nullopt;
  if (*second > 59 || *minute > 59 || *hour > 23) return std::nullopt;
  tm utc{};
  ::gmtime_r(&now.tv_sec, &utc);
  for (int later = 0; later < 2; ++later) {
    const year_month_day date(year(utc.tm_year + 1900 + later),
                              month(static_cast<unsigned>(*month_of_year)),
                              day(static_cast<unsigned>(*day_of_month)));
    if (!date.ok()) continue;
    const sys_seconds match = sys_days(date) + hours(*hour) + minutes(*minute) + seconds(*second);
    const time_t when = match.time_since_epoch().count();
    if (when > now.tv_sec || (when == now.tv_sec && now.tv_nsec == 0)) return when;
  }
  return std::nullopt;
}

}  // namespace crosvm
