// Conversion and validation of arrays and buffers; see arrays.h.
#include "python/arrays.h"

namespace nadb::python {

namespace {

std::string type_name(py::handle object) { return py::str(py::type::handle_of(object).attr("__name__")); }

}  // namespace

py::array require_array(py::handle object, const char* name, int n_axes) {
  const std::string quoted = "`" + std::string(name) + "`";
  if (!py::isinstance<py::array>(object)) {
    throw py::type_error(quoted + " must be a NumPy array, got " + type_name(object));
  }
  auto array = py::reinterpret_borrow<py::array>(object);
  if (n_axes >= 0 && array.ndim() != n_axes) {
    throw py::value_error(quoted + " must have " + std::to_string(n_axes) + " axes, got " +
                          std::to_string(array.ndim()));
  }
  if ((array.flags() & py::array::c_style) == 0) {
    throw py::value_error(quoted + " must be C-contiguous, got other strides; pass np.ascontiguousarray(...)");
  }
  if ((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0) {
    throw py::value_error(quoted + " must be aligned, got an unaligned view; pass a copy");
  }
  return array;
}

Array<double> require_output(py::handle object, const char* name, std::size_t n) {
  Array<double> array = require<double>(object, name, 1);
  if (axis(array, 0) != n) {
    throw py::value_error("`" + std::string(name) + "` must have " + std::to_string(n) + " elements, got " +
                          std::to_string(array.shape(0)));
  }
  if (!array.writeable()) throw py::value_error("`" + std::string(name) + "` must be writeable, got a read-only array");
  return array;
}

std::size_t require_size(const char* name, py::ssize_t value, py::ssize_t least, py::ssize_t most) {
  if (value >= least && value <= most) return static_cast<std::size_t>(value);
  throw py::value_error("`" + std::string(name) + "` must lie in [" + std::to_string(least) + ", " +
                        std::to_string(most) + "], got " + std::to_string(value));
}

int require_bits(py::ssize_t bits) { return static_cast<int>(require_size("n_bits", bits, 1, 12)); }

const storage::Spans* Buffers::as_spans(py::handle objects, const char* name, std::size_t n) {
  if (!py::isinstance<storage::Spans>(objects)) return nullptr;
  const auto* spans = objects.cast<const storage::Spans*>();
  if (spans->size() == n) return spans;
  throw py::value_error("`" + std::string(name) + "` must have " + std::to_string(n) + " items, got " +
                        std::to_string(spans->size()));
}

py::sequence Buffers::as_sequence(py::handle objects, const char* name, std::size_t n) {
  const std::string quoted = "`" + std::string(name) + "`";
  if (!py::isinstance<py::list>(objects) && !py::isinstance<py::tuple>(objects)) {
    throw py::type_error(quoted + " must be a list or tuple of bytes-like objects, or an array, got " +
                         type_name(objects));
  }
  auto sequence = py::reinterpret_borrow<py::sequence>(objects);
  if (sequence.size() != n) {
    throw py::value_error(quoted + " must have " + std::to_string(n) + " items, got " +
                          std::to_string(sequence.size()));
  }
  return sequence;
}

std::pair<const std::uint8_t*, std::size_t> Buffers::hold_rows(py::handle array, const char* name, std::size_t n) {
  const Py_buffer* view = hold(array, PyBUF_C_CONTIGUOUS);
  if (view == nullptr) throw py::type_error("`" + std::string(name) + "` must be a C-contiguous array");
  const auto n_rows = static_cast<std::size_t>(view->ndim < 1 ? 0 : view->shape[0]);
  if (n_rows != n) {
    throw py::value_error("`" + std::string(name) + "` must have " + std::to_string(n) + " rows, got " +
                          std::to_string(n_rows));
  }
  return {static_cast<const std::uint8_t*>(view->buf), n == 0 ? 0 : static_cast<std::size_t>(view->len) / n};
}

const Py_buffer* Buffers::hold(py::handle object, int flags) {
  auto view = std::make_unique<Py_buffer>();
  if (PyObject_GetBuffer(object.ptr(), view.get(), flags) != 0) {
    PyErr_Clear();
    return nullptr;
  }
  views_.emplace_back(view.release());
  return views_.back().get();
}

void Buffers::add(const py::object& object, const char* name, std::size_t i, std::size_t n_bytes, bool exact) {
  const Py_buffer* view = hold(object, PyBUF_SIMPLE);
  if (view == nullptr) {
    throw py::type_error("`" + std::string(name) + "[" + std::to_string(i) +
                         "]` must be a contiguous bytes-like object, got " + type_name(object));
  }
  add(view->buf, static_cast<std::size_t>(view->len), name, i, n_bytes, exact);
}

void Buffers::add(const void* data, std::size_t size, const char* name, std::size_t i, std::size_t n_bytes,
                  bool exact) {
  if (size < n_bytes || (exact && size != n_bytes)) {
    throw py::value_error("`" + std::string(name) + "[" + std::to_string(i) + "]` must have " +
                          (exact ? "" : "at least ") + std::to_string(n_bytes) + " bytes, got " + std::to_string(size));
  }
  pointers_.push_back(data);
}

void Buffers::Release::operator()(Py_buffer* view) const {
  PyBuffer_Release(view);
  delete view;
}

const py::object& make_exception(py::module_& m, const char* name, const char* doc) {
  const std::string full = std::string("neuralartifactdb._core.") + name;
  PyObject* type = PyErr_NewExceptionWithDoc(full.c_str(), doc, PyExc_ValueError, nullptr);
  if (type == nullptr) throw py::error_already_set();
  const auto* held = new py::object(py::reinterpret_steal<py::object>(type));
  m.attr(name) = *held;
  return *held;
}

Poll check_signals() {
  return [] {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
  };
}

InUse::InUse(std::atomic<bool>& flag, const char* what) : flag_(flag) {
  if (!flag_.exchange(true)) return;
  throw std::runtime_error(std::string(what) + " is in use by another thread; use one object per thread");
}

}  // namespace nadb::python
