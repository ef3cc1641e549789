// Python bindings of src/cpp/storage: checksums, arrays that are read from their file, and the block cache. Documented
// for users of the core in _core.pyi.
#include <limits>

#include "kernels/dispatch.h"
#include "python/bindings.h"
#include "python/stored_array.h"
#include "storage/block_cache.h"

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

// int64 (n, 2), offset and length, each inside the array.
std::vector<storage::ByteRange> require_ranges(const py::object& object, std::size_t n_bytes) {
  const auto ranges = require<std::int64_t>(object, "ranges", 2);
  if (axis(ranges, 1) != 2) {
    throw py::value_error("`ranges` must have 2 columns, got " + std::to_string(ranges.shape(1)));
  }
  std::vector<storage::ByteRange> found;
  found.reserve(axis(ranges, 0));
  const std::int64_t* at = ranges.data();
  const auto end = static_cast<std::int64_t>(n_bytes);
  for (std::size_t i = 0; i < axis(ranges, 0); ++i, at += 2) {
    if (at[0] < 0 || at[1] < 0 || at[0] > end || at[1] > end - at[0]) {
      throw py::value_error("range " + std::to_string(i) + " must lie in its " + std::to_string(n_bytes) +
                            " bytes, got offset " + std::to_string(at[0]) + ", length " + std::to_string(at[1]));
    }
    found.push_back({static_cast<std::size_t>(at[0]), static_cast<std::size_t>(at[1])});
  }
  return found;
}

// A user of a file whose blocks are kept, for as long as it lives. Made and destroyed under the GIL.
class CachedFile {
 public:
  CachedFile(py::object owner, const std::string& name)
      : owner_(std::move(owner)), cache_(owner_.cast<storage::BlockCache&>()), number_(cache_.open_file(name)) {}
  ~CachedFile() { cache_.close_file(number_); }
  CachedFile(const CachedFile&) = delete;
  CachedFile& operator=(const CachedFile&) = delete;

  std::uint64_t number_in(const storage::BlockCache& cache) const {
    if (&cache == &cache_) return number_;
    throw py::value_error("`file` must be what this cache's own `file` gave, got that of another cache");
  }

 private:
  py::object owner_;  // keeps the cache alive
  storage::BlockCache& cache_;
  std::uint64_t number_;
};

storage::BlockLayout make_layout(const storage::BlockCache& cache, const CachedFile& file, py::ssize_t n_bytes,
                                 py::ssize_t block_bytes) {
  return {file.number_in(cache), require_size("n_bytes", n_bytes, 0, PY_SSIZE_T_MAX),
          require_size("block_bytes", block_bytes, 1, PY_SSIZE_T_MAX)};
}

std::unique_ptr<storage::Spans> find(storage::BlockCache& self, const CachedFile& file, py::ssize_t n_bytes,
                                     py::ssize_t block_bytes, const py::object& ranges_object) {
  const storage::BlockLayout layout = make_layout(self, file, n_bytes, block_bytes);
  return std::make_unique<storage::Spans>(self, layout, require_ranges(ranges_object, layout.n_bytes));
}

Array<bool> holds(const storage::BlockCache& self, const CachedFile& file, py::ssize_t n_bytes, py::ssize_t block_bytes,
                  const py::object& ranges_object) {
  const storage::BlockLayout layout = make_layout(self, file, n_bytes, block_bytes);
  const std::vector<storage::ByteRange> ranges = require_ranges(ranges_object, layout.n_bytes);
  Array<bool> held(static_cast<py::ssize_t>(ranges.size()));
  bool* out = held.mutable_data();
  for (const storage::ByteRange& range : ranges) *out++ = self.holds(layout, range);
  return held;
}

void fill(storage::BlockCache& self, storage::Spans& spans, const StoredArrayObject& stored, int threads) {
  const int n_threads = resolve_threads(threads);
  const storage::BlockLayout& layout = spans.layout();
  if (stored.array.n_bytes() != layout.n_bytes || stored.array.block_bytes() != layout.block_bytes) {
    throw py::value_error("`stored` must have the " + std::to_string(layout.n_bytes) + " bytes in blocks of " +
                          std::to_string(layout.block_bytes) + " that `spans` was found in, got " +
                          std::to_string(stored.array.n_bytes()) + " in blocks of " +
                          std::to_string(stored.array.block_bytes()));
  }
  if (!spans.begin_reading()) throw py::value_error("`spans` are filled already, or are being filled");
  {
    const py::gil_scoped_release release;
    spans.read(stored.array, n_threads, check_signals());
  }
  spans.keep(self);
}

