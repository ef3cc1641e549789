// The map of the extension module: registers what bind_<folder>.cpp define, and nothing else.
#include <pybind11/pybind11.h>

PYBIND11_MODULE(_core, m) { m.doc() = "C++ core of neuralartifactdb"; }
