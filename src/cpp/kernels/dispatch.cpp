// Choice of the kernel table; see dispatch.h. A new target is one more <target>.cpp, its flags in CMakeLists.txt and
// one more line in kPriority.
#include "kernels/dispatch.h"

#include <cstdlib>
#include <stdexcept>

namespace nadb {

#ifdef NADB_AVX2
extern const KernelTable kAvx2Kernels;
#endif
extern const KernelTable kScalarKernels;

namespace {

// Every compiled target, best first: the one list of them.
const KernelTable* const kPriority[] = {
#ifdef NADB_AVX2
    &kAvx2Kernels,
#endif
    &kScalarKernels};

std::string list_targets() {
  std::string list;
  for (const KernelTable* table : kPriority) {
    if (!list.empty()) list += ", ";
    list += table->name;
    if (!table->supported()) list += " (not supported by this CPU)";
  }
  return list;
}

const KernelTable& choose() {
  const char* forced = std::getenv("NADB_FORCE_KERNELS");
  const bool any = forced == nullptr || *forced == '\0';
  for (const KernelTable* table : kPriority) {
    if ((any || std::string(forced) == table->name) && table->supported()) return *table;
  }
  throw std::runtime_error(
      "the environment variable NADB_FORCE_KERNELS must name kernels that this machine has, got '" +
      std::string(any ? "" : forced) + "'; there are: " + list_targets());
}

}  // namespace

const KernelTable& active_kernels() {
  static const KernelTable& chosen = choose();
  return chosen;
}

std::vector<std::string> compiled_kernels() {
  std::vector<std::string> names;
  for (const KernelTable* table : kPriority) names.emplace_back(table->name);
  return names;
}

}  // namespace nadb
