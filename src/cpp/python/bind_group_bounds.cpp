// Python bindings of src/cpp/activation: tables of terms, bounds and exact scores of a group. Documented for users of
// the core in _core.pyi.
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <type_traits>

#include "activation/group_bounds.h"
#include "activation/packed_codes.h"
#include "kernels/dispatch.h"
#include "python/arrays.h"
#include "python/bindings.h"

namespace nadb::python {

namespace {

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
    constexpr ColumnType kType = std::is_same_v<Real, float> ? kFloat32 : kFloat64;
    activation::term_tables(lo, hi, kType, start, terms.data(), kind, n_neurons, out);
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
                 const py::object& upper_object, bool goes_on, int threads) {
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
  activation::code_bounds(shape, pointers.data(), bits, table_data, maxima.view, combine, goes_on, lo, hi, n_threads,
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
                  bool goes_on, int threads) {
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
  activation::value_scores(shape, columns.pointers().data(), column.type, terms.data(), combine, goes_on, out,
                           n_threads, check_signals());
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

}  // namespace

void bind_group_bounds(py::module_& m) {
  m.def("term_tables", &term_tables, py::arg("term"), py::arg("values_lower"), py::arg("values_upper"),
        py::arg("starts"), py::arg("targets") = py::none(), py::arg("weights") = py::none());
  m.def("code_bounds", &code_bounds, py::arg("rows"), py::arg("n_neurons"), py::arg("row_group"), py::arg("n_inputs"),
        py::arg("n_bits"), py::arg("tables"), py::arg("maxima_terms"), py::arg("maxima_starts"), py::arg("combine"),
        py::arg("lower"), py::arg("upper"), py::kw_only(), py::arg("goes_on") = false, py::arg("threads") = 0);
  m.def("value_scores", &value_scores, py::arg("columns"), py::arg("n_neurons"), py::arg("row_group"),
        py::arg("n_inputs"), py::arg("dtype"), py::arg("term"), py::arg("combine"), py::arg("targets"),
        py::arg("weights"), py::arg("scores"), py::kw_only(), py::arg("goes_on") = false, py::arg("threads") = 0);
  m.def("combine_terms", &combine_terms, py::arg("terms"), py::arg("combine"));
}

}  // namespace nadb::python
