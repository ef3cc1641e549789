// Scores as integers whose order is the order of ranking, so that NULL, infinities, both zeros and either direction
// compare by one instruction. Implements "Order of results" and "NULL" of design.md, section 3.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

namespace nadb::search {

// Smaller is better. NULL is worse than every score, infinities included.
using RankKey = std::uint64_t;
constexpr RankKey kNullKey = std::numeric_limits<RankKey>::max();

// The key of a cost (smaller is better); not NaN. -0.0 and 0.0 have the same key.
inline RankKey key_of_cost(double cost) noexcept {
  const double normalised = cost == 0.0 ? 0.0 : cost;
  std::uint64_t bits;
  std::memcpy(&bits, &normalised, sizeof bits);
  constexpr std::uint64_t kSign = std::uint64_t{1} << 63;
  return (bits & kSign) != 0 ? ~bits : bits | kSign;
}

// Inverse of key_of_cost; NaN for NULL.
inline double cost_of_key(RankKey key) noexcept {
  if (key == kNullKey) return std::numeric_limits<double>::quiet_NaN();
  constexpr std::uint64_t kSign = std::uint64_t{1} << 63;
  const std::uint64_t bits = (key & kSign) != 0 ? key ^ kSign : ~key;
  double cost;
  std::memcpy(&cost, &bits, sizeof cost);
  return cost;
}

// A place in the ranking: best score first, ties by id ascending.
struct Rank {
  RankKey key;
  std::int64_t id;
};

inline bool operator<(const Rank& a, const Rank& b) noexcept { return a.key != b.key ? a.key < b.key : a.id < b.id; }

// Whether the largest or the smallest score is best, and the conversions that follow from it.
struct Direction {
  bool largest;

  RankKey key(double score) const noexcept { return key_of_cost(largest ? -score : score); }

  double score(RankKey key) const noexcept {
    const double cost = cost_of_key(key);
    return largest && cost != 0.0 ? -cost : cost;  // never -0.0
  }
};

}  // namespace nadb::search
