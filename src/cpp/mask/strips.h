// What is known of counts strip by strip, a strip being a row of cells of the index: which strips to read next, and
// what reading them tells (docs/ARCHITECTURE.md, "Masks"). Arithmetic alone; stored_counts.h reads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "mask/stored_counts.h"

namespace nadb::mask {

// Certain bounds of the counts of leaves in the strips of masks; a strip whose ends are equal is known, else open.
struct Strips {
  std::size_t n_leaves;
  std::size_t n;
  std::size_t grid;
  const std::int32_t* starts;  // n x (grid + 1): first row of each strip, then the height
  const PixelBox* boxes;       // n_leaves x n
  double* lower;               // n_leaves x n x grid
  double* upper;
};

// Which strips [first, last) of masks at[0, k) to read: from the first to the last of the n_strips[i] that leave most
// open, all leaves together, the first of equals; of all that are open where those are fewer. parts: n_leaves x k, a
// leaf's box within them; empty where it has no open strip among them. Positions are in [0, n).
void choose_strips(const Strips& strips, const std::int64_t* at, const std::int32_t* n_strips, std::size_t k,
                   std::int32_t* first, std::int32_t* last, PixelBox* parts);

// A count that lies outside its bounds.
struct WrongCount {
  std::size_t i;
  std::size_t leaf;
  double least;
  double most;
};

// Takes in the counts in the parts that choose_strips gave, n_leaves x k. The first wrong one is returned, and it and
// those after it are not taken in.
std::optional<WrongCount> put_strips(const Strips& strips, const std::int64_t* at, std::size_t k,
                                     const std::int32_t* first, const std::int32_t* last, const std::int64_t* counts);

}  // namespace nadb::mask
