#pragma once

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#include <cstdint>
#include <cstring>
#include <span>

namespace crosvm {

/// Runs a system call filter as the kernel would, on the instructions that compilers of policies
/// write. Returns SECCOMP_RET_*; UINT32_MAX for a program that is malformed or has others.
inline uint32_t simulate_bpf(std::span<const sock_filter> code, const seccomp_data& data) {
  uint32_t a = 0;
  for (size_t at = 0; at < code.size(); ++at) {
    const sock_filter& each = code[at];
    switch (each.code) {
      case BPF_LD | BPF_W | BPF_ABS:
        if (each.k > sizeof(data) - sizeof(a)) return UINT32_MAX;
        std::memcpy(&a, reinterpret_cast<const char*>(&data) + each.k, sizeof(a));
        break;
      case BPF_ALU | BPF_AND | BPF_K:
        a &= each.k;
        break;
      case BPF_JMP | BPF_JA:
        at += each.k;
        break;
      case BPF_JMP | BPF_JEQ | BPF_K:
        at += a == each.k ? each.jt : each.jf;
        break;
      case BPF_JMP | BPF_JGT | BPF_K:
        at += a > each.k ? each.jt : each.jf;
        break;
      case BPF_JMP | BPF_JGE | BPF_K:
        at += a >= each.k ? each.jt : each.jf;
        break;
      case BPF_JMP | BPF_JSET | BPF_K:
        at += (a & each.k) != 0 ? each.jt : each.jf;
        break;
      case BPF_RET | BPF_K:
        return each.k;
      default:
        return UINT32_MAX;
    }
  }
  return UINT32_MAX;
}

}  // namespace crosvm
