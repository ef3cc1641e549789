// Python bindings of src/cpp/activation. Documented for users of the core in _core.pyi.
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <optional>
#include <type_traits>
#include <variant>

#include "activation/column_writer.h"
#include "activation/edges.h"
#include "activation/group_bounds.h"
#include "activation/non_finite.h"
#include "activation/packed_codes.h"
#include "activation/row_groups.h"
#include "activation/segment_encoder.h"
#include "kernels/dispatch.h"
#include "python/arrays.h"
#include "python/bindings.h"

namespace nadb::python {

namespace {

constexpr py::ssize_t kMostSize = PY_SSIZE_T_MAX / 16;

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

// ---- bounds of a group ----------------------------------------------------------------------------------------------

CombineKind parse_combine(const std::string& text) {
  if (text == "sum") return kCombineSum;
  if (text == "min") return kCombineMin;
  if (text == "max") return kCombineMax;
  throw py::value_error("`combine` must be 'sum', 'min' or 'max', got '" + text + "'");
}

TermKind parse_term(const std::string& text) {
  if (text == "value") return kTermValue;
  if (text == "square") return kTermSquare;
  if (text == "abs_diff") return kTermAbsDiff;
  if (text == "sq_diff") return kTermSqDiff;
  if (text == "product") return kTermProduct;
  throw py::value_error("`term` must be 'value', 'square', 'abs_diff', 'sq_diff' or 'product', got '" + text + "'");
}

Term make_term(TermKind kind, std::optional<double> target, std::optional<double> weight) {
  const bool needs_target = kind == kTermAbsDiff || kind == kTermSqDiff || kind == kTermProduct;
  if (needs_target && !target) throw py::value_error("`target` is needed for this term, got None");
  if (!needs_target && target) throw py::value_error("`target` has no meaning for this term; expected None");
  if (target && !std::isfinite(*target)) {
    throw py::value_error("`target` must be finite, got " + std::to_string(*target));
  }
  if (weight && !std::isfinite(*weight)) {
    throw py::value_error("`weight` must be finite, got " + std::to_string(*weight));
  }
  return {kind, target.value_or(0.0), weight.value_or(1.0), weight.has_value()};
}

// float64 (n_neurons,).
Array<double> per_neuron(const py::object& object, const char* name, std::size_t n_neurons) {
  Array<double> array = require<double>(object, name, 1);
  if (axis(array, 0) == n_neurons) return array;
  throw py::value_error("`" + std::string(name) + "` must have one element per neuron, " + std::to_string(n_neurons) +
                        ", got " + std::to_string(array.shape(0)));
}

std::vector<Term> make_terms(TermKind kind, const py::object& targets_object, const py::object& weights_object,
                             std::size_t n_neurons) {
  Array<double> targets;
  Array<double> weights;
  if (!targets_object.is_none()) targets = per_neuron(targets_object, "targets", n_neurons);
  if (!weights_object.is_none()) weights = per_neuron(weights_object, "weights", n_neurons);
  std::vector<Term> terms;
  terms.reserve(n_neurons);
  for (std::size_t j = 0; j < n_neurons; ++j) {
    std::optional<double> target;
    std::optional<double> weight;
    if (!targets_object.is_none()) target = targets.data()[j];
    if (!weights_object.is_none()) weight = weights.data()[j];
    terms.push_back(make_term(kind, target, weight));
  }
  return terms;
}

// int64 (g + 1,) from 0 to n, never falling; returns g.
std::size_t require_starts(const Array<std::int64_t>& starts, std::size_t n) {
  const std::int64_t* at = starts.data();
  const std::size_t size = axis(starts, 0);
  bool rises = size > 0 && at[0] == 0 && at[size - 1] == static_cast<std::int64_t>(n);
  for (std::size_t j = 1; rises && j < size; ++j) rises = at[j - 1] <= at[j];
  if (rises) return size - 1;
  throw py::value_error("`starts` must rise from 0 to the number of values, " + std::to_string(n) + ", got " +
                        std::string(py::str(starts)));
}

Array<double> term_tables(const std::string& term_name, const py::object& lower_object, const py::object& upper_object,
                          const py::object& starts_object, const py::object& targets_object,
                          const py::object& weights_object) {
  const TermKind kind = parse_term(term_name);
  const Array<std::int64_t> starts = require<std::int64_t>(starts_object, "starts", 1);
  return with_real(lower_object, "values_lower", 1, [&](auto lower) {
    using Real = typename decltype(lower)::value_type;
    const Array<Real> upper = require<Real>(upper_object, "values_upper", 1);
    const std::size_t n = axis(lower, 0);
    if (axis(upper, 0) != n) {
      throw py::value_error("`values_lower` and `values_upper` must have one length, got " + std::to_string(n) +
                            " and " + std::to_string(upper.shape(0)));
    }
    const std::size_t n_neurons = require_starts(starts, n);
    const std::vector<Term> terms = make_terms(kind, targets_object, weights_object, n_neurons);
    Array<double> table({static_cast<py::ssize_t>(n), py::ssize_t{2}});
    const std::int64_t* start = starts.data();
    const Real* lo = lower.data();
    const Real* hi = upper.data();
    double* out = table.mutable_data();
    const py::gil_scoped_release release;
    const KernelTable& kernels = active_kernels();
    constexpr ColumnType kType = std::is_same_v<Real, float> ? kFloat32 : kFloat64;
    constexpr std::size_t kBlock = 1024;
    double wide_lo[kBlock];
    double wide_hi[kBlock];
    for (std::size_t j = 0; j < n_neurons; ++j) {
      const auto end = static_cast<std::size_t>(start[j + 1]);
      for (auto begin = static_cast<std::size_t>(start[j]); begin < end; begin += kBlock) {
        const std::size_t size = std::min(kBlock, end - begin);
        kernels.widen[kType](lo + begin, size, wide_lo);
        kernels.widen[kType](hi + begin, size, wide_hi);
        kernels.term_intervals[kind](wide_lo, wide_hi, size, &terms[j], out + 2 * begin);
      }
    }
    return table;
  });
}

activation::GroupShape group_shape(py::ssize_t n_neurons, py::ssize_t row_group, py::ssize_t n_inputs) {
  return {require_size("n_neurons", n_neurons, 1, kMostSize), require_size("row_group", row_group, 1, kMostSize),
          require_size("n_inputs", n_inputs, 0, kMostSize)};
}

std::size_t n_rows_total(const activation::GroupShape& shape) {
  if (shape.n_groups() != 0 && shape.n_neurons > static_cast<std::size_t>(kMostSize) / shape.n_groups()) {
    throw py::value_error("`n_neurons` x row groups is too large, got " + std::to_string(shape.n_neurons) + " x " +
                          std::to_string(shape.n_groups()));
  }
  return shape.n_groups() * shape.n_neurons;
}

// The maxima terms of a group, checked: per neuron an array or None.
struct MaximaArrays {
  MaximaArrays(const py::object& terms_object, const py::object& starts_object, const activation::GroupShape& shape) {
    const std::size_t stride = shape.n_groups() + 1;
    pointers.assign(shape.n_neurons, nullptr);
    if (!starts_object.is_none()) {
      starts = require<std::int64_t>(starts_object, "maxima_starts", 2);
      if (axis(starts, 0) != shape.n_neurons || axis(starts, 1) != stride) {
        throw py::value_error("`maxima_starts` must have shape (" + std::to_string(shape.n_neurons) + ", " +
                              std::to_string(stride) + "), got " + std::string(py::str(starts.attr("shape"))));
      }
    }
    view = {pointers.data(), starts_object.is_none() ? nullptr : starts.data()};
    if (terms_object.is_none()) return;
    if (!py::isinstance<py::list>(terms_object) && !py::isinstance<py::tuple>(terms_object)) {
      throw py::type_error("`maxima_terms` must be a list or tuple, or None");
    }
    const auto sequence = py::reinterpret_borrow<py::sequence>(terms_object);
    if (sequence.size() != shape.n_neurons) {
      throw py::value_error("`maxima_terms` must have one item per neuron, " + std::to_string(shape.n_neurons) +
                            ", got " + std::to_string(sequence.size()));
    }
    for (std::size_t j = 0; j < shape.n_neurons; ++j) add(sequence[j], j, stride);
  }

