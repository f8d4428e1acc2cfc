# Sourced: decides where guests run. Needs build/release/crosvm.

# kvm_verdict: doctor's verdict on this machine, whose /dev/kvm may open and still run no stock kernel.
kvm_verdict() {
  "$build/release/crosvm" doctor --json 2>/dev/null |
    sed -nE 's/.*"verdict"[[:space:]]*:[[:space:]]*"?([A-Za-z0-9_-]+).*/\1/p' | head -n 1 || true
}

# runs_guests_here: whether this machine's own KVM runs stock guests; says where they go otherwise.
runs_guests_here() {
  case $(kvm_verdict) in
    0 | ok | 2 | limited) return 0 ;;
  esac
  say "this machine's KVM cannot run a stock kernel (crosvm doctor tells why): using the test host, which is slow"
  return 1
}
