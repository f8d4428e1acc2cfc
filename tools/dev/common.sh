# Sourced by every script of tools/dev: where things are, and how we speak.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=$root/build
images=$build/images
kernels_known="cloud12 generic12 cloud13"

# Progress goes to stderr: the standard output belongs to the command that was asked for.
say() { printf 'dev: %s\n' "$*" >&2; }

# die WHAT [FIX]: one line for the cause and one for the way out.
die() {
  printf 'dev: error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'dev: fix: %s\n' "$2" >&2
  exit 1
}

# A mistake on our own command line.
usage_error() {
  printf 'dev: error: %s\ndev: fix: see ./dev help\n' "$*" >&2
  exit 2
}

# needs_value OPTION COUNT: refuses an option at the end of the line that lacks its value.
needs_value() { [ "$2" -ge 2 ] || usage_error "$1 needs a value"; }

jobs=$(nproc)
