// Which kernels run on this machine: the first of the compiled targets that the CPU supports, or the one that the
// environment variable NADB_FORCE_KERNELS names (style.md, "Kernels").
#pragma once

#include <string>
#include <vector>

#include "kernels/kernel_table.h"

namespace nadb {

// The table chosen at the first call, for good. Throws std::runtime_error if NADB_FORCE_KERNELS names a target that is
// unknown or that this CPU cannot run; the message lists what there is.
const KernelTable& active_kernels();

// Names of the compiled targets, best first.
std::vector<std::string> compiled_kernels();

}  // namespace nadb
