// The relative grid of a mask's histogram index: cell (i, j) has rows [i*H/g, (i+1)*H/g) and columns [j*W/g,
// (j+1)*W/g), so every size has g x g cells, some of them empty in masks smaller than the grid (design.md, section 5,
// "Index").
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace nadb::mask {

constexpr int kMostGridSide = 256;

struct Shape {
  std::int32_t height;
  std::int32_t width;
  bool operator==(const Shape& other) const noexcept { return height == other.height && width == other.width; }
};

// Half-open, in pixels; may reach past the mask, be empty or inverted.
struct Box {
  std::int32_t x0;
  std::int32_t y0;
  std::int32_t x1;
  std::int32_t y1;
};

// Where the cells of one axis begin, and after the last one its length: grid + 1 positions.
inline void cell_starts(std::int32_t length, std::size_t grid, std::int32_t* starts) noexcept {
  const auto side = static_cast<std::int32_t>(grid);
  const std::int32_t step = length / side;
  const std::int32_t rest = length % side;
  std::int32_t at = 0;
  std::int32_t carried = 0;  // i * rest modulo the grid
  for (std::size_t i = 0; i <= grid; ++i) {
    starts[i] = at;
    carried += rest;
    const std::int32_t carry = carried >= side ? 1 : 0;
    carried -= carry * side;
    at += step + carry;
  }
}

// Pixels of the largest cell.
inline std::int64_t largest_cell(const Shape& shape, std::size_t grid) noexcept {
  const auto side = [grid](std::int32_t length) {
    return (static_cast<std::int64_t>(length) + static_cast<std::int64_t>(grid) - 1) / static_cast<std::int64_t>(grid);
  };
  return side(shape.height) * side(shape.width);
}

// s: how many pixels one step of a stored byte stands for; 1, exact, for cells of at most 255 pixels.
inline std::int32_t count_step(const Shape& shape, std::size_t grid) noexcept {
  return static_cast<std::int32_t>(std::max<std::int64_t>(1, (largest_cell(shape, grid) + 254) / 255));
}

}  // namespace nadb::mask
