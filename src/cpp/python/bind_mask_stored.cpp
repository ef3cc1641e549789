// Python bindings of mask/stored_counts: exact counts of masks that are still in a file. Documented in _core.pyi.
#include <pybind11/stl.h>

#include <optional>

#include "mask/stored_counts.h"
#include "python/bindings.h"
#include "python/mask_arguments.h"
#include "python/stored_array.h"

namespace nadb::python {

namespace {

using mask::KeyRange32;

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

}  // namespace

void bind_mask_stored(py::module_& m) {
  m.def("count_stored", &count_stored, py::arg("arrays"), py::arg("array_of"), py::arg("dtype"), py::arg("offsets"),
        py::arg("widths"), py::arg("boxes"), py::arg("limits"), py::arg("nodata"), py::kw_only(),
        py::arg("threads") = 0);
}

}  // namespace nadb::python
