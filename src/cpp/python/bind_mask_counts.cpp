// Python bindings of mask/pixel_counts: exact counts of rows in memory, of one mask and of several together. Documented
// in _core.pyi.
#include <pybind11/stl.h>

#include <limits>
#include <optional>

#include "mask/pixel_counts.h"
#include "python/bindings.h"
#include "python/mask_arguments.h"

namespace nadb::python {

namespace {

using mask::KeyRange32;

// Whole rows of masks with the columns that count, checked; the buffers come later.
struct RowArrays {
  RowArrays(py::handle widths_object, py::handle x0_object, py::handle x1_object, py::handle n_rows_object)
      : widths(require<std::int32_t>(widths_object, "widths", 1)),
        x0(require<std::int32_t>(x0_object, "x0", 1)),
        x1(require<std::int32_t>(x1_object, "x1", 1)),
        n_rows(require<std::int32_t>(n_rows_object, "n_rows", 1)),
        n(axis(widths, 0)) {
    require_length(x0, "x0", n, "widths");
    require_length(x1, "x1", n, "widths");
    require_length(n_rows, "n_rows", n, "widths");
    for (std::size_t i = 0; i < n; ++i) check(i);
    rows = {n, nullptr, widths.data(), x0.data(), x1.data(), n_rows.data()};
  }
  std::size_t n_pixels(std::size_t i) const {
    return static_cast<std::size_t>(rows.widths[i]) * static_cast<std::size_t>(rows.n_rows[i]);
  }

  Array<std::int32_t> widths;
  Array<std::int32_t> x0;
  Array<std::int32_t> x1;
  Array<std::int32_t> n_rows;
  std::size_t n;
  mask::Rows rows{};

