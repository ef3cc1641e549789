// Python bindings of mask/strips: which strips to read, and what reading them tells. Documented in _core.pyi.
#include <optional>

#include "mask/strips.h"
#include "python/bindings.h"
#include "python/mask_arguments.h"

namespace nadb::python {

namespace {

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
                        const py::object& upper, const py::object& at, const py::object& n_strips_object) {
  StripArrays arrays(starts, boxes, lower, upper, at);
  const std::size_t k = axis(arrays.at, 0);
  const auto n_strips = require<std::int32_t>(n_strips_object, "n_strips", 1);
  require_length(n_strips, "n_strips", k, "at");
  for (std::size_t i = 0; i < k; ++i) {
    if (n_strips.data()[i] >= 1) continue;
    throw py::value_error("`n_strips` must be at least 1, got " + std::to_string(n_strips.data()[i]) + " at position " +
                          std::to_string(i));
  }
  Array<std::int32_t> first(ssize(k));
  Array<std::int32_t> last(ssize(k));
  Array<std::int32_t> parts(std::vector<py::ssize_t>{ssize(arrays.strips.n_leaves), ssize(k), 4});
  auto* part_boxes = reinterpret_cast<mask::PixelBox*>(parts.mutable_data());
  std::int32_t* firsts = first.mutable_data();
  std::int32_t* lasts = last.mutable_data();
  {
    const py::gil_scoped_release release;
    mask::choose_strips(arrays.strips, arrays.at.data(), n_strips.data(), k, firsts, lasts, part_boxes);
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

}  // namespace

void bind_mask_strips(py::module_& m) {
  m.def("choose_strips", &choose_strips, py::arg("starts"), py::arg("boxes"), py::arg("lower"), py::arg("upper"),
        py::arg("at"), py::arg("n_strips"));
  m.def("put_strips", &put_strips, py::arg("starts"), py::arg("boxes"), py::arg("lower"), py::arg("upper"),
        py::arg("at"), py::arg("first"), py::arg("last"), py::arg("counts"));
}

}  // namespace nadb::python
