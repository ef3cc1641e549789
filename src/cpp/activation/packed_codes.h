// Reading packed codes: a row of one neuron in one row group (docs/ARCHITECTURE.md, "_core": input i has bits [i*b,
// (i+1)*b), little-endian bit order). Every function reads inside ceil(n*b/8) bytes only.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nadb::activation {

// Bytes of a row of n codes.
constexpr std::size_t packed_bytes(std::size_t n, int bits) noexcept {
  return (n * static_cast<std::size_t>(bits) + 7) / 8;
}

// All n codes.
void decode(const std::uint8_t* row, std::size_t n, int bits, std::uint16_t* codes);

// The code at a position.
std::uint16_t code_at(const std::uint8_t* row, std::size_t position, int bits) noexcept;

// How many of the first n codes equal `code`.
std::int64_t count_code(const std::uint8_t* row, std::size_t n, int bits, std::uint16_t code);

// ranks[i] = how many codes before positions[i] equal `code`; positions in any order, each in [0, n].
void rank_at(const std::uint8_t* row, const std::int64_t* positions, std::size_t n_positions, int bits,
             std::uint16_t code, std::int64_t* ranks);

}  // namespace nadb::activation
