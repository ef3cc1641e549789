// Python bindings of what appending needs: the check of pixels, histograms. Documented in _core.pyi.
#include <pybind11/stl.h>

#include <cmath>
#include <optional>

#include "mask/histograms.h"
#include "mask/pixel_counts.h"
#include "python/bindings.h"
#include "python/mask_arguments.h"

namespace nadb::python {

namespace {

using mask::KeyRange32;

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

}  // namespace

void bind_mask_histograms(py::module_& m) {
  m.def("check_pixels", &check_pixels, py::arg("masks"), py::arg("dtype"), py::arg("shapes"), py::arg("low"),
        py::arg("high"), py::arg("nodata"), py::kw_only(), py::arg("threads") = 0);
  m.def("mask_histograms", &mask_histograms, py::arg("masks"), py::arg("dtype"), py::arg("shapes"), py::arg("edges"),
        py::arg("grid"), py::arg("nodata"), py::arg("out"), py::kw_only(), py::arg("threads") = 0);
}

}  // namespace nadb::python
