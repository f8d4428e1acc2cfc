#include "control/protocol.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>
#include <set>

namespace crosvm::control {
namespace {

using testing::HasSubstr;

Packet packet(std::string text, size_t fds = 0) {
  Packet packet{.text = std::move(text), .fds = {}};
  for (size_t i = 0; i < fds; ++i) packet.fds.push_back(std::move(make_eventfd().value()));
  return packet;
}

std::string request_error(std::string text, size_t fds = 0) {
  auto request = decode_request(packet(std::move(text), fds));
  return request ? "no error: " + std::string(name_of(*request)) : request.error().what();
}

struct Case {
  std::string text;
  size_t fds = 0;
};

// Every form of cli.md 4.3.1.
const Case kRequests[] = {
    {R"("Exit")"},
    {R"("Powerbtn")"},
    {R"("Sleepbtn")"},
    {R"({"Rtc":{"clear_evt":0}})", 1},
    {R"("SuspendVcpus")"},
    {R"({"Swap":"Enable"})"},
    {R"({"Swap":"Trim"})"},
    {R"({"Swap":"SwapOut"})"},
    {R"({"Swap":"Status"})"},
    {R"({"Swap":{"Disable":{"slow_file_cleanup":false}}})"},
    {R"("ResumeVcpus")"},
    {R"({"Gpe":{"gpe":3,"clear_evt":null}})"},
    {R"({"Gpe":{"gpe":3,"clear_evt":0}})", 1},
    {R"({"PciPme":65535})"},
    {R"("MakeRT")"},
    {R"({"BalloonCommand":{"Adjust":{"num_bytes":4096,"wait_for_success":false}}})"},
    {R"({"BalloonCommand":"Stats"})"},
    {R"({"BalloonCommand":"WorkingSet"})"},
    {R"({"BalloonCommand":{"WorkingSetConfig":{"bins":[1,2],"refresh_threshold":3,)"
     R"("report_threshold":4}}})"},
    {R"({"DiskCommand":{"disk_index":0,"command":{"Resize":{"new_size":1099511627776}}}})"},
    {R"({"UsbCommand":{"AttachDevice":{"file":0}}})", 1},
    {R"({"UsbCommand":{"AttachSecurityKey":{"file":0}}})", 1},
    {R"({"UsbCommand":{"DetachDevice":{"port":1}}})"},
    {R"({"UsbCommand":{"ListDevice":{"ports":[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15]}}})"},
    {R"({"GpuCommand":{"AddDisplays":{"displays":[{"mode":{"windowed":[640,480]},"hidden":false,)"
     R"("refresh-rate":60,"dpi":[320,320]}]}}})"},
    {R"({"GpuCommand":"ListDisplays"})"},
    {R"({"GpuCommand":{"RemoveDisplays":{"display_ids":[0]}}})"},
    {R"({"GpuCommand":{"SetDisplayMouseMode":{"display_id":0,"mouse_mode":"touchscreen"}}})"},
    {R"({"BatCommand":["goldfish",{"SetStatus":"DisCharging"}]})"},
    {R"({"BatCommand":["goldfish",{"SetHealth":"OverVoltage"}]})"},
    {R"({"BatCommand":["goldfish",{"SetPresent":1}]})"},
    {R"({"BatCommand":["goldfish",{"SetCapacity":50}]})"},
    {R"({"BatCommand":["goldfish",{"SetACOnline":1}]})"},
    {R"({"BatCommand":["goldfish",{"SetFakeBatConfig":80}]})"},
    {R"({"BatCommand":["goldfish","CancelFakeConfig"]})"},
    {R"({"SndCommand":{"MuteAll":true}})"},
    {R"({"HotPlugVfioCommand":{"device":{"device_type":"EndPoint","path":"/sys/x",)"
     R"("hp_interrupt":true},"add":true}})"},
    {R"({"HotPlugNetCommand":{"AddTap":"tap0"}})"},
    {R"({"HotPlugNetCommand":{"RemoveTap":3}})"},
    {R"({"Snapshot":{"Take":{"snapshot_path":"p","compress_memory":false,"encrypt":false}}})"},
    {R"({"RegisterListener":{"socket_addr":"p","event":"VirtioBalloonResize"}})"},
    {R"({"UnregisterListener":{"socket_addr":"p","event":"VirtioBalloonOOMDeflation"}})"},
    {R"({"Unregister":{"socket_addr":"p"}})"},
    {R"("SuspendVm")"},
    {R"("ResumeVm")"},
    {R"("VcpuPidTid")"},
    {R"({"Throttle":[0,1000]})"},
    {R"("GetVmDescriptor")"},
    {R"({"RegisterMemory":{"fd":0,"offset":0,"range_start":4096,"range_end":8192,)"
     R"("cache_coherent":true}})",
     1},
    {R"({"UnregisterMemory":{"region_id":7}})"},
};

TEST(Protocol, EveryRequestIsReadAndWrittenBackTheSame) {
  std::set<std::string_view> names;
  for (const Case& one : kRequests) {
    auto request = decode_request(packet(one.text, one.fds));
    ASSERT_TRUE(request) << one.text << ": " << request.error().what();
    names.insert(name_of(*request));
    Packet again = encode(std::move(*request));
    EXPECT_EQ(again.text, one.text);
    EXPECT_EQ(again.fds.size(), one.fds);
  }
  EXPECT_EQ(names.size(), 29u);
}

// Every form of cli.md 4.3.2, and what a client prints of it; a text that starts with "..." is the
// end of it.
const std::pair<Case, const char*> kResponses[] = {
    {{R"("Ok")"}, "ok"},
    {{R"({"Err":95})"}, "error: Operation not supported (os error 95)"},
    {{R"({"ErrString":"no"})"}, "error: no"},
    {{R"({"RegisterMemory":{"slot":1}})"}, "memory registered, slot 1"},
    {{R"({"RegisterMemory2":{"region_id":2}})"}, "memory registered, region id 2"},
    {{R"({"BalloonStats":{"stats":{"swap_in":null,"swap_out":1,"major_faults":2,"minor_faults":3,)"
      R"("free_memory":4,"total_memory":5,"available_memory":6,"disk_caches":7,)"
      R"("hugetlb_allocations":8,"hugetlb_failures":9,"shared_memory":10,)"
      R"("unevictable_memory":11},"balloon_actual":12}})"},
     "...  \"unevictable_memory\": 11\n}\nballoon_actual: 12"},
    {{R"({"BalloonWS":{"ws":{"ws":[{"age":1,"bytes":[2,3]}]},"balloon_actual":4}})"},
     R"(ws: {"ws":[{"age":1,"bytes":[2,3]}]}, balloon_actual: 4)"},
    {{R"({"PciHotPlugResponse":{"bus":5}})"}, "pci hotplug bus 5"},
    {{R"({"UsbResponse":{"Ok":{"port":9}}})"}, "ok 9"},
    {{R"({"UsbResponse":"NoAvailablePort"})"}, "no_available_port"},
    {{R"({"UsbResponse":"NoSuchDevice"})"}, "no_such_device"},
    {{R"({"UsbResponse":"NoSuchPort"})"}, "no_such_port"},
    {{R"({"UsbResponse":"FailedToOpenDevice"})"}, "failed_to_open_device"},
    {{R"({"UsbResponse":"FailedToInitHostDevice"})"}, "failed_to_init_host_device"},
    {{R"({"GpuResponse":"DisplaysUpdated"})"}, "displays updated"},
    {{R"({"GpuResponse":{"DisplayList":{"displays":{"0":{"mode":{"windowed":[1,2]},"hidden":true,)"
      R"("refresh-rate":30,"dpi":[3,4]}}}}})"},
     "...      \"mode\": {\n        \"windowed\": [\n          1,\n          2\n        ]\n      "
     "},\n      \"refresh-rate\": 30\n    }\n  }\n}"},
    {{R"({"GpuResponse":{"TooManyDisplays":{"allowed":1,"requested":2}}})"},
     "too_many_displays: allowed 1, requested 2"},
    {{R"({"GpuResponse":{"NoSuchDisplay":{"display_id":3}}})"}, "no_such_display 3"},
    {{R"({"GpuResponse":"DisplayMouseModeSet"})"}, "display_mouse_mode_set"},
    {{R"({"GpuResponse":{"ErrString":"x"}})"}, "err_string x"},
    {{R"({"BatResponse":"Ok"})"}, "Setting battery property successfully"},
    {{R"({"BatResponse":"NoBatDevice"})"}, "No battery device created"},
    {{R"({"BatResponse":"NoSuchBatType"})"}, "...goldfish"},
    {{R"({"SwapStatus":{"state":"Ready","metrics":{"resident_pages":1,"copied_from_file_pages":2,)"
      R"("copied_from_staging_pages":3,"zeroed_pages":4,"redundant_pages":5,"staging_pages":6,)"
      R"("swap_pages":7},"state_transition":{"pages":8,"time_ms":9}}})"},
     R"(..."swap_pages":7},"state_transition":{"pages":8,"time_ms":9}})"},
    {{R"({"DevicesState":"Sleep"})"}, "devices asleep"},
    {{R"({"VcpuPidTidResponse":{"pid_tid_map":{"0":[10,11],"1":[10,12]}}})"},
     R"(...{"0":[10,11],"1":[10,12]})"},
    {{R"({"VmDescriptor":{"hypervisor":"Kvm","vm_fd":0}})", 1}, "...Kvm"},
};

TEST(Protocol, EveryResponseIsReadDisplayedAndWrittenBackTheSame) {
  std::set<size_t> kinds;
  for (const auto& [one, text] : kResponses) {
    auto response = decode_response(packet(one.text, one.fds));
    ASSERT_TRUE(response) << one.text << ": " << response.error().what();
    kinds.insert(response->index());
    std::string_view expected = text;
    if (expected.starts_with("...")) {
      EXPECT_THAT(display(*response), testing::EndsWith(expected.substr(3)));
    } else {
      EXPECT_EQ(display(*response), expected);
    }
    Packet again = encode(std::move(*response));
    EXPECT_EQ(again.text, one.text);
    EXPECT_EQ(again.fds.size(), one.fds);
  }
  EXPECT_EQ(kinds.size(), 15u);
}

TEST(Protocol, UsbDevicesListOccupiedPortsOnly) {
  response::usb_response::Devices devices;
  EXPECT_EQ(display(response::UsbResponse{devices}), "devices");
  devices.value[4] = {.port = 5, .vendor_id = 0x18d1, .product_id = 0xab};
  EXPECT_EQ(display(response::UsbResponse{devices}), "devices 5 18d1 00ab");
}

TEST(Protocol, OptionalMembersMayBeMissingAndUnknownOnesAreIgnored) {
  auto gpe = decode_request(packet(R"( { "Gpe" : { "gpe" : 3, "extra": [1] } } )"));
  ASSERT_TRUE(gpe) << gpe.error().what();
  EXPECT_FALSE(std::get<Gpe>(*gpe).clear_evt);
  auto display = decode_request(packet(R"({"GpuCommand":{"AddDisplays":{"displays":[{}]}}})"));
  ASSERT_TRUE(display) << display.error().what();
  EXPECT_THAT(encode(std::move(*display)).text, HasSubstr(R"("windowed":[1280,1024])"));
}

TEST(Protocol, MalformedRequestsAreRefusedByName) {
  EXPECT_THAT(request_error(R"("exit")"), HasSubstr("\"exit\" is not known"));
  EXPECT_THAT(request_error(R"({"Exit":1})"), HasSubstr("Exit: takes no value"));
  EXPECT_THAT(request_error(R"("Gpe")"), HasSubstr("Gpe: its value is missing"));
  EXPECT_THAT(request_error(R"({"Gpe":{}})"), HasSubstr("Gpe: member \"gpe\" is missing"));
  EXPECT_THAT(request_error(R"({"Gpe":{"gpe":4294967296}})"),
              HasSubstr("Gpe: gpe: expected an integer from 0 to 4294967295, found 4294967296"));
  EXPECT_THAT(request_error(R"({"PciPme":-1})"), HasSubstr("found -1"));
  EXPECT_THAT(request_error(R"({"Exit":null,"Gpe":1})"), HasSubstr("with one member, found 2"));
  EXPECT_THAT(request_error(R"({"UsbCommand":{"ListDevice":{"ports":[1]}}})"),
              HasSubstr("ports: expected 16 items, found 1"));
  EXPECT_THAT(request_error(R"({"BatCommand":["goldfish"]})"), HasSubstr("expected 2 items"));
  EXPECT_THAT(request_error(R"({"BatCommand":["lion","CancelFakeConfig"]})"),
              HasSubstr("\"lion\" is not known"));
  for (const char* text : {"", "1", "null", "[]", "{}", "{", "\"Exit\"\"Exit\"", "{\"Swap\":{}}"}) {
    EXPECT_THAT(request_error(text), HasSubstr("control request: ")) << text;
  }
}

TEST(Protocol, DescriptorsMustComeWithTheMessageAndServeOnce) {
  EXPECT_THAT(request_error(R"({"Rtc":{"clear_evt":0}})"), HasSubstr("descriptor 0 did not come"));
  EXPECT_THAT(request_error(R"({"Rtc":{"clear_evt":1}})", 1), HasSubstr("descriptor 1 did not"));
  EXPECT_THAT(request_error(R"({"Rtc":{"clear_evt":null}})", 1), HasSubstr("expected an integer"));
  EXPECT_THAT(request_error(R"({"RegisterMemory":{"fd":0,"offset":0,"range_start":0}})", 1),
              HasSubstr("member \"range_end\" is missing"));
}

TEST(Protocol, EncodedErrorKeepsItsNumber) {
  EXPECT_EQ(encode(Response(response::Err{ENOTSUP})).text, R"({"Err":95})");
}

TEST(Protocol, RequestsForWhatTheVmLacksGetTheirOwnAnswer) {
  auto answer = [](Request request) {
    auto response = answer_without_component(request);
    return response ? encode(std::move(*response)).text : "none";
  };
  EXPECT_EQ(answer(Powerbtn()), R"({"Err":95})");
  EXPECT_EQ(answer(BalloonCommand()), R"({"Err":95})");
  EXPECT_EQ(answer(Swap()), R"({"Err":95})");
  EXPECT_EQ(answer(DiskCommand()), R"({"Err":19})");
  EXPECT_EQ(answer(GpuCommand()), R"({"Err":5})");
  EXPECT_EQ(answer(BatCommand()), R"({"BatResponse":"NoBatDevice"})");
  EXPECT_EQ(answer(SndCommand()), R"("Ok")");
  EXPECT_EQ(answer(Throttle()), "none");
  EXPECT_EQ(answer(RegisterMemory()), R"({"Err":22})");
  EXPECT_THAT(answer(HotPlugNetCommand()), HasSubstr("ErrString"));
}

}  // namespace
}  // namespace crosvm::control
