// Python bindings of src/cpp/mask. Documented for users of the core in _core.pyi.
#include <pybind11/stl.h>

#include <cmath>
#include <limits>
#include <optional>

#include "mask/bounds.h"
#include "mask/histograms.h"
#include "mask/pixel_counts.h"
#include "mask/stored_counts.h"
#include "mask/strips.h"
#include "python/arrays.h"
#include "python/bindings.h"
#include "python/stored_array.h"

namespace nadb::python {

namespace {

using mask::Box;
using mask::IndexRow;
using mask::KeyRange32;
using mask::Shape;

py::ssize_t ssize(std::size_t n) { return static_cast<py::ssize_t>(n); }

std::string text_of(double value) { return py::str(py::float_(value)); }

PixelType parse_type(const std::string& dtype, const char* name) {
  if (dtype == "uint8") return kPixelU8;
  if (dtype == "uint16") return kPixelU16;
  if (dtype == "float16") return kPixelF16;
  if (dtype == "float32") return kPixelF32;
  throw py::value_error("`" + std::string(name) + "` must be 'uint8', 'uint16', 'float16' or 'float32', got '" + dtype +
                        "'");
}

std::size_t require_grid(py::ssize_t grid) { return require_size("grid", grid, 1, mask::kMostGridSide); }

// Axis 0 of an array must be n.
void require_length(const py::array& array, const char* name, std::size_t n, const char* of) {
  if (axis(array, 0) == n) return;
  throw py::value_error("`" + std::string(name) + "` must have " + std::to_string(n) + " rows, as `" + of +
                        "` has, got " + std::to_string(array.shape(0)));
}

void require_columns(const py::array& array, const char* name, py::ssize_t columns) {
  if (array.shape(1) == columns) return;
  throw py::value_error("`" + std::string(name) + "` must have " + std::to_string(columns) + " columns, got " +
                        std::to_string(array.shape(1)));
}

void require_writeable(const py::array& array, const char* name) {
  if (array.writeable()) return;
  throw py::value_error("`" + std::string(name) + "` must be writeable, got a read-only array");
}

// int32 (n, 2) of heights and widths, none negative, no mask larger than the core can add up.
struct Shapes {
  explicit Shapes(py::handle object) : array(require<std::int32_t>(object, "shapes", 2)) {
    require_columns(array, "shapes", 2);
    n = axis(array, 0);
    data = reinterpret_cast<const Shape*>(array.data());
    for (std::size_t m = 0; m < n; ++m) {
      const Shape& shape = data[m];
      const bool fits = shape.height >= 0 && shape.width >= 0 &&
                        static_cast<std::int64_t>(shape.height) * shape.width <= mask::kMostPixels;
      if (fits) continue;
      throw py::value_error(
          "`shapes` must hold heights and widths of at least 0 and at most 2**30 pixels together, got (" +
          std::to_string(shape.height) + ", " + std::to_string(shape.width) + ") at row " + std::to_string(m));
    }
  }
  std::size_t n_bytes(std::size_t m, PixelType type) const {
    return static_cast<std::size_t>(data[m].height) * static_cast<std::size_t>(data[m].width) * mask::pixel_bytes(type);
  }

