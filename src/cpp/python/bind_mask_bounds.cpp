// Python bindings of mask/bounds: what index rows say of boxes, strips and cells. Documented in _core.pyi.
#include <memory>

#include "mask/bounds.h"
#include "python/bindings.h"
#include "python/mask_arguments.h"

namespace nadb::python {

namespace {

using mask::Box;
using mask::IndexRow;

// One row of the index: bytes of n x grid x grid, None for what is usual without one, b"" for the opposite.
class RowBuffer {
 public:
  RowBuffer(const py::object& object, const char* name, std::size_t n_bytes, IndexRow::Kind usual) {
    row = {usual, nullptr};
    if (object.is_none()) return;
    const bool empty = PyBytes_Check(object.ptr()) && py::len(object) == 0;
    if (empty && n_bytes != 0) {
      row.kind = usual == IndexRow::kEvery ? IndexRow::kNone : IndexRow::kEvery;
      return;
    }
    buffer_ =
        std::make_unique<Buffers>(py::make_tuple(object), name, 1, [n_bytes](std::size_t) { return n_bytes; }, true);
    row = {IndexRow::kStored, static_cast<const std::uint8_t*>(buffer_->pointers()[0])};
  }
  IndexRow row{};

 private:
  std::unique_ptr<Buffers> buffer_;
};

struct IndexRowBuffers {
  IndexRowBuffers(const py::object& low_upper, const py::object& low_lower, const py::object& high_upper,
                  const py::object& high_lower, std::size_t n_bytes)
      : buffers{RowBuffer(low_upper, "low_upper", n_bytes, IndexRow::kEvery),
                RowBuffer(low_lower, "low_lower", n_bytes, IndexRow::kEvery),
                RowBuffer(high_upper, "high_upper", n_bytes, IndexRow::kNone),
                RowBuffer(high_lower, "high_lower", n_bytes, IndexRow::kNone)},
        rows{buffers[0].row, buffers[1].row, buffers[2].row, buffers[3].row} {}
  RowBuffer buffers[4];
  mask::IndexRows rows;
};

// int32 (n, 4) or (1, 4).
struct Boxes {
  explicit Boxes(py::handle object) : array(require<std::int32_t>(object, "boxes", 2)) {
    require_columns(array, "boxes", 4);
    n = axis(array, 0);
    data = reinterpret_cast<const Box*>(array.data());
  }
  Array<std::int32_t> array;
  std::size_t n;
  const Box* data;
};

// Either n rows, or one for all n.
bool one_for_all(const char* name, std::size_t rows, std::size_t n) {
  if (rows == n) return n == 1;
  if (rows == 1) return true;
  throw py::value_error("`" + std::string(name) + "` must have " + std::to_string(n) + " rows or one for all, got " +
                        std::to_string(rows));
}

void count_bounds(py::ssize_t grid, const py::object& shapes_object, const py::object& low_upper,
                  const py::object& low_lower, const py::object& high_upper, const py::object& high_lower,
                  const py::object& boxes_object, const py::object& lower_object, const py::object& upper_object,
                  int threads) {
  const std::size_t side = require_grid(grid);
  const Shapes shapes(shapes_object);
  const Boxes boxes(boxes_object);
  const std::size_t n = axis(require<double>(lower_object, "lower", 1), 0);
  Array<double> lower = require_output(lower_object, "lower", n);
  Array<double> upper = require_output(upper_object, "upper", n);
  const mask::Masks masks{n, side, shapes.data, one_for_all("shapes", shapes.n, n)};
  const bool one_box = one_for_all("boxes", boxes.n, n);
  const int n_threads = resolve_threads(threads);
  const IndexRowBuffers rows(low_upper, low_lower, high_upper, high_lower, n * side * side);
  double* lo = lower.mutable_data();
  double* hi = upper.mutable_data();
  const py::gil_scoped_release release;
  mask::count_bounds(masks, rows.rows, boxes.data, one_box, lo, hi, n_threads, check_signals());
}

void strip_bounds(py::ssize_t grid, const py::object& shapes_object, const py::object& low_upper,
                  const py::object& low_lower, const py::object& high_upper, const py::object& high_lower,
                  py::ssize_t n_masks, const py::object& positions_object, const py::object& boxes_object,
                  const py::object& lower_object, const py::object& upper_object) {
  const std::size_t side = require_grid(grid);
  const std::size_t n = require_size("n_masks", n_masks, 0, ssize(SIZE_MAX / 2 / (side * side)));
  const Shapes shapes(shapes_object);
  const Boxes boxes(boxes_object);
  const Array<std::int64_t> positions = require<std::int64_t>(positions_object, "positions", 1);
  const std::size_t k = axis(positions, 0);
  for (std::size_t i = 0; i < k; ++i) {
    const std::int64_t m = positions.data()[i];
    if (m >= 0 && m < static_cast<std::int64_t>(n)) continue;
    throw py::value_error("`positions` must lie in [0, " + std::to_string(n) + "), got " + std::to_string(m) +
                          " at position " + std::to_string(i));
  }
  Array<double> lower = require<double>(lower_object, "lower", 2);
  Array<double> upper = require<double>(upper_object, "upper", 2);
  require_writeable(lower, "lower");
  require_writeable(upper, "upper");
  require_columns(lower, "lower", ssize(side));
  require_columns(upper, "upper", ssize(side));
  require_length(lower, "lower", k, "positions");
  require_length(upper, "upper", k, "positions");
  const mask::Masks masks{n, side, shapes.data, one_for_all("shapes", shapes.n, n)};
  const bool one_box = one_for_all("boxes", boxes.n, k);
  const IndexRowBuffers rows(low_upper, low_lower, high_upper, high_lower, n * side * side);
  double* lo = lower.mutable_data();
  double* hi = upper.mutable_data();
  const py::gil_scoped_release release;
  mask::strip_bounds(masks, rows.rows, positions.data(), k, boxes.data, one_box, lo, hi);
}

void cell_bounds(py::ssize_t grid, const py::object& shapes_object, const py::object& low_upper,
                 const py::object& low_lower, const py::object& high_upper, const py::object& high_lower,
                 const py::object& lower_object, const py::object& upper_object, int threads) {
  const std::size_t side = require_grid(grid);
  const Shapes shapes(shapes_object);
  Array<std::int32_t> lower = require<std::int32_t>(lower_object, "lower", 2);
  Array<std::int32_t> upper = require<std::int32_t>(upper_object, "upper", 2);
  require_writeable(lower, "lower");
  require_writeable(upper, "upper");
  require_columns(lower, "lower", ssize(side * side));
  require_columns(upper, "upper", ssize(side * side));
  const std::size_t n = axis(lower, 0);
  require_length(upper, "upper", n, "lower");
  const mask::Masks masks{n, side, shapes.data, one_for_all("shapes", shapes.n, n)};
  const int n_threads = resolve_threads(threads);
  const IndexRowBuffers rows(low_upper, low_lower, high_upper, high_lower, n * side * side);
  std::int32_t* lo = lower.mutable_data();
  std::int32_t* hi = upper.mutable_data();
  const py::gil_scoped_release release;
  mask::cell_bounds(masks, rows.rows, lo, hi, n_threads, check_signals());
}

py::tuple cell_overlaps(py::ssize_t grid, const py::object& shapes_object, const py::object& boxes_object) {
  const std::size_t side = require_grid(grid);
  const Shapes shapes(shapes_object);
  const Boxes boxes(boxes_object);
  const std::size_t n = shapes.n == 1 ? boxes.n : shapes.n;
  const mask::Masks masks{n, side, shapes.data, one_for_all("shapes", shapes.n, n)};
  const bool one_box = one_for_all("boxes", boxes.n, n);
  const std::vector<py::ssize_t> size{ssize(n), ssize(side * side)};
  Array<std::int32_t> areas(size);
  Array<std::int32_t> overlaps(size);
  std::int32_t* area = areas.mutable_data();
  std::int32_t* overlap = overlaps.mutable_data();
  {
    const py::gil_scoped_release release;
    mask::cell_overlaps(masks, boxes.data, one_box, area, overlap);
  }
  return py::make_tuple(areas, overlaps);
}

}  // namespace

void bind_mask_bounds(py::module_& m) {
  m.def("count_bounds", &count_bounds, py::arg("grid"), py::arg("shapes"), py::arg("low_upper"), py::arg("low_lower"),
        py::arg("high_upper"), py::arg("high_lower"), py::arg("boxes"), py::arg("lower"), py::arg("upper"),
        py::kw_only(), py::arg("threads") = 0);
  m.def("strip_bounds", &strip_bounds, py::arg("grid"), py::arg("shapes"), py::arg("low_upper"), py::arg("low_lower"),
        py::arg("high_upper"), py::arg("high_lower"), py::arg("n_masks"), py::arg("positions"), py::arg("boxes"),
        py::arg("lower"), py::arg("upper"));
  m.def("cell_bounds", &cell_bounds, py::arg("grid"), py::arg("shapes"), py::arg("low_upper"), py::arg("low_lower"),
        py::arg("high_upper"), py::arg("high_lower"), py::arg("lower"), py::arg("upper"), py::kw_only(),
        py::arg("threads") = 0);
  m.def("cell_overlaps", &cell_overlaps, py::arg("grid"), py::arg("shapes"), py::arg("boxes"));
}

}  // namespace nadb::python
