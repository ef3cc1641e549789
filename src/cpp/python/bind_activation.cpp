// Python bindings of src/cpp/activation: edges and encoders; group bounds and packed codes are in files of their own.
// Documented for users of the core in _core.pyi.
#include <pybind11/stl.h>

#include <limits>
#include <optional>
#include <type_traits>
#include <variant>

#include "activation/column_writer.h"
#include "activation/edges.h"
#include "activation/non_finite.h"
#include "activation/row_groups.h"
#include "activation/segment_encoder.h"
#include "python/arrays.h"
#include "python/bindings.h"

namespace nadb::python {

namespace {

py::ssize_t ssize(std::size_t n) { return static_cast<py::ssize_t>(n); }

// ---- edges ----------------------------------------------------------------------------------------------------------

py::array choose_edges(const py::object& sample_object, py::ssize_t n_bits, py::ssize_t top_count, int threads) {
  return with_real(sample_object, "sample", 2, [&](auto sample) -> py::array {
    using Real = typename decltype(sample)::value_type;
    const int bits = require_bits(n_bits);
    const std::size_t top = require_size("top_count", top_count, 0, PY_SSIZE_T_MAX);
    const int n_threads = resolve_threads(threads);
    if (sample.shape(0) < 1) throw py::value_error("`sample` must have at least one row, got 0");
    Array<Real> edges({sample.shape(1), (py::ssize_t{1} << bits) - 1});
    const Real* in = sample.data();
    Real* out = edges.mutable_data();
    {
      const py::gil_scoped_release release;
      activation::choose_edges(in, axis(sample, 0), axis(sample, 1), bits, top, out, n_threads, check_signals());
    }
    return edges;
  });
}

// ---- encoders -------------------------------------------------------------------------------------------------------

// The arrays of an append, checked against the encoder's width; `batch` borrows from them.
template <class Real>
struct BatchArrays {
  BatchArrays(const py::object& batch_object, const py::object& sample_object, const py::object& order_object,
              std::size_t n_neurons)
      : batch_array(require<Real>(batch_object, "batch", 2)), order(require<std::int32_t>(order_object, "order", 1)) {
    check_width("batch", batch_array, n_neurons);
    batch = {batch_array.data(), axis(batch_array, 0), nullptr, 0, order.data(), axis(order, 0)};
    if (sample_object.is_none()) return;
    sample = require<Real>(sample_object, "sample", 2);
    check_width("sample", sample, n_neurons);
    batch.sample = sample.data();
    batch.n_sample = axis(sample, 0);
  }

  static void check_width(const char* name, const py::array& array, std::size_t n_neurons) {
    if (axis(array, 1) == n_neurons) return;
    throw py::value_error("`" + std::string(name) + "` must have " + std::to_string(n_neurons) +
                          " columns (neurons), got " + std::to_string(array.shape(1)));
  }

  Array<Real> batch_array;
  Array<std::int32_t> order;
  Array<Real> sample;
  activation::Batch<Real> batch{};
};

// An array that owns `bytes`.
template <class T>
Array<T> own_bytes(activation::Bytes bytes, std::vector<py::ssize_t> shape) {
  void* data = bytes.get();
  const py::capsule owner(data, [](void* pointer) { activation::FreeDeleter()(pointer); });
  static_cast<void>(bytes.release());
  return Array<T>(std::move(shape), static_cast<const T*>(data), owner);
}

py::object row_group_array(std::optional<activation::RowGroup> group, std::size_t n_neurons) {
  if (!group) return py::none();
  return own_bytes<std::uint8_t>(std::move(group->bytes), {ssize(n_neurons), ssize(group->row_bytes)});
}

struct EncoderObject {
  using Encoder = std::variant<activation::SegmentEncoder<float>, activation::SegmentEncoder<double>>;

  EncoderObject(Encoder made, int n_threads) : encoder(std::move(made)), threads(n_threads) {}

