// The bounded search; see bounded_search.h for the contract and design.md, section 3, for the proof obligations.
#include "search/bounded_search.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>

namespace nadb::search {

namespace {

constexpr std::size_t kFirstPrune = 4096;       // offers gathered before the first threshold
constexpr std::int64_t kTightenPerRefined = 8;  // the threshold is renewed once 1/8 of the open ones were refined
constexpr std::size_t kNotFound = std::numeric_limits<std::size_t>::max();

std::string text(double value) {
  std::string out = std::to_string(value);
  char buffer[32];
  if (std::snprintf(buffer, sizeof buffer, "%.17g", value) > 0) out = buffer;
  return out;
}

}  // namespace

BoundedSearch::BoundedSearch(const SearchOptions& options)
    : options_(options),
      direction_{options.largest},
      cut_cost_(std::numeric_limits<double>::infinity()),
      prune_at_(std::numeric_limits<std::size_t>::max()) {
  if (options.k && *options.k < 1) {
    throw std::invalid_argument("`k` must be at least 1, or None for no limit; got " + std::to_string(*options.k));
  }
  if (options.floor && std::isnan(*options.floor)) {
    throw std::invalid_argument("`floor` must be a number or None, got NaN");
  }
  if (!(options.theta >= 1.0) || std::isinf(options.theta)) {
    throw std::invalid_argument("`theta` must be finite and at least 1, got " + text(options.theta));
  }
  if (!(options.epsilon >= 0.0) || std::isinf(options.epsilon)) {
    throw std::invalid_argument("`epsilon` must be finite and at least 0, got " + text(options.epsilon));
  }
  if (options.theta_on == ThetaOn::kDistance && options.largest) {
    throw std::invalid_argument(
        "theta_on='distance' ranks the smallest first; got largest=True, expected largest=False");
  }
  if (options.theta_on == ThetaOn::kScore && !options.largest) {
    throw std::invalid_argument("theta_on='score' ranks the largest first; got largest=False, expected largest=True");
  }
  if (options.theta > 1.0 && options.theta_on == ThetaOn::kNone) {
    throw std::invalid_argument("`theta` is " + text(options.theta) +
                                " but theta_on='none'; say theta_on='distance' or 'score'");
  }
  if (options.k) {
    k_ = static_cast<std::size_t>(*options.k);
    prune_at_ = k_ > (std::numeric_limits<std::size_t>::max() - kFirstPrune) / 2 ? prune_at_ : kFirstPrune + 2 * k_;
  }
  if (options.floor) lower_cut({direction_.key(*options.floor), std::numeric_limits<std::int64_t>::max()});
}

// ---- intervals ------------------------------------------------------------------------------------------------------

void BoundedSearch::check_intervals(const Block& block) {
  bool good = true;
  for (std::size_t i = 0; i < block.n; ++i) {
    const double lo = block.lower[i];
    const double hi = block.upper[i];
    good &= (lo <= hi) | ((lo != lo) & (hi != hi));
  }
  if (good) return;
  for (std::size_t i = 0; i < block.n; ++i) {
    const double lo = block.lower[i];
    const double hi = block.upper[i];
    if (lo <= hi || (std::isnan(lo) && std::isnan(hi))) continue;
    throw std::invalid_argument("`lower` must be <= `upper`, or both NaN for NULL; got [" + text(lo) + ", " + text(hi) +
                                "] at position " + std::to_string(i) + ", id " + std::to_string(block.ids[i]));
  }
}

BoundedSearch::Interval BoundedSearch::interval_of(double lower, double upper, bool may_be_null) const noexcept {
  if (std::isnan(lower)) return {kNullKey, kNullKey};
  const RankKey best = direction_.key(direction_.largest ? upper : lower);
  if (may_be_null) return {best, kNullKey};
  const double pessimistic = direction_.largest ? lower : upper;
  // An unbounded pessimistic end says nothing; as NULL it also covers a score that overflows to NaN.
  if (lower < upper && std::isinf(pessimistic)) return {best, kNullKey};
  return {best, direction_.key(pessimistic)};
}

// ---- offers ---------------------------------------------------------------------------------------------------------

void BoundedSearch::offer(const Block& block) {
  check_intervals(block);
  put_back_handed_out();
  const bool largest = direction_.largest;
  bool nonnegative = all_lower_nonnegative_;
  for (std::size_t i = 0; i < block.n; ++i) {
    const double lower = block.lower[i];
    const double upper = block.upper[i];
    nonnegative &= !(lower < 0.0);
    if ((largest ? -upper : lower) > cut_cost_) continue;
    const bool may_be_null = block.may_be_null != nullptr && block.may_be_null[i] != 0;
    const Interval interval = interval_of(lower, upper, may_be_null);
    const Rank best{interval.best, block.ids[i]};
    if (out(best)) continue;
    if (interval.best == interval.worst) {
      exact_.push_back(best);
    } else {
      candidates_.push_back({block.ids[i], interval.best, interval.worst, State::kOpen, false});
      ++n_open_;
      prepared_ = false;
    }
    if (exact_.size() + candidates_.size() >= prune_at_) prune_offers();
  }
  n_offered_ += static_cast<std::int64_t>(block.n);
  offered_since_cut_ += block.n;
  all_lower_nonnegative_ = nonnegative;
}

void BoundedSearch::lower_cut(const Rank& rank) noexcept {
  if (has_cut_ && !(rank < cut_)) return;
  has_cut_ = true;
  cut_ = rank;
  cut_cost_ = rank.key == kNullKey ? std::numeric_limits<double>::infinity() : cost_of_key(rank.key);
}

// Sets the cut to the k-th best pessimistic rank of all candidates known. Whatever ranks beyond it at its best is out,
// for it is not among those k itself: its pessimistic rank is no better than its optimistic one.
void BoundedSearch::tighten_cut() {
  refined_since_cut_ = 0;
  offered_since_cut_ = 0;
  if (k_ == 0 || exact_.size() + candidates_.size() < k_) return;
  scratch_.assign(exact_.begin(), exact_.end());
  for (const Candidate& c : candidates_) {
    if (is_open(c)) scratch_.push_back({c.worst, c.id});
  }
  if (scratch_.size() < k_) return;
  const auto kth = scratch_.begin() + static_cast<std::ptrdiff_t>(k_ - 1);
  std::nth_element(scratch_.begin(), kth, scratch_.end());
  lower_cut(*kth);
}

// Forgets what lies beyond the cut. Candidates handed out stay: their refinement is under way.
void BoundedSearch::drop_beaten() {
  for (Candidate& c : candidates_) {
    if (c.state != State::kOpen || !out({c.best, c.id})) continue;
    c.state = State::kDropped;
    --n_open_;
    if (c.refined) --n_open_refined_;
  }
  const auto beaten = [this](const Rank& rank) { return out(rank); };
  const auto sorted_end = exact_.begin() + static_cast<std::ptrdiff_t>(n_sorted_);
  const auto kept = std::count_if(exact_.begin(), sorted_end, [&](const Rank& rank) { return !beaten(rank); });
  exact_.erase(std::remove_if(exact_.begin(), exact_.end(), beaten), exact_.end());
  n_sorted_ = static_cast<std::size_t>(kept);
}

void BoundedSearch::prune_offers() {
  tighten_cut();
  drop_beaten();
  const auto gone = [this](const Candidate& c) { return !is_open(c); };
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), gone), candidates_.end());
  prepared_ = false;
  const std::size_t kept = exact_.size() + candidates_.size();
  prune_at_ = std::max(2 * kept, kFirstPrune + 2 * k_);
}