  Array<std::int32_t> array;
  std::size_t n;
  const Shape* data;
};

double require_number(double value, const char* name) {
  if (!std::isnan(value)) return value;
  throw py::value_error("`" + std::string(name) + "` must not be NaN");
}

std::optional<double> require_threshold(const std::optional<double>& value, const char* name) {
  if (value) require_number(*value, name);
  return value;
}

// The key of a value that pixels of the type can have.
std::int32_t require_key(PixelType type, double value, const char* name, const std::string& place,
                         const std::string& dtype) {
  const std::optional<std::int32_t> key = mask::key_of_value(type, value);
  if (key) return *key;
  throw py::value_error("`" + std::string(name) + "` must be a value of dtype " + dtype + ", got " + text_of(value) +
                        place);
}

std::optional<std::int32_t> nodata_key(PixelType type, const std::optional<double>& nodata, const std::string& dtype) {
  if (!nodata) return std::nullopt;
  return require_key(type, *nodata, "nodata", "", dtype);
}

py::object check_pixels(const py::object& masks_object, const std::string& dtype, const py::object& shapes_object,
                        double low, double high, const std::optional<double>& nodata, int threads) {
  const PixelType type = parse_type(dtype, "dtype");
  const Shapes shapes(shapes_object);
  require_number(low, "low");
  require_number(high, "high");
  const KeyRange32 range{mask::first_key_from(type, low), mask::first_key_above(type, high) - 1};
  if (range.empty()) {
    throw py::value_error("`low` and `high` must hold a value of dtype " + dtype + " between them, got " +
                          text_of(low) + " and " + text_of(high));
  }
  const std::optional<std::int32_t> exempt = nodata_key(type, nodata, dtype);
  const int n_threads = resolve_threads(threads);
  const Buffers masks(masks_object, "masks", shapes.n, [&](std::size_t m) { return shapes.n_bytes(m, type); }, true);
  std::optional<mask::BadPixel> bad;
  {
    const py::gil_scoped_release release;
    bad = mask::check_pixels(type, masks.pointers().data(), shapes.data, shapes.n, range, exempt, n_threads,
                             check_signals());
  }
  if (!bad) return py::none();
  py::object value = py::float_(bad->value);
  if (!mask::is_float(type)) value = py::int_(static_cast<int>(bad->value));
  return py::make_tuple(bad->mask, bad->y, bad->x, value);
}

std::vector<std::int32_t> edge_keys(PixelType type, const Array<double>& edges, const std::string& dtype) {
  std::vector<std::int32_t> keys;
  for (std::size_t e = 0; e < axis(edges, 0); ++e) {
    const double value = edges.data()[e];
    const std::string place = " at position " + std::to_string(e);
    if (std::isnan(value)) throw py::value_error("`edges` must not be NaN, got NaN" + place);
    keys.push_back(require_key(type, value, "edges", place, dtype));
    if (e == 0 || keys[e - 1] < keys[e]) continue;
    throw py::value_error("`edges` must ascend, got " + text_of(edges.data()[e - 1]) + " before " + text_of(value) +
                          place);
  }
  return keys;
}

void mask_histograms(const py::object& masks_object, const std::string& dtype, const py::object& shapes_object,
                     const py::object& edges_object, py::ssize_t grid, const std::optional<double>& nodata,
                     const py::object& out_object, int threads) {
  const PixelType type = parse_type(dtype, "dtype");
  const Shapes shapes(shapes_object);
  const std::size_t side = require_grid(grid);
  const Array<double> edges = require<double>(edges_object, "edges", 1);
  const mask::HistogramEdges plan(type, edge_keys(type, edges, dtype), nodata_key(type, nodata, dtype));
  Array<std::uint8_t> out = require<std::uint8_t>(out_object, "out", 3);
  require_writeable(out, "out");
  if (axis(out, 0) != axis(edges, 0) || axis(out, 1) != shapes.n || axis(out, 2) != side * side) {
    throw py::value_error("`out` must have shape (edges, masks, grid * grid) = (" + std::to_string(edges.shape(0)) +
                          ", " + std::to_string(shapes.n) + ", " + std::to_string(side * side) + "), got (" +
                          std::to_string(out.shape(0)) + ", " + std::to_string(out.shape(1)) + ", " +
                          std::to_string(out.shape(2)) + ")");
  }
  const int n_threads = resolve_threads(threads);
  const Buffers masks(masks_object, "masks", shapes.n, [&](std::size_t m) { return shapes.n_bytes(m, type); }, true);
  std::uint8_t* bytes = out.mutable_data();
  const py::gil_scoped_release release;
  mask::mask_histograms(plan, masks.pointers().data(), shapes.data, shapes.n, side, bytes, n_threads, check_signals());
}

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

// The arrays that masks are in, and which of them each mask is in.
struct StoredArrays {
  StoredArrays(const py::object& list_object, const py::object& array_of_object, std::size_t pixel)
      : list(list_object), array_of(require<std::int32_t>(array_of_object, "array_of", 1)) {
    for (const py::handle item : list) {
      if (!py::isinstance<StoredArrayObject>(item)) {
        throw py::type_error("`arrays` must hold StoredArray, got " + std::string(py::repr(item)));
      }
      const storage::StoredArray& array = item.cast<const StoredArrayObject&>().array;
      if (array.block_bytes() % pixel != 0) {
        throw py::value_error("`arrays` must have blocks of whole pixels of " + std::to_string(pixel) + " bytes, got " +
                              std::to_string(array.block_bytes()) + " bytes");
      }
      pointers.push_back(&array);
    }
    for (std::size_t i = 0; i < axis(array_of, 0); ++i) {
      const std::int32_t number = array_of.data()[i];
      if (number >= 0 && static_cast<std::size_t>(number) < pointers.size()) continue;
      throw py::value_error("`array_of` must lie in [0, " + std::to_string(pointers.size()) + "), got " +
                            std::to_string(number) + " at position " + std::to_string(i));
    }
  }

