// Python bindings of src/cpp/search. Documented for users of the core in _core.pyi.
#include <pybind11/stl.h>

#include <optional>

#include "python/arrays.h"
#include "python/bindings.h"
#include "search/bounded_search.h"

namespace nadb::python {

namespace {

using search::Block;
using search::BoundedSearch;
using search::SearchOptions;
using search::ThetaOn;

constexpr std::size_t kReleaseFrom = 4096;  // candidates: below, releasing the GIL costs more than the work

struct SearchObject {
  explicit SearchObject(const SearchOptions& options) : search(options) {}
  explicit SearchObject(const BoundedSearch& other) : search(other) {}
  BoundedSearch search;
  std::atomic<bool> in_use{false};
};

// What a call goes over besides what it is given: none of the candidates, a few of each wave's, or all.
enum class Over : std::uint8_t { kNone, kSome, kAll };

// Runs body on the search, without the GIL where the work is worth it.
template <class Body>
auto run(SearchObject& self, std::size_t n_given, Over over, Body&& body) {
  const InUse guard(self.in_use, "this BoundedSearch");
  const std::size_t held = over == Over::kNone ? 0 : self.search.held_count();
  if (n_given + (over == Over::kSome ? held / 64 : held) < kReleaseFrom) return body(self.search);
  const py::gil_scoped_release release;
  return body(self.search);
}

// The arrays of a block, checked; `block` borrows from them.
struct BlockArrays {
  BlockArrays(py::handle ids_object, py::handle lower_object, py::handle upper_object, py::handle null_object)
      : ids(require<std::int64_t>(ids_object, "ids", 1)),
        lower(require<double>(lower_object, "lower", 1)),
        upper(require<double>(upper_object, "upper", 1)) {
    const std::size_t n = axis(ids, 0);
    block = {ids.data(), lower.data(), upper.data(), nullptr, n};
    check_size("lower", axis(lower, 0), n);
    check_size("upper", axis(upper, 0), n);
    if (null_object.is_none()) return;
    may_be_null = require<bool>(null_object, "may_be_null", 1);
    check_size("may_be_null", axis(may_be_null, 0), n);
    block.may_be_null = reinterpret_cast<const std::uint8_t*>(may_be_null.data());
  }

  static void check_size(const char* name, std::size_t got, std::size_t expected) {
    if (got == expected) return;
    throw py::value_error("`" + std::string(name) + "` must have as many elements as `ids`, " +
                          std::to_string(expected) + ", got " + std::to_string(got));
  }

  Array<std::int64_t> ids;
  Array<double> lower;
  Array<double> upper;
  Array<bool> may_be_null;
  Block block{};
};

ThetaOn parse_theta_on(const std::string& text) {
  if (text == "none") return ThetaOn::kNone;
  if (text == "distance") return ThetaOn::kDistance;
  if (text == "score") return ThetaOn::kScore;
  throw py::value_error("`theta_on` must be 'none', 'distance' or 'score', got '" + text + "'");
}

std::unique_ptr<SearchObject> make_search(std::optional<std::int64_t> k, bool largest, std::optional<double> floor,
                                          double theta, double epsilon, const std::string& theta_on) {
  SearchOptions options;
  options.k = k;
  options.largest = largest;
  options.floor = floor;
  options.theta = theta;
  options.epsilon = epsilon;
  options.theta_on = parse_theta_on(theta_on);
  return std::make_unique<SearchObject>(options);
}

Array<std::int64_t> next_wave(SearchObject& self, py::ssize_t unit, py::ssize_t max_wave) {
  const std::size_t u = require_size("unit", unit, 1, PY_SSIZE_T_MAX);
  const std::size_t most = require_size("max_wave", max_wave, 1, PY_SSIZE_T_MAX);
  return copy_to_array(run(self, 0, Over::kAll, [&](BoundedSearch& s) { return s.next_wave(u, most); }));
}

Array<std::int64_t> rehearse(SearchObject& self, py::ssize_t unit, py::ssize_t max_wave) {
  const std::size_t u = require_size("unit", unit, 1, PY_SSIZE_T_MAX);
  const std::size_t most = require_size("max_wave", max_wave, 1, PY_SSIZE_T_MAX);
  return copy_to_array(run(self, 0, Over::kAll, [&](BoundedSearch& s) { return s.rehearse(u, most); }));
}

std::unique_ptr<SearchObject> copy(SearchObject& self) {
  return run(self, 0, Over::kAll, [](const BoundedSearch& s) { return std::make_unique<SearchObject>(s); });
}

void offer(SearchObject& self, const py::object& ids, const py::object& lower, const py::object& upper,
           const py::object& may_be_null) {
  const BlockArrays arrays(ids, lower, upper, may_be_null);
  run(self, arrays.block.n, Over::kNone, [&](BoundedSearch& s) { s.offer(arrays.block); });
}

void refine(SearchObject& self, const py::object& ids, const py::object& lower, const py::object& upper,
            const py::object& may_be_null) {
  const BlockArrays arrays(ids, lower, upper, may_be_null);
  run(self, arrays.block.n, Over::kSome, [&](BoundedSearch& s) { s.refine(arrays.block); });
}

py::tuple result(SearchObject& self) {
  const search::Ranking ranking = run(self, 0, Over::kNone, [](const BoundedSearch& s) { return s.result(); });
  Array<bool> is_null(static_cast<py::ssize_t>(ranking.is_null.size()));
  std::copy(ranking.is_null.begin(), ranking.is_null.end(), is_null.mutable_data());
  return py::make_tuple(copy_to_array(ranking.ids), copy_to_array(ranking.scores), is_null);
}

// A property that the search computes.
template <class T, class Getter>
auto property(Getter getter) {
  return [getter](SearchObject& self) -> T { return run(self, 0, Over::kNone, getter); };
}

}  // namespace

void bind_search(py::module_& m) {
  using Number = std::optional<double>;
  py::class_<SearchObject>(m, "BoundedSearch", py::module_local())
      .def(py::init(&make_search), py::arg("k"), py::kw_only(), py::arg("largest") = true,
           py::arg("floor") = py::none(), py::arg("theta") = 1.0, py::arg("epsilon") = 0.0,
           py::arg("theta_on") = "none")
      .def("offer", &offer, py::arg("ids"), py::arg("lower"), py::arg("upper"), py::arg("may_be_null") = py::none())
      .def("next_wave", &next_wave, py::arg("unit"), py::arg("max_wave"))
      .def("refine", &refine, py::arg("ids"), py::arg("lower"), py::arg("upper"), py::arg("may_be_null") = py::none())
      .def("copy", &copy)
      .def("rehearse", &rehearse, py::arg("unit"), py::arg("max_wave"))
      .def("result", &result)
      .def_property_readonly("threshold", property<Number>([](BoundedSearch& s) { return s.threshold(); }))
      .def_property_readonly("kth", property<Number>([](BoundedSearch& s) { return s.kth(); }))
      .def_property_readonly("peek_bound", property<Number>([](BoundedSearch& s) { return s.peek_bound(); }))
      .def_property_readonly("candidate_count",
                             property<std::int64_t>([](BoundedSearch& s) { return s.candidate_count(); }))
      .def_property_readonly("open_count", property<std::int64_t>([](BoundedSearch& s) { return s.open_count(); }))
      .def_property_readonly("settled_count",
                             property<std::int64_t>([](BoundedSearch& s) { return s.settled_count(); }))
      .def_property_readonly("refined_count",
                             property<std::int64_t>([](BoundedSearch& s) { return s.refined_count(); }));
}

}  // namespace nadb::python