  Encoder encoder;
  int threads;
  std::atomic<bool> in_use{false};
};

std::unique_ptr<EncoderObject> make_encoder(const py::object& edges_object, py::ssize_t n_inputs, py::ssize_t row_group,
                                            py::ssize_t maxima_cap, int threads) {
  return with_real(edges_object, "edges", 2, [&](auto edges) {
    using Real = typename decltype(edges)::value_type;
    const std::size_t n = require_size("n_inputs", n_inputs, 1, kMostSize);
    const std::size_t rows = require_size("row_group", row_group, 1, kMostSize);
    const std::size_t cap = require_size("maxima_cap", maxima_cap, 0, std::numeric_limits<std::int32_t>::max());
    const int n_threads = resolve_threads(threads);
    int bits = 1;
    while (bits < 12 && (py::ssize_t{1} << bits) - 1 != edges.shape(1)) ++bits;
    if ((py::ssize_t{1} << bits) - 1 != edges.shape(1)) {
      throw py::value_error("`edges` must have 2**b - 1 columns for some b from 1 to 12, got " +
                            std::to_string(edges.shape(1)));
    }
    if (edges.shape(0) < 1) throw py::value_error("`edges` must have at least one row (neuron), got 0");
    const Real* data = edges.data();
    const std::size_t n_neurons = axis(edges, 0);
    const auto make = [&] {
      const py::gil_scoped_release release;
      return activation::SegmentEncoder<Real>(data, n_neurons, bits, n, rows, cap, n_threads);
    };
    return std::make_unique<EncoderObject>(make(), n_threads);
  });
}

template <class Object>
void append(Object& self, const py::object& batch, const py::object& sample, const py::object& order) {
  std::visit(
      [&](auto& encoder) {
        using Real = typename std::decay_t<decltype(encoder)>::Value;
        const BatchArrays<Real> arrays(batch, sample, order, encoder.groups().n_neurons());
        const InUse guard(self.in_use, "this encoder");
        const py::gil_scoped_release release;
        encoder.append(arrays.batch, self.threads);
      },
      self.encoder);
}

template <class Object>
py::object take_row_group(Object& self) {
  const InUse guard(self.in_use, "this encoder");
  return std::visit(
      [](auto& encoder) { return row_group_array(encoder.take_row_group(), encoder.groups().n_neurons()); },
      self.encoder);
}

template <class Object>
std::size_t n_appended(Object& self) {
  const InUse guard(self.in_use, "this encoder");
  return std::visit([](auto& encoder) { return encoder.groups().n_appended(); }, self.encoder);
}

py::tuple finish_encoder(EncoderObject& self) {
  const InUse guard(self.in_use, "this encoder");
  return std::visit(
      [](auto& encoder) -> py::tuple {
        using Real = typename std::decay_t<decltype(encoder)>::Value;
        {
          const py::gil_scoped_release release;
          encoder.finish();
        }
        const py::ssize_t n_neurons = ssize(encoder.groups().n_neurons());
        Array<std::int64_t> starts({n_neurons, ssize(encoder.groups().n_groups() + 1)});
        Array<Real> maxima(ssize(encoder.n_maxima()));
        std::int64_t* starts_out = starts.mutable_data();
        Real* maxima_out = maxima.mutable_data();
        {
          const py::gil_scoped_release release;
          encoder.write_maxima(starts_out, maxima_out);
        }
        const auto bounds =
            own_bytes<Real>(encoder.take_bounds(), {n_neurons, py::ssize_t{1} << encoder.bits(), py::ssize_t{2}});
        return py::make_tuple(bounds, starts, maxima);
      },
      self.encoder);
}

struct WriterObject {
  using Writer = std::variant<activation::ColumnWriter<float>, activation::ColumnWriter<double>>;

  WriterObject(Writer made, int n_threads) : encoder(std::move(made)), threads(n_threads) {}

  Writer encoder;
  int threads;
  std::atomic<bool> in_use{false};
};

std::unique_ptr<WriterObject> make_writer(py::ssize_t n_inputs, py::ssize_t row_group, py::ssize_t n_neurons,
                                          const std::string& dtype, int threads) {
  const std::size_t n = require_size("n_inputs", n_inputs, 1, kMostSize);
  const std::size_t rows = require_size("row_group", row_group, 1, kMostSize);
  const std::size_t neurons = require_size("n_neurons", n_neurons, 1, kMostSize);
  const int n_threads = resolve_threads(threads);
  if (dtype == "float32") {
    return std::make_unique<WriterObject>(activation::ColumnWriter<float>(n, rows, neurons), n_threads);
  }
  if (dtype == "float64") {
    return std::make_unique<WriterObject>(activation::ColumnWriter<double>(n, rows, neurons), n_threads);
  }
  throw py::value_error("`dtype` must be 'float32' or 'float64', got '" + dtype + "'");
}

void finish_writer(WriterObject& self) {
  const InUse guard(self.in_use, "this encoder");
  std::visit([](const auto& encoder) { encoder.finish(); }, self.encoder);
}

void register_non_finite(py::module_& m) {
  static const py::object& type =
      make_exception(m, "NonFiniteError", "A NaN or an infinity among activations, with `row`, `neuron` and `value`.");
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const activation::NonFiniteError& error) {
      const py::object instance = type(error.what());
      instance.attr("row") = error.row;
      instance.attr("neuron") = error.neuron;
      instance.attr("value") = error.value;
      PyErr_SetObject(type.ptr(), instance.ptr());
    }
  });
}

}  // namespace

void bind_activation(py::module_& m) {
  register_non_finite(m);

  m.def("choose_edges", &choose_edges, py::arg("sample"), py::arg("n_bits"), py::arg("top_count"), py::kw_only(),
        py::arg("threads") = 0);

  py::class_<EncoderObject>(m, "SegmentEncoder", py::module_local())
      .def(py::init(&make_encoder), py::arg("edges"), py::arg("n_inputs"), py::arg("row_group"), py::arg("maxima_cap"),
           py::kw_only(), py::arg("threads") = 0)
      .def("append", &append<EncoderObject>, py::arg("batch"), py::arg("sample"), py::arg("order"))
      .def("take_row_group", &take_row_group<EncoderObject>)
      .def("finish", &finish_encoder)
      .def_property_readonly("n_appended", &n_appended<EncoderObject>);

  py::class_<WriterObject>(m, "ColumnWriter", py::module_local())
      .def(py::init(&make_writer), py::arg("n_inputs"), py::arg("row_group"), py::arg("n_neurons"), py::arg("dtype"),
           py::kw_only(), py::arg("threads") = 0)
      .def("append", &append<WriterObject>, py::arg("batch"), py::arg("sample"), py::arg("order"))
      .def("take_row_group", &take_row_group<WriterObject>)
      .def("finish", &finish_writer)
      .def_property_readonly("n_appended", &n_appended<WriterObject>);
  bind_group_bounds(m);
  bind_packed_codes(m);
}

}  // namespace nadb::python
