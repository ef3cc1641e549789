// Certain bounds of the number of pixels in a range of values and a box, from the rows of the histogram index alone.
// Implements design.md, section 5, "Bounds".
#pragma once

#include <cstddef>
#include <cstdint>

#include "mask/grid.h"
#include "parallel_for.h"

namespace nadb::mask {

// The pixels at or above one edge in every cell of every mask: stored bytes, or known without any.
struct IndexRow {
  enum Kind { kStored, kEvery, kNone };
  Kind kind;
  const std::uint8_t* bytes;  // n x grid x grid where stored
};

// What bounds the number of pixels at or above `low` and `high`: each from an edge at or below it (upper) and from one
// at or above it (lower).
struct IndexRows {
  IndexRow low_upper;
  IndexRow low_lower;
  IndexRow high_upper;
  IndexRow high_lower;
};

// n masks; one shape or one per mask, one box or one per mask. Shapes are not negative and hold at most kMostPixels.
struct Masks {
  std::size_t n;
  std::size_t grid;
  const Shape* shapes;
  bool one_shape;
};

// lower, upper: n each. A box needs no clipping; an empty or inverted one gives [0, 0].
void count_bounds(const Masks& masks, const IndexRows& rows, const Box* boxes, bool one_box, double* lower,
                  double* upper, int threads, const Poll& poll);

// The same strip by strip, for k of the masks: k x grid each. Strip i of a mask is its row of cells i; boxes: k or one.
void strip_bounds(const Masks& masks, const IndexRows& rows, const std::int64_t* positions, std::size_t k,
                  const Box* boxes, bool one_box, double* lower, double* upper);

// The same per cell and for whole cells: n x grid x grid each.
void cell_bounds(const Masks& masks, const IndexRows& rows, std::int32_t* lower, std::int32_t* upper, int threads,
                 const Poll& poll);

// Pixels of every cell, and how many of them lie in the box: m x grid x grid, m = n or, with one shape and one box, 1.
void cell_overlaps(const Masks& masks, const Box* boxes, bool one_box, std::int32_t* areas, std::int32_t* overlaps);

}  // namespace nadb::mask
