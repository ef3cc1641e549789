// Python bindings of src/cpp/storage: checksums, and arrays that are read from their file. Documented for users of the
// core in _core.pyi.
#include <limits>

#include "kernels/dispatch.h"
#include "python/bindings.h"
#include "python/stored_array.h"

namespace nadb::python {

namespace {

constexpr std::size_t kLongBytes = std::size_t{1} << 15;  // the GIL is let go of for more

// The bytes of one contiguous bytes-like object, for the duration of a call. Made and destroyed under the GIL.
class BytesView {
 public:
  explicit BytesView(const py::object& object) {
    if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_SIMPLE) == 0) return;
    PyErr_Clear();
    throw py::type_error("`data` must be a contiguous bytes-like object, got " +
                         std::string(py::str(py::type::handle_of(object).attr("__name__"))));
  }
  ~BytesView() { PyBuffer_Release(&view_); }
  BytesView(const BytesView&) = delete;
  BytesView& operator=(const BytesView&) = delete;

  const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(view_.buf); }
  std::size_t size() const { return static_cast<std::size_t>(view_.len); }

 private:
  Py_buffer view_{};
};

// Runs `body` without the GIL where it takes long enough to be worth letting go of it.
template <class Body>
void run(std::size_t n_bytes, Body&& body) {
  if (n_bytes <= kLongBytes) return body();
  const py::gil_scoped_release release;
  body();
}

std::uint32_t crc32(const py::object& data, std::uint32_t start) {
  const BytesView bytes(data);
  std::uint32_t crc = 0;
  run(bytes.size(), [&] { crc = active_kernels().crc32(bytes.data(), bytes.size(), start); });
  return crc;
}

Array<std::uint32_t> block_crcs(const py::object& data, py::ssize_t block_bytes) {
  const std::size_t size = require_size("block_bytes", block_bytes, 1, PY_SSIZE_T_MAX);
  const BytesView bytes(data);
  const std::size_t n = bytes.size() / size + (bytes.size() % size != 0 ? 1 : 0);
  Array<std::uint32_t> crcs(static_cast<py::ssize_t>(n));
  std::uint32_t* out = crcs.mutable_data();
  run(bytes.size(), [&] { storage::block_crcs(bytes.data(), bytes.size(), size, out); });
  return crcs;
}

std::unique_ptr<StoredArrayObject> make_stored_array(int descriptor, py::ssize_t data_at, py::ssize_t n_bytes,
                                                     py::ssize_t block_bytes, const py::object& checksums_object) {
  const std::size_t block = require_size("block_bytes", block_bytes, 1, PY_SSIZE_T_MAX);
  const std::size_t n = require_size("n_bytes", n_bytes, 0, PY_SSIZE_T_MAX);
  require_size("data_at", data_at, 0, PY_SSIZE_T_MAX - n_bytes);
  auto checksums = require<std::uint32_t>(checksums_object, "checksums", 1);
  auto made = std::make_unique<StoredArrayObject>(descriptor, data_at, n, block, std::move(checksums));
  if (axis(made->checksums, 0) == made->array.n_blocks()) return made;
  throw py::value_error("`checksums` must have one element for each of " + std::to_string(made->array.n_blocks()) +
                        " blocks, got " + std::to_string(made->checksums.shape(0)));
}

// Every block in a bytes object of its own.
py::list read_many(const StoredArrayObject& self, const py::object& blocks_object, int threads) {
  const auto blocks = require<std::int64_t>(blocks_object, "blocks", 1);
  const std::size_t n = axis(blocks, 0);
  const storage::StoredArray& array = self.array;
  py::list found(n);
  std::vector<std::uint8_t*> targets(n);
  for (std::size_t i = 0; i < n; ++i) {
    const std::int64_t block = blocks.data()[i];
    if (block < 0 || block >= static_cast<std::int64_t>(array.n_blocks())) {
      throw py::value_error("`blocks` must lie in [0, " + std::to_string(array.n_blocks()) + "), got " +
                            std::to_string(block) + " at position " + std::to_string(i));
    }
    const auto number = static_cast<std::size_t>(block);
    const std::size_t size = array.end_of(number) - number * array.block_bytes();
    PyObject* bytes = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (bytes == nullptr) throw py::error_already_set();
    targets[i] = reinterpret_cast<std::uint8_t*>(PyBytes_AS_STRING(bytes));
    PyList_SET_ITEM(found.ptr(), static_cast<Py_ssize_t>(i), bytes);
  }
  const int n_threads = resolve_threads(threads);
  const py::gil_scoped_release release;
  storage::read_many(array, blocks.data(), n, targets.data(), n_threads, check_signals());
  return found;
}

// A type of exception, made once; outlives the interpreter's modules on purpose: translators are never unregistered.
py::object make_type(py::module_& m, const char* name, const char* doc) {
  const std::string full = std::string("neuralartifactdb._core.") + name;
  const py::object type =
      py::reinterpret_steal<py::object>(PyErr_NewExceptionWithDoc(full.c_str(), doc, PyExc_ValueError, nullptr));
  m.attr(name) = type;
  return type;
}

// Sets a Python error with the descriptor and what else there is to say.
template <class Describe>
void set_error(const py::object& type, const storage::StorageError& error, Describe&& describe) {
  const py::object instance = type(error.what());
  instance.attr("descriptor") = error.descriptor;
  describe(instance);
  PyErr_SetObject(type.ptr(), instance.ptr());
}

void register_errors(py::module_& m) {
  static const auto* read = new py::object(make_type(m, "ReadError", "The system refused to read, with `errno`."));
  static const auto* end_of_file =
      new py::object(make_type(m, "EndOfFileError", "A file ends after `position` bytes of an array's data."));
  static const auto* checksum = new py::object(
      make_type(m, "ChecksumError", "The bytes of `block` have the CRC-32 `found`, not the one stored."));
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const storage::ReadError& error) {
      set_error(*read, error, [&](const py::object& instance) { instance.attr("errno") = error.code; });
    } catch (const storage::EndOfFileError& error) {
      set_error(*end_of_file, error, [&](const py::object& instance) { instance.attr("position") = error.position; });
    } catch (const storage::ChecksumError& error) {
      set_error(*checksum, error, [&](const py::object& instance) {
        instance.attr("block") = error.block;
        instance.attr("found") = error.found;
      });
    }
  });
}

}  // namespace

void bind_storage(py::module_& m) {
  register_errors(m);
  m.def("crc32", &crc32, py::arg("data"), py::arg("start") = 0);
  m.def("block_crcs", &block_crcs, py::arg("data"), py::arg("block_bytes"));
  py::class_<StoredArrayObject>(m, "StoredArray", py::module_local())
      .def(py::init(&make_stored_array), py::arg("descriptor"), py::arg("data_at"), py::arg("n_bytes"),
           py::arg("block_bytes"), py::arg("checksums"))
      .def(
          "in_memory",
          [](const StoredArrayObject& self, py::ssize_t at) {
            const std::size_t n = self.array.n_bytes();
            const std::size_t offset = require_size("at", at, 0, static_cast<py::ssize_t>(n) - 1);
            return self.array.in_memory(offset / self.array.block_bytes());
          },
          py::arg("at"))
      .def("read_many", &read_many, py::arg("blocks"), py::kw_only(), py::arg("threads") = 0)
      .def_property_readonly("bytes_read", [](const StoredArrayObject& self) { return self.array.bytes_read(); });
}

}  // namespace nadb::python
