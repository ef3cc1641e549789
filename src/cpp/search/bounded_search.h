// The bounded search: one ranking for filters and top-k, over activations and masks. Candidates come with certain
// intervals for their scores; the search settles what the intervals decide and hands out the rest for refinement, in
// waves, most promising first, and not one more than needed. Implements design.md, section 3, and docs/ARCHITECTURE.md,
// "Waves".
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "search/rank_key.h"

namespace nadb::search {

// What the relaxation factor `theta` multiplies.
enum class ThetaOn : std::uint8_t { kNone, kDistance, kScore };

struct SearchOptions {
  std::optional<std::int64_t> k;  // at least 1; none: unbounded
  bool largest = true;
  std::optional<double> floor;  // results worse than this, and NULL, are no results
  double theta = 1.0;           // >= 1
  double epsilon = 0.0;         // >= 0
  ThetaOn theta_on = ThetaOn::kNone;
};

// A block of candidates: parallel arrays of n elements, borrowed for the call. NaN at both ends is an exact NULL; equal
// ends without may_be_null are an exact score. `may_be_null` is nullptr where none may be.
struct Block {
  const std::int64_t* ids;
  const double* lower;
  const double* upper;
  const std::uint8_t* may_be_null;
  std::size_t n;
};

struct Ranking {
  std::vector<std::int64_t> ids;
  std::vector<double> scores;  // NaN where NULL
  std::vector<std::uint8_t> is_null;
};

// Contract:
// - An exact score always lies inside every interval given for its id; ids are distinct over all blocks.
// - result() then equals brute force: best score first, ties by id ascending, NULL after every score, at most k.
// - Refined ids <= must + (unit - 1) + ties, where must are the open candidates whose optimistic end is strictly better
//   than the true k-th score.
// Not thread safe. Copyable: a copy is an independent search.
class BoundedSearch {
 public:
  explicit BoundedSearch(const SearchOptions& options);  // throws std::invalid_argument

  // Adds candidates; drops at once what is certainly out. Throws std::invalid_argument, with nothing changed, on an
  // interval with one NaN end or with lower > upper. Amortised O(n).
  void offer(const Block& block);

  // The next ids to refine, best optimistic end first: every open candidate that is certain to be needed, rounded up to
  // a multiple of `unit` with the next ones still in the race; at most max_wave, a multiple of unit. Empty: finished.
  // Ids handed out before and not refined are open again.
  std::vector<std::int64_t> next_wave(std::size_t unit, std::size_t max_wave);

  // Tighter intervals for open ids. An interval that does not meet the earlier one throws std::invalid_argument, as
  // does an id that is not open (ids dropped meanwhile are ignored); then nothing has changed.
  void refine(const Block& block);

  // next_wave, each candidate of it then refined to the middle of its interval (to the worse end, where an end is
  // unbounded or may be NULL): on a copy, what a search is likely to evaluate.
  std::vector<std::int64_t> rehearse(std::size_t unit, std::size_t max_wave);

  // Exact candidates still in the race, in rank order (ids ascending when unbounded with a floor), at most k.
  Ranking result() const;

  // A score such that a candidate whose optimistic end is worse is certainly out: the k-th best pessimistic end, or the
  // floor where that is better. None while nothing is known. May lag behind large offers, never ahead.
  std::optional<double> threshold();
  std::optional<double> kth();         // the k-th best exact score
  std::optional<double> peek_bound();  // the optimistic end of the best open candidate

  std::int64_t candidate_count() const noexcept { return n_offered_; }
  std::size_t held_count() const noexcept { return candidates_.size(); }
  std::int64_t open_count();  // neither exact nor dropped, once all that is known was applied
  std::int64_t refined_count() const noexcept { return n_refined_; }  // distinct ids
  std::int64_t settled_count() const noexcept { return n_offered_ - n_refined_ - (n_open_ - n_open_refined_); }

 private:
  enum class State : std::uint8_t { kOpen, kHandedOut, kExact, kDropped };

  struct Candidate {
    std::int64_t id;
    RankKey best;   // key of the optimistic end
    RankKey worst;  // key of the pessimistic end; kNullKey where it may be NULL
    State state;
    bool refined;
  };

  struct QueueEntry {
    Rank order;         // what the queue is sorted by: another one in the candidate means that this entry is stale
    std::size_t index;  // into candidates_
  };

  struct Interval {
    RankKey best;
    RankKey worst;
  };

  static bool queue_after(const QueueEntry& a, const QueueEntry& b) noexcept { return b.order < a.order; }
  static void check_intervals(const Block& block);

  Interval interval_of(double lower, double upper, bool may_be_null) const noexcept;
  bool out(const Rank& rank) const noexcept { return has_cut_ && cut_ < rank; }
  bool is_open(const Candidate& c) const noexcept { return c.state == State::kOpen || c.state == State::kHandedOut; }
  bool relaxed_stop(RankKey next) const;
  void add_exact(const Rank& rank);
  void settle_exact();
  void lower_cut(const Rank& rank) noexcept;
  void tighten_cut();
  void drop_beaten();
  void prune_offers();
  void prepare();
  // What the queue is sorted by; without k all candidates are needed, by id.
  RankKey order_key(const Candidate& c) const noexcept { return k_ == 0 ? RankKey{0} : c.best; }
  void push_queue(std::size_t index);
  const QueueEntry* queue_top();
  void put_back_handed_out();
  void apply(std::size_t index, const Interval& interval);
  void drop_all_open();
  std::size_t find(std::int64_t id) const noexcept;

  SearchOptions options_;
  Direction direction_;
  std::size_t k_ = 0;  // 0: unbounded

  // Candidates with open intervals (and, after the first wave, what became of them). Sorted by id once prepared_.
  std::vector<Candidate> candidates_;
  std::vector<QueueEntry> queue_;  // a heap; entries may be stale
  std::vector<std::size_t> handed_out_;
  bool prepared_ = false;

  // Exact ranks in the race: [0, n_sorted_) sorted, the rest fresh.
  std::vector<Rank> exact_;
  std::size_t n_sorted_ = 0;

  bool has_cut_ = false;
  Rank cut_{0, 0};   // ranks beyond it are certainly out
  double cut_cost_;  // its cost, +inf without one: a quick first test
  std::size_t prune_at_;

  std::int64_t n_offered_ = 0;
  std::int64_t n_open_ = 0;
  std::int64_t n_refined_ = 0;
  std::int64_t n_open_refined_ = 0;
  std::int64_t refined_since_cut_ = 0;
  std::size_t offered_since_cut_ = 0;
  bool all_lower_nonnegative_ = true;
  std::vector<Rank> scratch_;
};

}  // namespace nadb::search
