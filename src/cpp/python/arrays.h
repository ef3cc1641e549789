// NumPy arrays as the bindings take and give them: strict about dtype, number of axes and layout, never a silent cast
// or copy; every refusal says what was got and expected (style.md, "Bindings"). Also the GIL-aware glue that all
// bindings share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "parallel_for.h"
#include "storage/block_cache.h"

namespace nadb::python {

namespace py = pybind11;

// Of numbers of inputs, neurons and rows: bits and bytes of so many never overflow.
constexpr py::ssize_t kMostSize = PY_SSIZE_T_MAX / 16;

// C-contiguous arrays of one dtype: what every binding works on.
template <class T>
using Array = py::array_t<T, py::array::c_style>;

// A NumPy array of any dtype, C-contiguous and aligned, with `n_axes` axes (negative: any); TypeError or ValueError
// else.
py::array require_array(py::handle object, const char* name, int n_axes);

// The same with dtype T exactly.
template <class T>
Array<T> require(py::handle object, const char* name, int n_axes) {
  py::array array = require_array(object, name, n_axes);
  const py::dtype expected = py::dtype::of<T>();
  if (!expected.equal(array.dtype())) {
    throw py::type_error("`" + std::string(name) + "` must have dtype " + std::string(py::str(expected)) + ", got " +
                         std::string(py::str(array.dtype())));
  }
  return py::reinterpret_borrow<Array<T>>(array);
}

// An output array of n elements.
Array<double> require_output(py::handle object, const char* name, std::size_t n);

// Calls body(Array<float>) or body(Array<double>), by the dtype of a float array; TypeError for any other.
template <class Body>
auto with_real(py::handle object, const char* name, int n_axes, Body&& body) {
  const py::array array = require_array(object, name, n_axes);
  if (py::dtype::of<float>().equal(array.dtype())) return body(py::reinterpret_borrow<Array<float>>(array));
  if (py::dtype::of<double>().equal(array.dtype())) return body(py::reinterpret_borrow<Array<double>>(array));
  throw py::type_error("`" + std::string(name) + "` must have dtype float32 or float64, got " +
                       std::string(py::str(array.dtype())));
}

inline std::size_t axis(const py::array& array, int i) { return static_cast<std::size_t>(array.shape(i)); }

// A whole number in [least, most]; ValueError else.
std::size_t require_size(const char* name, py::ssize_t value, py::ssize_t least, py::ssize_t most);
int require_bits(py::ssize_t bits);

template <class T>
Array<T> copy_to_array(const std::vector<T>& values) {
  Array<T> out(static_cast<py::ssize_t>(values.size()));
  std::copy(values.begin(), values.end(), out.mutable_data());
  return out;
}

// Buffers of bytes-like objects, held for the duration of a call; the caller holds a `Spans`. Made and destroyed under
// the GIL.
class Buffers {
 public:
  // `objects`: `n` ranges of a `Spans`, a C-contiguous NumPy array of `n` rows, or a list or tuple of `n` contiguous
  // bytes-like objects; needed(i) is the least number of bytes of the i-th, or with `exact` the only one.
  template <class Needed>
  Buffers(py::handle objects, const char* name, std::size_t n, Needed&& needed, bool exact = false) {
    pointers_.reserve(n);
    if (const storage::Spans* spans = as_spans(objects, name, n)) {
      for (std::size_t i = 0; i < n; ++i) add(spans->pointers()[i], spans->length(i), name, i, needed(i), exact);
      return;
    }
    if (py::isinstance<py::array>(objects)) {
      const auto [data, row_bytes] = hold_rows(objects, name, n);
      for (std::size_t i = 0; i < n; ++i) add(data + i * row_bytes, row_bytes, name, i, needed(i), exact);
      return;
    }
    const py::sequence sequence = as_sequence(objects, name, n);
    views_.reserve(n);
    for (std::size_t i = 0; i < n; ++i) add(sequence[i], name, i, needed(i), exact);
  }

  const std::vector<const void*>& pointers() const noexcept { return pointers_; }

 private:
  // Each view by itself, so that those taken are released when a later one is refused.
  struct Release {
    void operator()(Py_buffer* view) const;
  };

  static const storage::Spans* as_spans(py::handle objects, const char* name, std::size_t n);
  static py::sequence as_sequence(py::handle objects, const char* name, std::size_t n);
  // First byte of the rows of an array, and bytes of each.
  std::pair<const std::uint8_t*, std::size_t> hold_rows(py::handle array, const char* name, std::size_t n);
  // Null where the object has no such buffer.
  const Py_buffer* hold(py::handle object, int flags);
  void add(const py::object& object, const char* name, std::size_t i, std::size_t n_bytes, bool exact);
  void add(const void* data, std::size_t size, const char* name, std::size_t i, std::size_t n_bytes, bool exact);

  std::vector<std::unique_ptr<Py_buffer, Release>> views_;
  std::vector<const void*> pointers_;
};

// A new exception type of the extension, a ValueError. It outlives the interpreter's modules on purpose: translators
// are never unregistered.
const py::object& make_exception(py::module_& m, const char* name, const char* doc);

// A poll that takes the GIL and lets a pending Ctrl-C out.
Poll check_signals();

// Marks an object as in use by a call that has released the GIL; a second call from another thread gets a RuntimeError
// instead of a data race. Made under the GIL.
class InUse {
 public:
  InUse(std::atomic<bool>& flag, const char* what);
  ~InUse() { flag_.store(false); }
  InUse(const InUse&) = delete;
  InUse& operator=(const InUse&) = delete;

 private:
  std::atomic<bool>& flag_;
};

}  // namespace nadb::python
