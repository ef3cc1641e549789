// Arguments that the bindings of masks share; see mask_arguments.h.
#include "python/mask_arguments.h"

#include <cmath>

namespace nadb::python {

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

double require_number(double value, const char* name) {
  if (!std::isnan(value)) return value;
  throw py::value_error("`" + std::string(name) + "` must not be NaN");
}

std::optional<double> require_threshold(const std::optional<double>& value, const char* name) {
  if (value) require_number(*value, name);
  return value;
}

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

Shapes::Shapes(py::handle object) : array(require<std::int32_t>(object, "shapes", 2)) {
  require_columns(array, "shapes", 2);
  n = axis(array, 0);
  data = reinterpret_cast<const mask::Shape*>(array.data());
  for (std::size_t m = 0; m < n; ++m) {
    const mask::Shape& shape = data[m];
    const bool fits = shape.height >= 0 && shape.width >= 0 &&
                      static_cast<std::int64_t>(shape.height) * shape.width <= mask::kMostPixels;
    if (fits) continue;
    throw py::value_error(
        "`shapes` must hold heights and widths of at least 0 and at most 2**30 pixels together, got (" +
        std::to_string(shape.height) + ", " + std::to_string(shape.width) + ") at row " + std::to_string(m));
  }
}

}  // namespace nadb::python