 private:
  void check(std::size_t i) const {
    const std::int32_t width = widths.data()[i];
    const std::int32_t from = x0.data()[i];
    const std::int32_t to = x1.data()[i];
    const std::int32_t height = n_rows.data()[i];
    const std::string place = " at position " + std::to_string(i);
    if (width < 0 || height < 0 || static_cast<std::int64_t>(width) * height > mask::kMostPixels) {
      throw py::value_error("`widths` and `n_rows` must be at least 0 and at most 2**30 pixels together, got " +
                            std::to_string(width) + " and " + std::to_string(height) + place);
    }
    if (from < 0 || from > width || to < 0 || to > width) {
      throw py::value_error("`x0` and `x1` must lie in [0, " + std::to_string(width) + "], the width, got " +
                            std::to_string(from) + " and " + std::to_string(to) + place + "; clip the box");
    }
  }
};

Array<std::int64_t> count_pixels(const py::object& rows_object, const std::string& dtype, const py::object& widths,
                                 const py::object& x0, const py::object& x1, const py::object& n_rows,
                                 const std::optional<double>& low, const std::optional<double>& high,
                                 const std::optional<double>& nodata, int threads) {
  const PixelType type = parse_type(dtype, "dtype");
  RowArrays arrays(widths, x0, x1, n_rows);
  const KeyRange32 range = mask::keys_between(type, require_threshold(low, "low"), require_threshold(high, "high"));
  const std::optional<std::int32_t> exempt = nodata_key(type, nodata, dtype);
  const int n_threads = resolve_threads(threads);
  const Buffers buffers(
      rows_object, "rows", arrays.n, [&](std::size_t i) { return arrays.n_pixels(i) * mask::pixel_bytes(type); }, true);
  arrays.rows.pixels = buffers.pointers().data();
  Array<std::int64_t> counts(ssize(arrays.n));
  std::int64_t* out = counts.mutable_data();
  {
    const py::gil_scoped_release release;
    mask::count_pixels(type, arrays.rows, range, exempt, out, n_threads, check_signals());
  }
  return counts;
}

// Groups as positions of their first members, and where they end.
Array<std::int64_t> require_starts(py::handle object, std::size_t n_groups, std::size_t n_members) {
  Array<std::int64_t> starts = require<std::int64_t>(object, "starts", 1);
  if (axis(starts, 0) != n_groups + 1) {
    throw py::value_error("`starts` must have one element more than `widths`, " + std::to_string(n_groups + 1) +
                          ", got " + std::to_string(starts.shape(0)));
  }
  const std::int64_t* data = starts.data();
  if (data[0] != 0 || data[n_groups] != static_cast<std::int64_t>(n_members)) {
    throw py::value_error("`starts` must go from 0 to the number of buffers, " + std::to_string(n_members) + ", got " +
                          std::to_string(data[0]) + " to " + std::to_string(data[n_groups]));
  }
  for (std::size_t i = 0; i < n_groups; ++i) {
    if (data[i] < data[i + 1]) continue;
    throw py::value_error("`starts` must ascend, every group having a member, got " + std::to_string(data[i]) +
                          " before " + std::to_string(data[i + 1]) + " at position " + std::to_string(i));
  }
  return starts;
}

std::vector<mask::Member> read_members(const py::object& dtypes_object, const py::object& lows_object,
                                       const py::object& highs_object, const py::object& nodatas_object,
                                       const py::object& has_nodata_object) {
  const auto lows = require<double>(lows_object, "lows", 1);
  const auto highs = require<double>(highs_object, "highs", 1);
  const auto nodatas = require<double>(nodatas_object, "nodatas", 1);
  const auto has_nodata = require<bool>(has_nodata_object, "has_nodata", 1);
  const std::size_t m = axis(lows, 0);
  require_length(highs, "highs", m, "lows");
  require_length(nodatas, "nodatas", m, "lows");
  require_length(has_nodata, "has_nodata", m, "lows");
  if (!py::isinstance<py::list>(dtypes_object) && !py::isinstance<py::tuple>(dtypes_object)) {
    throw py::type_error("`dtypes` must be a list or tuple of str, got " +
                         std::string(py::str(py::type::handle_of(dtypes_object).attr("__name__"))));
  }
  const auto dtypes = py::reinterpret_borrow<py::sequence>(dtypes_object);
  if (dtypes.size() != m) {
    throw py::value_error("`dtypes` must have " + std::to_string(m) + " items, as `lows` has, got " +
                          std::to_string(dtypes.size()));
  }
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  std::vector<mask::Member> members;
  members.reserve(m);
  for (std::size_t k = 0; k < m; ++k) {
    const py::object name = dtypes[k];
    if (!py::isinstance<py::str>(name)) {
      throw py::type_error("`dtypes` must hold str, got " + std::string(py::repr(name)) + " at position " +
                           std::to_string(k));
    }
    const auto dtype = name.cast<std::string>();
    const PixelType type = parse_type(dtype, "dtypes");
    const double low = require_number(lows.data()[k], "lows");
    const double high = require_number(highs.data()[k], "highs");
    mask::Member member{};
    member.type = type;
    member.range = mask::keys_between(type, low == -kInfinity ? std::nullopt : std::optional<double>(low),
                                      high == kInfinity ? std::nullopt : std::optional<double>(high));
    if (has_nodata.data()[k]) {
      member.nodata = require_key(type, nodatas.data()[k], "nodatas", " at position " + std::to_string(k), dtype);
    }
    members.push_back(member);
  }
  return members;
}

py::tuple count_joint(const py::object& rows_object, const py::object& dtypes, const py::object& starts_object,
                      const py::object& widths, const py::object& x0, const py::object& x1, const py::object& n_rows,
                      const py::object& lows, const py::object& highs, const py::object& nodatas,
                      const py::object& has_nodata, int threads) {
  RowArrays arrays(widths, x0, x1, n_rows);
  const std::vector<mask::Member> members = read_members(dtypes, lows, highs, nodatas, has_nodata);
  const Array<std::int64_t> starts = require_starts(starts_object, arrays.n, members.size());
  const int n_threads = resolve_threads(threads);
  std::vector<std::size_t> n_bytes;
  n_bytes.reserve(members.size());
  for (std::size_t i = 0; i < arrays.n; ++i) {
    for (std::int64_t k = starts.data()[i]; k < starts.data()[i + 1]; ++k) {
      n_bytes.push_back(arrays.n_pixels(i) * mask::pixel_bytes(members[static_cast<std::size_t>(k)].type));
    }
  }
  const Buffers buffers(rows_object, "rows", members.size(), [&](std::size_t k) { return n_bytes[k]; }, true);
  arrays.rows.pixels = buffers.pointers().data();
  Array<std::int64_t> every(ssize(arrays.n));
  Array<std::int64_t> some(ssize(arrays.n));
  std::int64_t* all = every.mutable_data();
  std::int64_t* any = some.mutable_data();
  const std::int64_t* first = starts.data();
  {
    const py::gil_scoped_release release;
    mask::count_joint(arrays.rows, first, members.data(), all, any, n_threads, check_signals());
  }
  return py::make_tuple(every, some);
}

}  // namespace

void bind_mask_counts(py::module_& m) {
  m.def("count_pixels", &count_pixels, py::arg("rows"), py::arg("dtype"), py::arg("widths"), py::arg("x0"),
        py::arg("x1"), py::arg("n_rows"), py::arg("low"), py::arg("high"), py::arg("nodata"), py::kw_only(),
        py::arg("threads") = 0);
  m.def("count_joint", &count_joint, py::arg("rows"), py::arg("dtypes"), py::arg("starts"), py::arg("widths"),
        py::arg("x0"), py::arg("x1"), py::arg("n_rows"), py::arg("lows"), py::arg("highs"), py::arg("nodatas"),
        py::arg("has_nodata"), py::kw_only(), py::arg("threads") = 0);
}

}  // namespace nadb::python
