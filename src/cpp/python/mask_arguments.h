// What the bindings of src/cpp/mask take alike: dtypes, shapes, grids, values, lengths of arrays; each is checked here
// once, with the same words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "mask/histograms.h"
#include "python/arrays.h"

namespace nadb::python {

inline py::ssize_t ssize(std::size_t n) { return static_cast<py::ssize_t>(n); }

std::string text_of(double value);

PixelType parse_type(const std::string& dtype, const char* name);

// Cells along a side.
std::size_t require_grid(py::ssize_t grid);

// Axis 0 of an array must be n.
void require_length(const py::array& array, const char* name, std::size_t n, const char* of);

void require_columns(const py::array& array, const char* name, py::ssize_t columns);

void require_writeable(const py::array& array, const char* name);

// No NaN.
double require_number(double value, const char* name);
std::optional<double> require_threshold(const std::optional<double>& value, const char* name);

// The key of a value that pixels of the type can have.
std::int32_t require_key(PixelType type, double value, const char* name, const std::string& place,
                         const std::string& dtype);
std::optional<std::int32_t> nodata_key(PixelType type, const std::optional<double>& nodata, const std::string& dtype);

// int32 (n, 2) of heights and widths, none negative, no mask larger than the core can add up.
struct Shapes {
  explicit Shapes(py::handle object);
  std::size_t n_bytes(std::size_t m, PixelType type) const {
    return static_cast<std::size_t>(data[m].height) * static_cast<std::size_t>(data[m].width) * mask::pixel_bytes(type);
  }

  Array<std::int32_t> array;
  std::size_t n;
  const mask::Shape* data;
};

}  // namespace nadb::python
