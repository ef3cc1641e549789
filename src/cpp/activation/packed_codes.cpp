// Reading packed codes; see packed_codes.h.
#include "activation/packed_codes.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "kernels/dispatch.h"

namespace nadb::activation {

namespace {

constexpr std::size_t kBlock = 1024;  // codes unpacked at a time; a multiple of 8, so that blocks start on whole bytes

// Unpacks the n <= kBlock codes of a block into uint16.
void unpack_block(const std::uint8_t* row, std::size_t begin, std::size_t n, int bits, std::uint16_t* codes) {
  active_kernels().unpack[bits](row + begin / 8 * static_cast<std::size_t>(bits), n, codes);
}

}  // namespace

void decode(const std::uint8_t* row, std::size_t n, int bits, std::uint16_t* codes) {
  std::uint16_t block[kBlock];
  for (std::size_t begin = 0; begin < n; begin += kBlock) {
    const std::size_t size = std::min(kBlock, n - begin);
    unpack_block(row, begin, size, bits, block);
    std::copy(block, block + size, codes + begin);
  }
}

std::uint16_t code_at(const std::uint8_t* row, std::size_t position, int bits) noexcept {
  const std::size_t first = position * static_cast<std::size_t>(bits);
  const std::size_t last = first + static_cast<std::size_t>(bits) - 1;
  std::uint32_t word = 0;
  for (std::size_t byte = first / 8; byte <= last / 8; ++byte) {
    word |= static_cast<std::uint32_t>(row[byte]) << (8 * (byte - first / 8));
  }
  return static_cast<std::uint16_t>((word >> (first % 8)) & ((1u << bits) - 1));
}

std::int64_t count_code(const std::uint8_t* row, std::size_t n, int bits, std::uint16_t code) {
  std::uint16_t block[kBlock];
  std::int64_t count = 0;
  for (std::size_t begin = 0; begin < n; begin += kBlock) {
    const std::size_t size = std::min(kBlock, n - begin);
    unpack_block(row, begin, size, bits, block);
    count += std::count(block, block + size, code);
  }
  return count;
}

void rank_at(const std::uint8_t* row, const std::int64_t* positions, std::size_t n_positions, int bits,
             std::uint16_t code, std::int64_t* ranks) {
  std::vector<std::size_t> order(n_positions);
  std::iota(order.begin(), order.end(), std::size_t{0});
  const auto before = [positions](std::size_t a, std::size_t b) { return positions[a] < positions[b]; };
  if (!std::is_sorted(order.begin(), order.end(), before)) std::sort(order.begin(), order.end(), before);

  std::uint16_t block[kBlock];
  std::size_t begin = 0;  // of the block in hand
  std::size_t size = 0;
  std::size_t counted = 0;  // codes of the block that `rank` has seen
  std::int64_t rank = 0;
  const std::size_t n = n_positions == 0 ? 0 : static_cast<std::size_t>(positions[order.back()]);
  for (const std::size_t i : order) {
    const auto position = static_cast<std::size_t>(positions[i]);
    while (position > begin + size) {
      rank += std::count(block + counted, block + size, code);
      begin += size;
      size = std::min(kBlock, n - begin);
      counted = 0;
      unpack_block(row, begin, size, bits, block);
    }
    rank += std::count(block + counted, block + (position - begin), code);
    counted = position - begin;
    ranks[i] = rank;
  }
}

}  // namespace nadb::activation
