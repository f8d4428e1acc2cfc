#pragma once

/// Constants of the Linux ABI that are newer than the 6.1 headers this is built with, each with the
/// first kernel that knows it. What an older kernel does with them is decided at run time.

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U  // Linux 6.3, memfd_create; older kernels: EINVAL
#endif
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x00000080  // Linux 6.14, preadv2 and pwritev2; older kernels: EOPNOTSUPP
#endif
