#include "cli/disk_tools_main.h"

int main(int argc, char** argv) { return crosvm::disk_tools_main(argc, argv); }
