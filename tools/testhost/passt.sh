#!/bin/bash
# The passt of Debian 13, which speaks vhost-user as Debian 12's does not: passt.sh --fetch gets it,
# passt.sh ARGUMENT... runs it. Tests know this script as $CROSVM_PASST.
source "$(dirname "$0")/../dev/common.sh"
source "$root/tools/testhost/unpacked.sh"

if [ "${1:-}" = --fetch ]; then
  fetch_unpacked passt "$build/passt"
  exit
fi
exec_unpacked "$build/passt" passt "$@"