  py::list list;
  Array<std::int32_t> array_of;
  std::vector<const storage::StoredArray*> pointers;
};

// int32 (leaves, masks, 4), every box within its mask and every mask within its array.
const mask::PixelBox* require_boxes(const Array<std::int32_t>& boxes, const Array<std::int64_t>& offsets,
                                    const Array<std::int32_t>& widths, std::size_t size, const StoredArrays& arrays) {
  const auto* data = reinterpret_cast<const mask::PixelBox*>(boxes.data());
  const std::size_t n = axis(offsets, 0);
  const auto pixel = static_cast<std::int64_t>(size);
  for (std::size_t i = 0; i < n; ++i) {
    const auto number = static_cast<std::size_t>(arrays.array_of.data()[i]);
    const auto n_bytes = static_cast<std::int64_t>(arrays.pointers[number]->n_bytes());
    const std::int64_t offset = offsets.data()[i];
    const auto place = [&] { return " at position " + std::to_string(i); };
    if (offset < 0 || offset > n_bytes || offset % pixel != 0) {
      throw py::value_error("`offsets` must be multiples of " + std::to_string(size) + " in [0, " +
                            std::to_string(n_bytes) + "], got " + std::to_string(offset) + place());
    }
    const std::int32_t width = widths.data()[i];
    for (std::size_t leaf = 0; leaf < axis(boxes, 0); ++leaf) {
      const mask::PixelBox& box = data[leaf * n + i];
      const bool ordered = 0 <= box.x0 && box.x0 <= box.x1 && box.x1 <= width && 0 <= box.y0 && box.y0 <= box.y1;
      const std::int64_t n_pixels = static_cast<std::int64_t>(width) * box.y1;
      if (ordered && n_pixels <= mask::kMostPixels && n_pixels * pixel <= n_bytes - offset) continue;
      throw py::value_error("`boxes` must lie within their masks, and those within their array, got (" +
                            std::to_string(box.x0) + ", " + std::to_string(box.y0) + ", " + std::to_string(box.x1) +
                            ", " + std::to_string(box.y1) + ") of leaf " + std::to_string(leaf) +
                            " for a mask of width " + std::to_string(width) + place() + "; clip the box");
    }
  }
  return data;
}

Array<std::int64_t> count_stored(const py::object& arrays_object, const py::object& array_of_object,
                                 const std::string& dtype, const py::object& offsets_object,
                                 const py::object& widths_object, const py::object& boxes_object,
                                 const std::vector<std::pair<std::optional<double>, std::optional<double>>>& limits,
                                 const std::optional<double>& nodata, int threads) {
  const PixelType type = parse_type(dtype, "dtype");
  const std::size_t size = mask::pixel_bytes(type);
  const StoredArrays arrays(arrays_object, array_of_object, size);
  const auto offsets = require<std::int64_t>(offsets_object, "offsets", 1);
  const auto widths = require<std::int32_t>(widths_object, "widths", 1);
  const auto boxes = require<std::int32_t>(boxes_object, "boxes", 3);
  const std::size_t n = axis(arrays.array_of, 0);
  require_length(offsets, "offsets", n, "array_of");
  require_length(widths, "widths", n, "array_of");
  if (axis(boxes, 0) != limits.size() || axis(boxes, 1) != n || axis(boxes, 2) != 4) {
    throw py::value_error("`boxes` must have shape (limits, masks, 4) = (" + std::to_string(limits.size()) + ", " +
                          std::to_string(n) + ", 4), got (" + std::to_string(boxes.shape(0)) + ", " +
                          std::to_string(boxes.shape(1)) + ", " + std::to_string(boxes.shape(2)) + ")");
  }
  std::vector<KeyRange32> ranges;
  for (const auto& [low, high] : limits) {
    ranges.push_back(mask::keys_between(type, require_threshold(low, "limits"), require_threshold(high, "limits")));
  }
  mask::StoredMasks masks{};
  masks.type = type;
  masks.nodata = nodata_key(type, nodata, dtype);
  masks.n_arrays = arrays.pointers.size();
  masks.arrays = arrays.pointers.data();
  masks.n = n;
  masks.array_of = arrays.array_of.data();
  masks.offsets = offsets.data();
  masks.widths = widths.data();
  masks.n_leaves = limits.size();
  masks.boxes = require_boxes(boxes, offsets, widths, size, arrays);
  masks.ranges = ranges.data();
  const int n_threads = resolve_threads(threads);
  Array<std::int64_t> counts(std::vector<py::ssize_t>{ssize(limits.size()), ssize(n)});
  std::int64_t* out = counts.mutable_data();
  {
    const py::gil_scoped_release release;
    mask::count_stored(masks, out, n_threads, check_signals());
  }
  return counts;
}

// The arrays of a mask::Strips, and positions in them.
struct StripArrays {
  StripArrays(const py::object& starts_object, const py::object& boxes_object, const py::object& lower_object,
              const py::object& upper_object, const py::object& at_object)
      : starts(require<std::int32_t>(starts_object, "starts", 2)),
        boxes(require<std::int32_t>(boxes_object, "boxes", 3)),
        lower(require<double>(lower_object, "lower", 3)),
        upper(require<double>(upper_object, "upper", 3)),
        at(require<std::int64_t>(at_object, "at", 1)) {
    require_writeable(lower, "lower");
    require_writeable(upper, "upper");
    const std::size_t n = axis(lower, 1);
    const std::size_t grid = axis(lower, 2);
    const auto must = [](bool holds, const char* name, const char* shape) {
      if (!holds) throw py::value_error("`" + std::string(name) + "` must have shape " + shape);
    };
    must(axis(upper, 0) == axis(lower, 0) && axis(upper, 1) == n && axis(upper, 2) == grid, "upper", "of `lower`");
    must(grid > 0 && axis(starts, 0) == n && axis(starts, 1) == grid + 1, "starts", "(masks, grid + 1)");
    must(axis(boxes, 0) == axis(lower, 0) && axis(boxes, 1) == n && axis(boxes, 2) == 4, "boxes", "(leaves, masks, 4)");
    for (std::size_t i = 0; i < axis(at, 0); ++i) {
      if (at.data()[i] >= 0 && at.data()[i] < static_cast<std::int64_t>(n)) continue;
      throw py::value_error("`at` must lie in [0, " + std::to_string(n) + "), got " + std::to_string(at.data()[i]) +
                            " at position " + std::to_string(i));
    }
    strips = {axis(lower, 0),
              n,
              grid,
              starts.data(),
              reinterpret_cast<const mask::PixelBox*>(boxes.data()),
              lower.mutable_data(),
              upper.mutable_data()};
  }

