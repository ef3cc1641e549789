// Python bindings of src/cpp/activation: reading packed codes. Documented for users of the core in _core.pyi.
#include <pybind11/stl.h>

#include <algorithm>

#include "activation/packed_codes.h"
#include "python/arrays.h"
#include "python/bindings.h"

namespace nadb::python {

namespace {

py::ssize_t ssize(std::size_t n) { return static_cast<py::ssize_t>(n); }

// One bytes-like row.
struct Row {
  Row(const py::object& object, std::size_t n_bytes)
      : buffers(py::make_tuple(object), "row", 1, [n_bytes](std::size_t) { return n_bytes; }),
        data(static_cast<const std::uint8_t*>(buffers.pointers()[0])) {}

  Buffers buffers;
  const std::uint8_t* data;
};

std::size_t row_bytes(std::size_t n, int bits) { return activation::packed_bytes(n, bits); }

Array<std::uint16_t> decode(const py::object& row_object, py::ssize_t n, py::ssize_t n_bits) {
  const int bits = require_bits(n_bits);
  const std::size_t size = require_size("n", n, 0, kMostSize);
  const Row row(row_object, row_bytes(size, bits));
  Array<std::uint16_t> codes(ssize(size));
  std::uint16_t* out = codes.mutable_data();
  const py::gil_scoped_release release;
  activation::decode(row.data, size, bits, out);
  return codes;
}

// Inputs of some row groups: input i is number positions[i] of row group groups[i], and rows[r * n_neurons + j] is
// neuron j in row group r.
class RowPlaces {
 public:
  RowPlaces(const py::object& rows_object, py::ssize_t n_neurons, const py::object& groups_object,
            const py::object& positions_object, int bits)
      : n_neurons_(require_size("n_neurons", n_neurons, 1, kMostSize)),
        groups_(require<std::int64_t>(groups_object, "groups", 1)),
        positions_(require<std::int64_t>(positions_object, "positions", 1)) {
    const std::size_t n = axis(positions_, 0);
    const std::size_t n_rows = py::len(rows_object);
    if (n_rows % n_neurons_ != 0) {
      throw py::value_error("`rows` must have `n_neurons` (" + std::to_string(n_neurons_) +
                            ") items per row group, got " + std::to_string(n_rows));
    }
    by_group_.resize(n_rows / n_neurons_);
    std::vector<std::size_t> needed(by_group_.size(), 0);
    if (axis(groups_, 0) != n) {
      throw py::value_error("`groups` must have one item per position, " + std::to_string(n) + ", got " +
                            std::to_string(groups_.shape(0)));
    }
    for (std::size_t i = 0; i < n; ++i) {
      const std::int64_t group = groups_.data()[i];
      const std::int64_t position = positions_.data()[i];
      if (group < 0 || group >= static_cast<std::int64_t>(by_group_.size()) || position < 0 || position > kMostSize) {
        throw py::value_error("`groups` and `positions` must lie inside the rows, got " + std::to_string(group) +
                              " and " + std::to_string(position) + " at index " + std::to_string(i));
      }
      const auto at = static_cast<std::size_t>(group);
      by_group_[at].push_back(i);
      needed[at] = std::max(needed[at], row_bytes(static_cast<std::size_t>(position) + 1, bits));
    }
    rows_ =
        std::make_unique<Buffers>(rows_object, "rows", n_rows, [&](std::size_t i) { return needed[i / n_neurons_]; });
  }

  std::size_t n_neurons() const { return n_neurons_; }
  std::size_t n_inputs() const { return axis(positions_, 0); }

  // Calls body(neuron, row, inputs of it) for every row in which an input lies.
  template <class Body>
  void each_row(Body&& body) const {
    for (std::size_t j = 0; j < n_neurons_; ++j) {
      for (std::size_t group = 0; group < by_group_.size(); ++group) {
        if (by_group_[group].empty()) continue;
        const void* row = rows_->pointers()[group * n_neurons_ + j];
        body(j, static_cast<const std::uint8_t*>(row), by_group_[group]);
      }
    }
  }
  std::size_t position(std::size_t i) const { return static_cast<std::size_t>(positions_.data()[i]); }

 private:
  std::size_t n_neurons_;
  Array<std::int64_t> groups_;
  Array<std::int64_t> positions_;
  std::vector<std::vector<std::size_t>> by_group_;
  std::unique_ptr<Buffers> rows_;
};

Array<std::uint16_t> decode_at(const py::object& rows_object, py::ssize_t n_neurons, const py::object& groups_object,
                               const py::object& positions_object, py::ssize_t n_bits) {
  const int bits = require_bits(n_bits);
  const RowPlaces places(rows_object, n_neurons, groups_object, positions_object, bits);
  Array<std::uint16_t> codes({ssize(places.n_neurons()), ssize(places.n_inputs())});
  std::uint16_t* out = codes.mutable_data();
  const py::gil_scoped_release release;
  places.each_row([&](std::size_t j, const std::uint8_t* row, const std::vector<std::size_t>& inputs) {
    for (const std::size_t i : inputs) {
      out[j * places.n_inputs() + i] = activation::code_at(row, places.position(i), bits);
    }
  });
  return codes;
}

std::uint16_t require_code(py::ssize_t code, int bits) {
  return static_cast<std::uint16_t>(require_size("code", code, 0, (py::ssize_t{1} << bits) - 1));
}

Array<std::int64_t> rank_at(const py::object& rows_object, py::ssize_t n_neurons, const py::object& groups_object,
                            const py::object& positions_object, py::ssize_t n_bits, py::ssize_t code_number) {
  const int bits = require_bits(n_bits);
  const std::uint16_t code = require_code(code_number, bits);
  const RowPlaces places(rows_object, n_neurons, groups_object, positions_object, bits);
  Array<std::int64_t> ranks({ssize(places.n_neurons()), ssize(places.n_inputs())});
  std::int64_t* out = ranks.mutable_data();
  std::vector<std::size_t> with_code;
  std::vector<std::int64_t> positions;
  std::vector<std::int64_t> found;
  const py::gil_scoped_release release;
  places.each_row([&](std::size_t j, const std::uint8_t* row, const std::vector<std::size_t>& inputs) {
    with_code.clear();
    positions.clear();
    for (const std::size_t i : inputs) {
      out[j * places.n_inputs() + i] = -1;
      if (activation::code_at(row, places.position(i), bits) != code) continue;
      with_code.push_back(i);
      positions.push_back(static_cast<std::int64_t>(places.position(i)));
    }
    found.resize(positions.size());
    activation::rank_at(row, positions.data(), positions.size(), bits, code, found.data());
    for (std::size_t k = 0; k < found.size(); ++k) out[j * places.n_inputs() + with_code[k]] = found[k];
  });
  return ranks;
}

}  // namespace

void bind_packed_codes(py::module_& m) {
  m.def("decode", &decode, py::arg("row"), py::arg("n"), py::arg("n_bits"));
  m.def("decode_at", &decode_at, py::arg("rows"), py::arg("n_neurons"), py::arg("groups"), py::arg("positions"),
        py::arg("n_bits"));
  m.def("rank_at", &rank_at, py::arg("rows"), py::arg("n_neurons"), py::arg("groups"), py::arg("positions"),
        py::arg("n_bits"), py::arg("code"));
}

}  // namespace nadb::python
