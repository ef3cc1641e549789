// What this build is and what it chose: for neuralartifactdb.build_info() (style.md, "Kernels"). The NADB_* macros come
// from CMakeLists.txt.
#include <pybind11/stl.h>

#include <string>

#include "kernels/dispatch.h"
#include "parallel_for.h"
#include "python/arrays.h"
#include "python/bindings.h"

namespace nadb::python {

namespace {

std::string cpp_standard() { return "C++" + std::to_string(__cplusplus / 100 % 100); }

py::dict build_info() {
  py::dict info;
  info["version"] = NADB_VERSION;
  info["compiler"] = NADB_COMPILER;
  info["flags"] = NADB_FLAGS;
  info["cpp_standard"] = cpp_standard();
  info["kernels_compiled"] = py::cast(compiled_kernels());
  info["kernels"] = active_kernels().name;
  info["threads"] = resolve_threads(0);
  return info;
}

}  // namespace

void bind_build_info(py::module_& m) {
  m.def("build_info", &build_info);
  m.def("thread_count", [] { return resolve_threads(0); });
}

}  // namespace nadb::python
