#include "cli/doctor_processes.h"

#include <sys/socket.h>

#include <algorithm>
#include <string_view>

#include "base/format.h"
#include "base/json.h"
#include "base/log.h"
#include "control/socket.h"

namespace crosvm {
namespace doctor {
namespace {

constexpr int kReportVersion = 1;

/// Kinds of namespaces that are not those of the VMM.
std::vector<std::string> own_namespaces(const ProcessFacts& vmm, const ProcessFacts& process) {
  std::vector<std::string> own;
  if (!vmm.namespaces || !process.namespaces) return own;
  for (const auto& [kind, identity] : *process.namespaces) {
    if (vmm.namespaces->at(kind) != identity) own.push_back(kind);
  }
  return own;
}

std::vector<LimitFacts> own_limits(const ProcessFacts& vmm, const ProcessFacts& process) {
  std::vector<LimitFacts> own;
  for (const LimitFacts& limit : process.limits) {
    auto same = [&limit](const LimitFacts& each) {
      return each.name == limit.name && each.soft == limit.soft && each.hard == limit.hard;
    };
    if (std::ranges::none_of(vmm.limits, same)) own.push_back(limit);
  }
  return own;
}

std::string joined(const std::vector<std::string>& parts, std::string_view none) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text.empty() ? std::string(none) : text;
}

/// Those that can be used: the bounding set only bounds what an execution may give.
uint64_t usable_capabilities(const ProcessFacts& process) {
  uint64_t usable = 0;
  for (const auto& [set, bits] : process.capabilities) {
    if (set != "CapBnd") usable |= bits;
  }
  return usable;
}

std::string text_of(const ThreadFacts& thread) {
  std::string filter = thread.has_filter ? "filtered" : "no filter";
  if (thread.filters.value_or(0) > 1) filter = format_text("{} filters", *thread.filters);
  return format_text("{} {} ({})", thread.tid, thread.name, filter);
}

std::string namespaces_text(const ProcessFacts& vmm, const ProcessFacts& process) {
  if (!process.namespaces || !vmm.namespaces) return "may not be seen by this user";
  return joined(own_namespaces(vmm, process), "those of the VMM");
}

/// Neighbours that are alike share a line.
std::string descriptors_text(const ProcessFacts& process, const DescriptorPurposes& purposes) {
  if (!process.descriptors) return "  descriptors    may not be seen by this user\n";
  std::string text = "  descriptors\n";
  const auto& all = *process.descriptors;
  for (size_t first = 0; first < all.size();) {
    const std::string purpose = purposes.of(process, all[first]);
    size_t next = first + 1;
    while (next < all.size() && all[next].object == all[first].object &&
           purposes.of(process, all[next]) == purpose) {
      ++next;
    }
    const std::string numbers = next - first == 1
                                    ? format_text("{}", all[first].number)
                                    : format_text("{}-{}", all[first].number, all[next - 1].number);
    text += format_text("    {:>7}  {}: {}\n", numbers, all[first].object, purpose);
    first = next;
  }
  return text;
}

std::string limits_text(const std::vector<LimitFacts>& limits) {
  std::vector<std::string> parts;
  for (const LimitFacts& limit : limits) {
    parts.push_back(format_text("{} {}", limit.name, limit.soft));
  }
  return joined(parts, "those of the VMM");
}

std::string process_text(const ProcessFacts& vmm, const ProcessFacts& process,
                         const DescriptorPurposes& purposes) {
  const bool is_vmm = process.pid == vmm.pid;
  const uint64_t capabilities = usable_capabilities(process);
  std::vector<std::string> threads;
  for (const ThreadFacts& thread : process.threads) threads.push_back(text_of(thread));
  std::string text =
      format_text("{}: pid {}, user {}\n", purposes.role_of(process), process.pid, process.user);
  if (!is_vmm) text += format_text("  namespaces     {}\n", namespaces_text(vmm, process));
  text += format_text("  capabilities   {}{}\n",
                      capabilities == 0 ? "none" : format_text("{:#x}", capabilities),
                      process.no_new_privs ? ", and none to be had (no_new_privs)" : "");
  text += format_text("  threads        {}\n", joined(threads, "none"));
  if (!is_vmm) text += format_text("  limits         {}\n", limits_text(own_limits(vmm, process)));
  return text + descriptors_text(process, purposes);
}

Json process_json(const ProcessFacts& vmm, const ProcessFacts& process,
                  const DescriptorPurposes& purposes) {
  Json namespaces;
  if (process.namespaces && vmm.namespaces) {
    namespaces = Json::array();
    for (const std::string& kind : own_namespaces(vmm, process)) namespaces.push_back(kind);
  }
  Json threads = Json::array();
  for (const ThreadFacts& thread : process.threads) {
    threads.push_back(Json::object({{"tid", thread.tid},
                                    {"name", thread.name},
                                    {"filters", thread.filters.value_or(thread.has_filter)}}));
  }
  Json limits = Json::array();
  for (const LimitFacts& limit : own_limits(vmm, process)) {
    limits.push_back(
        Json::object({{"name", limit.name}, {"soft", limit.soft}, {"hard", limit.hard}}));
  }
  Json descriptors;
  if (process.descriptors) {
    descriptors = Json::array();
    for (const DescriptorFacts& each : *process.descriptors) {
      descriptors.push_back(Json::object({{"number", each.number},
                                          {"object", each.object},
                                          {"purpose", purposes.of(process, each)}}));
    }
  }
  return Json::object({{"pid", process.pid},
                       {"parent", process.parent},
                       {"role", purposes.role_of(process)},
                       {"name", process.name},
                       {"user", process.user},
                       {"namespaces", std::move(namespaces)},
                       {"capabilities", usable_capabilities(process)},
                       {"no_new_privs", process.no_new_privs},
                       {"threads", std::move(threads)},
                       {"limits", std::move(limits)},
                       {"descriptors", std::move(descriptors)}});
}

/// The process that listens at the socket.
Result<pid_t> process_behind(const std::string& path) {
  PacketSocket socket = TRY(control::connect(path));
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(socket.fd().get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return fail(Error::from_errno("asking for the process behind", path));
  }
  if (peer.pid > 0) return peer.pid;
  return fail(Error(std::errc::no_such_process,
                    format_text("{}: the VM is in another PID namespace; run this where its "
                                "processes are seen",
                                path)));
}

/// Each VM has a first vCPU, whose thread every user sees by name.
bool runs_vm(const ProcessFacts& process) {
  return std::ranges::any_of(process.threads, [](const ThreadFacts& thread) {
    return thread.name.starts_with("crosvm_vcpu");
  });
}

}  // namespace

std::string processes_json(const std::vector<ProcessFacts>& tree,
                           const DescriptorPurposes& purposes) {
  Json processes = Json::array();
  for (const ProcessFacts& each : tree) {
    processes.push_back(process_json(tree.front(), each, purposes));
  }
  const Json report =
      Json::object({{"version", kReportVersion}, {"processes", std::move(processes)}});
  return report.dump_pretty() + "\n";
}

std::string processes_text(const std::vector<ProcessFacts>& tree,
                           const DescriptorPurposes& purposes) {
  std::string text;
  for (const ProcessFacts& each : tree) text += process_text(tree.front(), each, purposes) + "\n";
  if (tree.size() == 1) text += "Its devices run in the VMM (--disable-sandbox).\n";
  return text;
}

}  // namespace doctor

int run_doctor_processes(const std::string& path, bool json, std::FILE* out) {
  Result<pid_t> vmm = doctor::process_behind(path);
  if (!vmm) {
    log::error("{}", vmm.error().what());
    return 1;
  }
  const std::vector<doctor::ProcessFacts> tree = doctor::process_tree(*vmm);
  if (tree.empty()) {
    log::error("{}: the process {} of the VM cannot be seen in /proc", path, *vmm);
    return 1;
  }
  if (!doctor::runs_vm(tree.front())) {
    log::error(
        "{}: the process that listens there, {} (pid {}), runs no VM, or none yet; give the path "
        "that `crosvm run --socket` was given",
        path, tree.front().name, *vmm);
    return 1;
  }
  const doctor::DescriptorPurposes purposes(tree, doctor::socket_peers());
  const std::string report =
      json ? doctor::processes_json(tree, purposes) : doctor::processes_text(tree, purposes);
  std::fputs(report.c_str(), out);
  std::fflush(out);
  return 0;
}

}  // namespace crosvm