  void add(const py::object& item, std::size_t j, std::size_t stride) {
    if (item.is_none()) return;
    const std::string name = "maxima_terms[" + std::to_string(j) + "]";
    terms.push_back(require<double>(item, name.c_str(), 2));
    const Array<double>& own = terms.back();
    if (own.shape(1) != 2) {
      throw py::value_error("`" + name + "` must have shape (m, 2), got " + std::string(py::str(own.attr("shape"))));
    }
    if (view.starts == nullptr) throw py::value_error("`maxima_starts` is needed with `" + name + "`, got None");
    const std::int64_t* at = view.starts + j * stride;
    bool good = at[0] >= 0 && at[stride - 1] <= own.shape(0);
    for (std::size_t g = 1; g < stride; ++g) good = good && at[g - 1] <= at[g];
    if (!good) {
      throw py::value_error("`maxima_starts[" + std::to_string(j) + "]` must ascend inside [0, " +
                            std::to_string(own.shape(0)) + "], the length of `" + name + "`");
    }
    if (at[0] == at[stride - 1]) return;  // keeps none
    pointers[j] = own.data();
  }

  Array<std::int64_t> starts;
  std::vector<Array<double>> terms;
  std::vector<const double*> pointers;
  activation::MaximaTerms view{};
};

void code_bounds(const py::object& rows_object, py::ssize_t n_neurons, py::ssize_t row_group, py::ssize_t n_inputs,
                 py::ssize_t n_bits, const py::object& tables_object, const py::object& maxima_terms,
                 const py::object& maxima_starts, const std::string& combine_name, const py::object& lower_object,
                 const py::object& upper_object, int threads) {
  const activation::GroupShape shape = group_shape(n_neurons, row_group, n_inputs);
  const int bits = require_bits(n_bits);
  const CombineKind combine = parse_combine(combine_name);
  const int n_threads = resolve_threads(threads);
  const Array<double> tables = require<double>(tables_object, "tables", 3);
  if (axis(tables, 0) != shape.n_neurons || tables.shape(1) != py::ssize_t{1} << bits || tables.shape(2) != 2) {
    throw py::value_error("`tables` must have shape (" + std::to_string(shape.n_neurons) + ", " +
                          std::to_string(1 << bits) + ", 2), got " + std::string(py::str(tables.attr("shape"))));
  }
  const MaximaArrays maxima(maxima_terms, maxima_starts, shape);
  Array<double> lower = require_output(lower_object, "lower", shape.n_inputs);
  Array<double> upper = require_output(upper_object, "upper", shape.n_inputs);
  const Buffers rows(rows_object, "rows", n_rows_total(shape),
                     [&](std::size_t i) { return activation::packed_bytes(shape.rows_of(i / shape.n_neurons), bits); });
  std::vector<const std::uint8_t*> pointers;
  pointers.reserve(rows.pointers().size());
  for (const void* pointer : rows.pointers()) pointers.push_back(static_cast<const std::uint8_t*>(pointer));
  const double* table_data = tables.data();
  double* lo = lower.mutable_data();
  double* hi = upper.mutable_data();
  const py::gil_scoped_release release;
  activation::code_bounds(shape, pointers.data(), bits, table_data, maxima.view, combine, lo, hi, n_threads,
                          check_signals());
}

struct NamedColumn {
  const char* name;
  ColumnType type;
  std::size_t size;
};
constexpr NamedColumn kColumns[] = {
    {"float16", kFloat16, 2}, {"bfloat16", kBFloat16, 2}, {"float32", kFloat32, 4}, {"float64", kFloat64, 8}};

const NamedColumn& parse_column(const std::string& dtype) {
  for (const NamedColumn& column : kColumns) {
    if (dtype == column.name) return column;
  }
  throw py::value_error("`dtype` must be 'float16', 'bfloat16', 'float32' or 'float64', got '" + dtype + "'");
}

void value_scores(const py::object& columns_object, py::ssize_t n_neurons, py::ssize_t row_group, py::ssize_t n_inputs,
                  const std::string& dtype, const std::string& term_name, const std::string& combine_name,
                  const py::object& targets_object, const py::object& weights_object, const py::object& scores_object,
                  int threads) {
  const activation::GroupShape shape = group_shape(n_neurons, row_group, n_inputs);
  const NamedColumn& column = parse_column(dtype);
  const TermKind kind = parse_term(term_name);
  const CombineKind combine = parse_combine(combine_name);
  const int n_threads = resolve_threads(threads);
  const std::vector<Term> terms = make_terms(kind, targets_object, weights_object, shape.n_neurons);
  Array<double> scores = require_output(scores_object, "scores", shape.n_inputs);
  const Buffers columns(columns_object, "columns", n_rows_total(shape),
                        [&](std::size_t i) { return shape.rows_of(i / shape.n_neurons) * column.size; });
  double* out = scores.mutable_data();
  const py::gil_scoped_release release;
  activation::value_scores(shape, columns.pointers().data(), column.type, terms.data(), combine, out, n_threads,
                           check_signals());
}

Array<double> combine_terms(const py::object& terms_object, const std::string& combine_name) {
  const CombineKind combine = parse_combine(combine_name);
  const Array<double> terms = require<double>(terms_object, "terms", 2);
  if (terms.shape(0) < 1) throw py::value_error("`terms` must have at least one row, got 0");
  Array<double> out(terms.shape(1));
  const double* in = terms.data();
  double* result = out.mutable_data();
  {
    const py::gil_scoped_release release;
    activation::combine_terms(in, axis(terms, 0), axis(terms, 1), combine, result);
  }
  return out;
}

// ---- packed codes ---------------------------------------------------------------------------------------------------

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
  activation::decode(row.data, size, bits, codes.mutable_data());
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