// ---- exact scores ---------------------------------------------------------------------------------------------------

void BoundedSearch::add_exact(const Rank& rank) {
  if (!out(rank)) exact_.push_back(rank);
}

// Sorts the exact ranks and keeps the best k: the k-th is a cut.
void BoundedSearch::settle_exact() {
  if (n_sorted_ < exact_.size()) {
    const auto middle = exact_.begin() + static_cast<std::ptrdiff_t>(n_sorted_);
    std::sort(middle, exact_.end());
    std::inplace_merge(exact_.begin(), middle, exact_.end());
    n_sorted_ = exact_.size();
  }
  if (k_ == 0 || exact_.size() < k_) return;
  exact_.resize(k_);
  n_sorted_ = k_;
  lower_cut(exact_.back());
}

// ---- waves ----------------------------------------------------------------------------------------------------------

void BoundedSearch::push_queue(std::size_t index) {
  const Candidate& c = candidates_[index];
  queue_.push_back({{order_key(c), c.id}, index});
}

// Sorts the candidates by id, so that refine finds them, and queues the open ones.
void BoundedSearch::prepare() {
  if (prepared_) return;
  tighten_cut();
  drop_beaten();
  const auto gone = [this](const Candidate& c) { return !is_open(c); };
  candidates_.erase(std::remove_if(candidates_.begin(), candidates_.end(), gone), candidates_.end());
  const auto by_id = [](const Candidate& a, const Candidate& b) { return a.id < b.id; };
  if (!std::is_sorted(candidates_.begin(), candidates_.end(), by_id)) {
    std::sort(candidates_.begin(), candidates_.end(), by_id);
  }
  for (std::size_t i = 1; i < candidates_.size(); ++i) {
    if (candidates_[i].id != candidates_[i - 1].id) continue;
    throw std::invalid_argument("ids must be offered once; id " + std::to_string(candidates_[i].id) +
                                " was offered twice");
  }
  queue_.clear();
  queue_.reserve(candidates_.size());
  for (std::size_t i = 0; i < candidates_.size(); ++i) push_queue(i);
  std::make_heap(queue_.begin(), queue_.end(), queue_after);
  prepared_ = true;
}

