#include "cli/cli.h"
#include "vmm/run_vm.h"

int main(int argc, char** argv) { return crosvm::crosvm_main(argc, argv, crosvm::run_vm); }
