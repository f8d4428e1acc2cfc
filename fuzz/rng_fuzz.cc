// A hostile driver of the entropy device.

#include "devices/rng/rng_device.h"
#include "hostile_device.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace crosvm;
  if (size == 0) return 0;
  const RigOptions options{.place = RigPlace::kInline, .packed = (data[0] & 1) != 0};
  play_hostile_device(make_rig<RngFactory>("", options), {data + 1, size - 1}, [](FuzzInput&) {});
  return 0;
}