const BoundedSearch::QueueEntry* BoundedSearch::queue_top() {
  while (!queue_.empty()) {
    const QueueEntry& top = queue_.front();
    const Candidate& c = candidates_[top.index];
    if (c.state == State::kOpen && order_key(c) == top.order.key) return &queue_.front();
    std::pop_heap(queue_.begin(), queue_.end(), queue_after);
    queue_.pop_back();
  }
  return nullptr;
}

void BoundedSearch::put_back_handed_out() {
  for (const std::size_t index : handed_out_) {
    Candidate& c = candidates_[index];
    if (c.state != State::kHandedOut) continue;
    c.state = State::kOpen;
    push_queue(index);
    std::push_heap(queue_.begin(), queue_.end(), queue_after);
  }
  handed_out_.clear();
}

void BoundedSearch::drop_all_open() {
  for (Candidate& c : candidates_) {
    if (is_open(c)) c.state = State::kDropped;
  }
  queue_.clear();
  n_open_ = 0;
  n_open_refined_ = 0;
}

// Whether theta or epsilon allow to stop before a candidate whose optimistic end is `next`. Needs k exact scores.
bool BoundedSearch::relaxed_stop(RankKey next) const {
  if (k_ == 0 || exact_.size() < k_ || (options_.theta <= 1.0 && options_.epsilon <= 0.0)) return false;
  if (exact_[k_ - 1].key == kNullKey || next == kNullKey) return false;
  const double kth = direction_.score(exact_[k_ - 1].key);
  const double bound = direction_.score(next);
  if (options_.epsilon > 0.0 &&
      (direction_.largest ? kth + options_.epsilon >= bound : kth <= bound + options_.epsilon)) {
    return true;
  }
  if (options_.theta <= 1.0) return false;
  if (options_.theta_on == ThetaOn::kDistance) return bound >= 0.0 && kth <= options_.theta * bound;
  return all_lower_nonnegative_ && kth * options_.theta >= bound;
}