  Array<std::int32_t> starts;
  Array<std::int32_t> boxes;
  Array<double> lower;
  Array<double> upper;
  Array<std::int64_t> at;
  mask::Strips strips{};
};

py::tuple choose_strips(const py::object& starts, const py::object& boxes, const py::object& lower,
                        const py::object& upper, const py::object& at, bool all) {
  StripArrays arrays(starts, boxes, lower, upper, at);
  const std::size_t k = axis(arrays.at, 0);
  Array<std::int32_t> first(ssize(k));
  Array<std::int32_t> last(ssize(k));
  Array<std::int32_t> parts(std::vector<py::ssize_t>{ssize(arrays.strips.n_leaves), ssize(k), 4});
  auto* part_boxes = reinterpret_cast<mask::PixelBox*>(parts.mutable_data());
  std::int32_t* firsts = first.mutable_data();
  std::int32_t* lasts = last.mutable_data();
  {
    const py::gil_scoped_release release;
    mask::choose_strips(arrays.strips, arrays.at.data(), k, all, firsts, lasts, part_boxes);
  }
  return py::make_tuple(first, last, parts);
}

py::object put_strips(const py::object& starts, const py::object& boxes, const py::object& lower,
                      const py::object& upper, const py::object& at, const py::object& first_object,
                      const py::object& last_object, const py::object& counts_object) {
  StripArrays arrays(starts, boxes, lower, upper, at);
  const std::size_t k = axis(arrays.at, 0);
  const auto first = require<std::int32_t>(first_object, "first", 1);
  const auto last = require<std::int32_t>(last_object, "last", 1);
  const auto counts = require<std::int64_t>(counts_object, "counts", 2);
  require_length(first, "first", k, "at");
  require_length(last, "last", k, "at");
  require_length(counts, "counts", arrays.strips.n_leaves, "boxes");
  require_columns(counts, "counts", ssize(k));
  for (std::size_t i = 0; i < k; ++i) {
    const std::int32_t begin = first.data()[i];
    const std::int32_t end = last.data()[i];
    if (begin >= 0 && begin <= end && end <= static_cast<std::int32_t>(arrays.strips.grid)) continue;
    throw py::value_error("`first` and `last` must be 0 <= first <= last <= " + std::to_string(arrays.strips.grid) +
                          ", got " + std::to_string(begin) + " and " + std::to_string(end) + " at position " +
                          std::to_string(i));
  }
  std::optional<mask::WrongCount> wrong;
  {
    const py::gil_scoped_release release;
    wrong = mask::put_strips(arrays.strips, arrays.at.data(), k, first.data(), last.data(), counts.data());
  }
  if (!wrong) return py::none();
  return py::make_tuple(wrong->i, wrong->leaf, wrong->least, wrong->most);
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

void bind_mask(py::module_& m) {
  m.def("check_pixels", &check_pixels, py::arg("masks"), py::arg("dtype"), py::arg("shapes"), py::arg("low"),
        py::arg("high"), py::arg("nodata"), py::kw_only(), py::arg("threads") = 0);
  m.def("mask_histograms", &mask_histograms, py::arg("masks"), py::arg("dtype"), py::arg("shapes"), py::arg("edges"),
        py::arg("grid"), py::arg("nodata"), py::arg("out"), py::kw_only(), py::arg("threads") = 0);
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
  m.def("count_pixels", &count_pixels, py::arg("rows"), py::arg("dtype"), py::arg("widths"), py::arg("x0"),
        py::arg("x1"), py::arg("n_rows"), py::arg("low"), py::arg("high"), py::arg("nodata"), py::kw_only(),
        py::arg("threads") = 0);
  m.def("count_stored", &count_stored, py::arg("arrays"), py::arg("array_of"), py::arg("dtype"), py::arg("offsets"),
        py::arg("widths"), py::arg("boxes"), py::arg("limits"), py::arg("nodata"), py::kw_only(),
        py::arg("threads") = 0);
  m.def("choose_strips", &choose_strips, py::arg("starts"), py::arg("boxes"), py::arg("lower"), py::arg("upper"),
        py::arg("at"), py::kw_only(), py::arg("all"));
  m.def("put_strips", &put_strips, py::arg("starts"), py::arg("boxes"), py::arg("lower"), py::arg("upper"),
        py::arg("at"), py::arg("first"), py::arg("last"), py::arg("counts"));
  m.def("count_joint", &count_joint, py::arg("rows"), py::arg("dtypes"), py::arg("starts"), py::arg("widths"),
        py::arg("x0"), py::arg("x1"), py::arg("n_rows"), py::arg("lows"), py::arg("highs"), py::arg("nodatas"),
        py::arg("has_nodata"), py::kw_only(), py::arg("threads") = 0);
}

}  // namespace nadb::python