// A read-only view of a range, which keeps the ranges alive.
Array<std::uint8_t> item(const py::object& self, py::ssize_t i) {
  const auto& spans = self.cast<const storage::Spans&>();
  const auto n = static_cast<py::ssize_t>(spans.size());
  if (i < 0) i += n;
  if (i < 0 || i >= n) throw py::index_error("there are " + std::to_string(n) + " ranges");
  const auto at = static_cast<std::size_t>(i);
  Array<std::uint8_t> view({static_cast<py::ssize_t>(spans.length(at))}, spans.pointers()[at], self);
  py::detail::array_proxy(view.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
  return view;
}

Array<std::uint8_t> join(const storage::Spans& spans) {
  std::size_t n = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) n += spans.length(i);
  Array<std::uint8_t> joined(static_cast<py::ssize_t>(n));
  std::uint8_t* out = joined.mutable_data();
  for (std::size_t i = 0; i < spans.size(); ++i) out = std::copy_n(spans.pointers()[i], spans.length(i), out);
  return joined;
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
  static const py::object& read = make_exception(m, "ReadError", "The system refused to read, with `errno`.");
  static const py::object& end_of_file =
      make_exception(m, "EndOfFileError", "A file ends after `position` bytes of an array's data.");
  static const py::object& checksum =
      make_exception(m, "ChecksumError", "The bytes of `block` have the CRC-32 `found`, not the one stored.");
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const storage::ReadError& error) {
      set_error(read, error, [&](const py::object& instance) { instance.attr("errno") = error.code; });
    } catch (const storage::EndOfFileError& error) {
      set_error(end_of_file, error, [&](const py::object& instance) { instance.attr("position") = error.position; });
    } catch (const storage::ChecksumError& error) {
      set_error(checksum, error, [&](const py::object& instance) {
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
            if (n == 0)
              throw py::value_error("`at` must be a byte of the array, got " + std::to_string(at) +
                                    "; the array is empty, so there is none to ask for");
            const std::size_t offset = require_size("at", at, 0, static_cast<py::ssize_t>(n) - 1);
            return self.array.in_memory(offset / self.array.block_bytes());
          },
          py::arg("at"))
      .def(
          "announce",
          [](const StoredArrayObject& self, py::ssize_t offset, py::ssize_t length) {
            const storage::StoredArray& array = self.array;
            const auto n_bytes = static_cast<py::ssize_t>(array.n_bytes());
            const std::size_t from = require_size("offset", offset, 0, n_bytes);
            const std::size_t size = require_size("length", length, 0, n_bytes - offset);
            if (size == 0) return;
            const py::gil_scoped_release release;
            array.announce(from / array.block_bytes(), (from + size - 1) / array.block_bytes() + 1);
          },
          py::arg("offset"), py::arg("length"))
      .def_property_readonly("bytes_read", [](const StoredArrayObject& self) { return self.array.bytes_read(); });
  py::class_<storage::Spans>(m, "Spans", py::module_local())
      .def("__len__", &storage::Spans::size)
      .def("__getitem__", &item, py::arg("i"))
      .def("__iter__",
           [](const py::object& self) { return py::reinterpret_steal<py::object>(PySeqIter_New(self.ptr())); })
      .def("join", &join)
      .def_property_readonly("complete", &storage::Spans::complete);
  py::class_<CachedFile>(m, "CachedFile", py::module_local());
  py::class_<storage::BlockCache>(m, "BlockCache", py::module_local())
      .def(py::init([](py::ssize_t budget) {
             return std::make_unique<storage::BlockCache>(require_size("budget_bytes", budget, 0, PY_SSIZE_T_MAX));
           }),
           py::arg("budget_bytes"))
      .def(
          "file",
          [](const py::object& self, const std::string& name) { return std::make_unique<CachedFile>(self, name); },
          py::arg("name"))
      .def("find", &find, py::arg("file"), py::arg("n_bytes"), py::arg("block_bytes"), py::arg("ranges"))
      .def("holds", &holds, py::arg("file"), py::arg("n_bytes"), py::arg("block_bytes"), py::arg("ranges"))
      .def("fill", &fill, py::arg("spans"), py::arg("stored"), py::kw_only(), py::arg("threads") = 0)
      .def("clear", &storage::BlockCache::clear)
      .def(
          "count_read", [](storage::BlockCache& self, std::uint64_t n) { self.bytes_read += n; }, py::arg("n_bytes"))
      .def("__len__", &storage::BlockCache::size)
      .def_property_readonly("n_files", &storage::BlockCache::n_files)
      .def_property_readonly("budget_bytes", &storage::BlockCache::budget_bytes)
      .def_property_readonly("used_bytes", &storage::BlockCache::used_bytes)
      .def_readonly("hits", &storage::BlockCache::hits)
      .def_readonly("misses", &storage::BlockCache::misses)
      .def_readonly("bytes_read", &storage::BlockCache::bytes_read);
}

}  // namespace nadb::python