std::vector<std::int64_t> BoundedSearch::next_wave(std::size_t unit, std::size_t max_wave) {
  if (unit < 1 || max_wave < unit || max_wave % unit != 0) {
    throw std::invalid_argument("`max_wave` must be a positive multiple of `unit`, and `unit` at least 1; got unit=" +
                                std::to_string(unit) + ", max_wave=" + std::to_string(max_wave));
  }
  put_back_handed_out();
  prepare();
  settle_exact();

  std::vector<std::int64_t> wave;
  std::size_t n_better = 0;  // exact scores that rank before the candidate in hand
  bool finished = false;
  while (wave.size() < max_wave) {
    const QueueEntry* top = queue_top();
    if (top == nullptr) break;
    const std::size_t index = top->index;
    Candidate& c = candidates_[index];
    const Rank rank{c.best, c.id};
    if (out(rank)) {
      finished = k_ != 0;  // the queue is in rank order: all that follow are out too
      if (finished) break;
      c.state = State::kDropped;
      --n_open_;
      if (c.refined) --n_open_refined_;
      continue;
    }
    if (relaxed_stop(rank.key)) break;
    while (n_better < exact_.size() && exact_[n_better] < rank) ++n_better;
    const bool certain = k_ == 0 || n_better + wave.size() < k_;
    if (!certain && wave.size() % unit == 0) break;
    std::pop_heap(queue_.begin(), queue_.end(), queue_after);
    queue_.pop_back();
    c.state = State::kHandedOut;
    handed_out_.push_back(index);
    wave.push_back(c.id);
  }
  if (finished && wave.empty()) drop_all_open();
  return wave;
}

// ---- refinement -----------------------------------------------------------------------------------------------------

std::size_t BoundedSearch::find(std::int64_t id) const noexcept {
  const auto before = [](const Candidate& c, std::int64_t value) { return c.id < value; };
  const auto found = std::lower_bound(candidates_.begin(), candidates_.end(), id, before);
  if (found == candidates_.end() || found->id != id) return kNotFound;
  return static_cast<std::size_t>(found - candidates_.begin());
}

// Intersects a candidate's interval with a new one that meets it.
void BoundedSearch::apply(std::size_t index, const Interval& interval) {
  Candidate& c = candidates_[index];
  if (!c.refined) {
    c.refined = true;
    ++n_refined_;
    ++n_open_refined_;
  }
  c.best = std::max(c.best, interval.best);
  c.worst = std::min(c.worst, interval.worst);
  const bool exact = c.best == c.worst;
  if (exact || out({c.best, c.id})) {
    c.state = exact ? State::kExact : State::kDropped;
    --n_open_;
    --n_open_refined_;
    if (exact) add_exact({c.best, c.id});
    return;
  }
  c.state = State::kOpen;
  push_queue(index);
  std::push_heap(queue_.begin(), queue_.end(), queue_after);
}

void BoundedSearch::refine(const Block& block) {
  check_intervals(block);
  prepare();
  std::vector<std::size_t> indices(block.n);
  std::vector<Interval> intervals(block.n);
  for (std::size_t i = 0; i < block.n; ++i) {
    const std::int64_t id = block.ids[i];
    indices[i] = find(id);
    if (indices[i] == kNotFound || candidates_[indices[i]].state == State::kExact) {
      throw std::invalid_argument("`ids` must be open (handed out by next_wave and not yet exact); got id " +
                                  std::to_string(id) + " at position " + std::to_string(i));
    }
    const Candidate& c = candidates_[indices[i]];
    const bool may_be_null = block.may_be_null != nullptr && block.may_be_null[i] != 0;
    intervals[i] = interval_of(block.lower[i], block.upper[i], may_be_null);
    if (c.state == State::kDropped) continue;
    if (intervals[i].best > c.worst || intervals[i].worst < c.best) {
      const double low = direction_.score(direction_.largest ? c.worst : c.best);
      const double high = direction_.score(direction_.largest ? c.best : c.worst);
      throw std::invalid_argument("a refined interval must meet the earlier one; got [" + text(block.lower[i]) + ", " +
                                  text(block.upper[i]) + "] for id " + std::to_string(id) + ", expected inside [" +
                                  text(low) + ", " + text(high) + "]: the bounds were not certain");
    }
  }
  for (std::size_t i = 0; i < block.n; ++i) {
    if (is_open(candidates_[indices[i]])) apply(indices[i], intervals[i]);
  }
  const auto refined = [this](std::size_t index) { return candidates_[index].state != State::kHandedOut; };
  handed_out_.erase(std::remove_if(handed_out_.begin(), handed_out_.end(), refined), handed_out_.end());
  settle_exact();
  refined_since_cut_ += static_cast<std::int64_t>(block.n);
  if (k_ != 0 && refined_since_cut_ * kTightenPerRefined >= n_open_) {
    tighten_cut();
    drop_beaten();
  }
}