  m.def("term_tables", &term_tables, py::arg("term"), py::arg("values_lower"), py::arg("values_upper"),
        py::arg("starts"), py::arg("targets") = py::none(), py::arg("weights") = py::none());
  m.def("code_bounds", &code_bounds, py::arg("rows"), py::arg("n_neurons"), py::arg("row_group"), py::arg("n_inputs"),
        py::arg("n_bits"), py::arg("tables"), py::arg("maxima_terms"), py::arg("maxima_starts"), py::arg("combine"),
        py::arg("lower"), py::arg("upper"), py::kw_only(), py::arg("threads") = 0);
  m.def("value_scores", &value_scores, py::arg("columns"), py::arg("n_neurons"), py::arg("row_group"),
        py::arg("n_inputs"), py::arg("dtype"), py::arg("term"), py::arg("combine"), py::arg("targets"),
        py::arg("weights"), py::arg("scores"), py::kw_only(), py::arg("threads") = 0);
  m.def("combine_terms", &combine_terms, py::arg("terms"), py::arg("combine"));

  m.def("decode", &decode, py::arg("row"), py::arg("n"), py::arg("n_bits"));
  m.def("decode_at", &decode_at, py::arg("rows"), py::arg("n_neurons"), py::arg("groups"), py::arg("positions"),
        py::arg("n_bits"));
  m.def("rank_at", &rank_at, py::arg("rows"), py::arg("n_neurons"), py::arg("groups"), py::arg("positions"),
        py::arg("n_bits"), py::arg("code"));
}

}  // namespace nadb::python
