// The map of the extension module: registers what bind_<subject>.cpp define, and nothing else. Classes and exception
// translators are local to the module, so that two builds of it can be loaded in one process.
#include <pybind11/pybind11.h>

#include <stdexcept>

#include "kernels/dispatch.h"
#include "python/bindings.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of neuralartifactdb; documented in _core.pyi";
  try {
    nadb::active_kernels();
  } catch (const std::runtime_error& error) {
    throw pybind11::import_error(error.what());
  }
  nadb::python::bind_activation(m);
  nadb::python::bind_storage(m);
  nadb::python::bind_mask_histograms(m);
  nadb::python::bind_mask_bounds(m);
  nadb::python::bind_mask_counts(m);
  nadb::python::bind_mask_stored(m);
  nadb::python::bind_mask_strips(m);
  nadb::python::bind_search(m);
  nadb::python::bind_build_info(m);
}
