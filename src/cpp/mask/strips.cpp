// Strips of masks; see strips.h.
#include "mask/strips.h"

#include <algorithm>
#include <vector>

namespace nadb::mask {

namespace {

// The strips of leaf `leaf` in mask `m`.
struct Ends {
  Ends(const Strips& strips, std::size_t leaf, std::size_t m)
      : lower(strips.lower + (leaf * strips.n + m) * strips.grid),
        upper(strips.upper + (leaf * strips.n + m) * strips.grid) {}
  bool open(std::size_t strip) const noexcept { return lower[strip] < upper[strip]; }
  bool any_open(std::int32_t first, std::int32_t last) const noexcept {
    for (std::int32_t s = first; s < last; ++s) {
      if (open(static_cast<std::size_t>(s))) return true;
    }
    return false;
  }
  double* lower;
  double* upper;
};

// Fills `order` with the open strips of a mask, those that leave most open first.
void rank_open(const Strips& strips, std::size_t m, std::vector<double>& widths, std::vector<std::int32_t>& order) {
  order.clear();
  for (std::size_t s = 0; s < strips.grid; ++s) {
    widths[s] = 0.0;
    for (std::size_t leaf = 0; leaf < strips.n_leaves; ++leaf) {
      const Ends ends(strips, leaf, m);
      widths[s] += ends.upper[s] - ends.lower[s];
    }
    if (widths[s] > 0.0) order.push_back(static_cast<std::int32_t>(s));
  }
  std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
    return widths[static_cast<std::size_t>(a)] > widths[static_cast<std::size_t>(b)];
  });
}

}  // namespace

void choose_strips(const Strips& strips, const std::int64_t* at, const std::int32_t* n_strips, std::size_t k,
                   std::int32_t* first, std::int32_t* last, PixelBox* parts) {
  std::vector<double> widths(strips.grid);
  std::vector<std::int32_t> order;
  order.reserve(strips.grid);
  for (std::size_t i = 0; i < k; ++i) {
    const auto m = static_cast<std::size_t>(at[i]);
    rank_open(strips, m, widths, order);
    first[i] = last[i] = 0;
    if (!order.empty()) {
      const auto n = std::min(order.size(), static_cast<std::size_t>(n_strips[i]));
      const auto ends = std::minmax_element(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(n));
      first[i] = *ends.first;
      last[i] = *ends.second + 1;
    }
    const std::int32_t* starts = strips.starts + m * (strips.grid + 1);
    for (std::size_t leaf = 0; leaf < strips.n_leaves; ++leaf) {
      PixelBox part = strips.boxes[leaf * strips.n + m];
      part.y0 = std::max(part.y0, starts[first[i]]);
      part.y1 = std::min(part.y1, starts[last[i]]);
      const bool reads = part.y0 < part.y1 && Ends(strips, leaf, m).any_open(first[i], last[i]);
      parts[leaf * k + i] = reads ? part : PixelBox{0, 0, 0, 0};
    }
  }
}

std::optional<WrongCount> put_strips(const Strips& strips, const std::int64_t* at, std::size_t k,
                                     const std::int32_t* first, const std::int32_t* last, const std::int64_t* counts) {
  for (std::size_t i = 0; i < k; ++i) {
    for (std::size_t leaf = 0; leaf < strips.n_leaves; ++leaf) {
      const Ends ends(strips, leaf, static_cast<std::size_t>(at[i]));
      if (!ends.any_open(first[i], last[i])) continue;
      double least = 0.0;
      double most = 0.0;
      for (std::int32_t s = first[i]; s < last[i]; ++s) {
        least += ends.lower[s];
        most += ends.upper[s];
      }
      const auto count = static_cast<double>(counts[leaf * k + i]);
      if (count < least || count > most) return WrongCount{i, leaf, least, most};
      // What is known of all of them is kept in the first.
      std::fill(ends.lower + first[i], ends.lower + last[i], 0.0);
      std::fill(ends.upper + first[i], ends.upper + last[i], 0.0);
      ends.lower[first[i]] = ends.upper[first[i]] = count;
    }
  }
  return std::nullopt;
}

}  // namespace nadb::mask
