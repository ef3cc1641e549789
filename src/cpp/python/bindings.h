// What module.cpp registers: one function per bind_<subject>.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace nadb::python {

void bind_activation(pybind11::module_& m);
void bind_group_bounds(pybind11::module_& m);
void bind_mask_bounds(pybind11::module_& m);
void bind_mask_counts(pybind11::module_& m);
void bind_mask_histograms(pybind11::module_& m);
void bind_mask_stored(pybind11::module_& m);
void bind_mask_strips(pybind11::module_& m);
void bind_packed_codes(pybind11::module_& m);
void bind_search(pybind11::module_& m);
void bind_storage(pybind11::module_& m);
void bind_build_info(pybind11::module_& m);

}  // namespace nadb::python
