#!/bin/bash
# What ./dev can do.
cat <<'END'
./dev COMMAND [OPTION...]; what a command needs and the machine lacks, it installs (Debian 12 or newer).

  demo                   boot Debian from a disk in crosvm and hand over its console
    --headless CMD       run CMD in the guest instead, print what it said, exit with its status
    --kernel NAME        cloud12 (default), generic12 or cloud13
    --testhost           in the test host, even where /dev/kvm would do
  build [FLAVOUR] [TARGET...]   build/FLAVOUR/crosvm; FLAVOUR: --debug (default) --release --asan --tsan --fuzz
  test                   every test; the last line counts: N passed, N failed
    --fast               without VMs, sanitizers and fuzzing
    --full               the whole matrix: all VM cases, ThreadSanitizer, longer fuzzing
  vm [FILTER]            whole-VM tests alone; FILTER as of --gtest_filter
  check [--full]         format, clang-tidy on changed files (--full: all), both compilers, layering, docs
  fix                    format all sources
  testhost -- CMD        run CMD in the test host, a machine with a true KVM (see testhost --help)
  fuzz NAME [--seconds N]   one fuzz target; without NAME, which there are
  bench [NAME] [--json]  benchmarks, side by side with a peer
  soak [NAME]            the large counts, logs in build/soak
  seccomp [--vms]        what device processes and the VMM call over the tests, against the policies
  images [NAME...]       guest kernels, initrds and root disk, in build/images
  install [GROUP...]     packages of tools/packages.list
END