std::vector<std::int64_t> BoundedSearch::rehearse(std::size_t unit, std::size_t max_wave) {
  std::vector<std::int64_t> wave = next_wave(unit, max_wave);
  for (const std::size_t index : std::vector<std::size_t>(handed_out_)) {
    const Candidate& c = candidates_[index];
    const double best = cost_of_key(c.best);
    const double worst = cost_of_key(c.worst);  // NaN: may be NULL or unbounded
    const bool bounded = std::isfinite(best) && std::isfinite(worst);
    RankKey guess = bounded ? key_of_cost(best * 0.5 + worst * 0.5) : c.worst;
    guess = std::min(std::max(guess, c.best), c.worst);
    apply(index, {guess, guess});
  }
  handed_out_.clear();
  settle_exact();
  return wave;
}

// ---- what is known --------------------------------------------------------------------------------------------------

Ranking BoundedSearch::result() const {
  std::vector<Rank> ranks;
  std::copy_if(exact_.begin(), exact_.end(), std::back_inserter(ranks), [this](const Rank& r) { return !out(r); });
  if (k_ == 0 && options_.floor) {
    std::sort(ranks.begin(), ranks.end(), [](const Rank& a, const Rank& b) { return a.id < b.id; });
  } else {
    std::sort(ranks.begin(), ranks.end());
  }
  if (k_ != 0 && ranks.size() > k_) ranks.resize(k_);
  Ranking ranking;
  ranking.ids.reserve(ranks.size());
  ranking.scores.reserve(ranks.size());
  ranking.is_null.reserve(ranks.size());
  for (const Rank& rank : ranks) {
    ranking.ids.push_back(rank.id);
    ranking.scores.push_back(direction_.score(rank.key));
    ranking.is_null.push_back(rank.key == kNullKey ? 1 : 0);
  }
  return ranking;
}

std::optional<double> BoundedSearch::threshold() {
  const std::size_t pool = exact_.size() + candidates_.size();
  if (!prepared_ && (pool <= kFirstPrune || offered_since_cut_ * 8 >= pool)) tighten_cut();
  if (!has_cut_ || cut_.key == kNullKey) return std::nullopt;
  return direction_.score(cut_.key);
}

std::int64_t BoundedSearch::open_count() {
  prepare();
  return n_open_;
}

std::optional<double> BoundedSearch::kth() {
  settle_exact();
  if (k_ == 0 || exact_.size() < k_ || exact_[k_ - 1].key == kNullKey) return std::nullopt;
  return direction_.score(exact_[k_ - 1].key);
}

std::optional<double> BoundedSearch::peek_bound() {
  put_back_handed_out();
  prepare();
  RankKey best = kNullKey;
  if (k_ != 0) {
    const QueueEntry* top = queue_top();
    if (top == nullptr) return std::nullopt;
    best = top->order.key;
  } else {
    if (n_open_ == 0) return std::nullopt;
    for (const Candidate& c : candidates_) {
      if (is_open(c)) best = std::min(best, c.best);
    }
  }
  if (best == kNullKey) return std::nullopt;
  return direction_.score(best);
}

}  // namespace nadb::search
