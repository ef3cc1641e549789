// Edges from a sample; see edges.h for the rule. Works on keys (order-preserving integers), so the flush-to-zero mode
// of the calling thread cannot change a comparison.
#include "activation/edges.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "activation/non_finite.h"
#include "kernels/dispatch.h"

namespace nadb::activation {

namespace {

#include "kernels/float_key.inl"

constexpr std::size_t kBlockNeurons = 16;  // one cache line of float32
constexpr std::size_t kRadixFrom = 384;    // below, std::sort is faster
constexpr int kDigitBits = 11;
constexpr std::size_t kDigits = std::size_t{1} << kDigitBits;

// Sorts keys by least-significant-digit radix sort, skipping digits that all keys share. `other` is scratch of equal
// size.
template <class Key>
void sort_keys(std::vector<Key>& keys, std::vector<Key>& other, std::vector<std::uint32_t>& histogram) {
  const std::size_t n = keys.size();
  if (n < kRadixFrom || n > std::numeric_limits<std::uint32_t>::max()) {
    std::sort(keys.begin(), keys.end());
    return;
  }
  constexpr int kKeyBits = 8 * sizeof(Key);
  constexpr int kPasses = (kKeyBits + kDigitBits - 1) / kDigitBits;
  histogram.assign(kPasses * kDigits, 0);
  for (const Key key : keys) {
    Key left = key;
    for (int pass = 0; pass < kPasses; ++pass, left >>= kDigitBits)
      ++histogram[pass * kDigits + (left & (kDigits - 1))];
  }
  for (int pass = 0; pass < kPasses; ++pass) {
    std::uint32_t* counts = histogram.data() + pass * kDigits;
    const int shift = pass * kDigitBits;
    const auto digit = [shift](Key key) { return (key >> shift) & (kDigits - 1); };
    if (counts[digit(keys[0])] == n) continue;
    std::uint32_t sum = 0;
    for (std::size_t d = 0; d < kDigits; ++d) {
      const std::uint32_t count = counts[d];
      counts[d] = sum;
      sum += count;
    }
    for (const Key key : keys) other[counts[digit(key)]++] = key;
    keys.swap(other);
  }
}

// A distinct value of a neuron's sample.
template <class Key>
struct Run {
  Key key;
  std::size_t count;
  bool heavy;
};

// The edges of one neuron; members are scratch, reused from neuron to neuron.
template <class Real>
class NeuronEdges {
 public:
  using Key = typename KeyOf<Real>::Key;

  NeuronEdges(int bits, std::size_t top_count) : n_partitions_(std::size_t{1} << bits), top_count_(top_count) {}

  // keys: sorted, at least one.
  void choose(const std::vector<Key>& keys, Real* edges) {
    find_runs(keys);
    edges_.clear();
    std::size_t budget = n_partitions_ - 1;
    n_low_ = runs_.size();
    if (top_count_ > 0) {
      top_ = top_edge();
      --budget;
    }
    if (n_low_ > 0) choose_low(budget);
    std::sort(edges_.begin(), edges_.end());
    const std::size_t n_used = edges_.size() + (top_count_ > 0 ? 1 : 0);
    Real* out = std::fill_n(edges, n_partitions_ - 1 - n_used, -std::numeric_limits<Real>::infinity());
    for (const Key key : edges_) *out++ = real_of_key<Real>(key);
    if (top_count_ > 0) *out = real_of_key<Real>(top_);
  }

 private:
  void find_runs(const std::vector<Key>& keys) {
    runs_.clear();
    const std::size_t n = keys.size();
    for (std::size_t begin = 0; begin < n;) {
      std::size_t end = begin + 1;
      while (end < n && keys[end] == keys[begin]) ++end;
      const std::size_t count = end - begin;
      runs_.push_back({keys[begin], count, count > n / n_partitions_ && count * n_partitions_ > n});
      begin = end;
    }
  }

  // The lowest value with at most top_count sample values at or above it and no heavy one; just above the greatest
  // sample value where there is none, so that rarer, greater values than the sample has still get into the maxima.
  Key top_edge() {
    std::size_t above = 0;
    Key edge = next_key<Real>(runs_.back().key);
    while (n_low_ > 0) {
      const Run<Key>& run = runs_[n_low_ - 1];
      if (run.heavy || above + run.count > top_count_) break;
      above += run.count;
      edge = run.key;
      --n_low_;
    }
    return edge;
  }

  bool is_top(Key key) const { return top_count_ > 0 && key == top_; }

  // At most `budget` edges for the runs below the top edge.
  void choose_low(std::size_t budget) {
    std::size_t n_light = 0;
    std::size_t n_light_values = 0;
    for (std::size_t i = 0; i < n_low_; ++i) {
      if (runs_[i].heavy) continue;
      ++n_light;
      n_light_values += runs_[i].count;
    }
    const bool discrete = n_light_values >= 2 * n_light;  // light values repeat too: few values, not a continuum
    if (discrete && n_low_ - 1 <= budget) {
      separate_all(budget);
      return;
    }
    budget -= isolate_heavy(budget);
    if (n_light > 0) spread(budget, n_light_values);
  }

  void order_runs(bool heavy_only) {
    order_.clear();
    for (std::size_t i = 0; i < n_low_; ++i) {
      if (!heavy_only || runs_[i].heavy) order_.push_back(i);
    }
    std::stable_sort(order_.begin(), order_.end(),
                     [this](std::size_t a, std::size_t b) { return runs_[a].count > runs_[b].count; });
  }

  // Few distinct values: a partition for each. What is left of the budget fences them in, the most frequent first,
  // against values that the sample does not have.
  void separate_all(std::size_t budget) {
    for (std::size_t i = 1; i < n_low_; ++i) edges_.push_back(runs_[i].key);
    budget -= n_low_ - 1;
    order_runs(false);
    for (const std::size_t i : order_) {
      const Key above = next_key<Real>(runs_[i].key);
      const bool cut_already = i + 1 < n_low_ ? above == runs_[i + 1].key : is_top(above);
      if (cut_already || budget == 0) continue;
      edges_.push_back(above);
      --budget;
    }
    if (budget > 0) edges_.push_back(runs_[0].key);
  }

  // Zero-width partitions for the heavy values, the heaviest first; returns the edges used.
  std::size_t isolate_heavy(std::size_t budget) {
    order_runs(true);
    // cut_at_[i]: an edge at run i's value; an edge just above run i is cut_at_[i + 1] where that is the next float.
    cut_at_.assign(n_low_, false);
    cut_above_.assign(n_low_, false);
    const std::size_t before = edges_.size();
    std::size_t left = budget;
    for (const std::size_t i : order_) {
      const Key above = next_key<Real>(runs_[i].key);
      const bool adjacent = i + 1 < n_low_ && above == runs_[i + 1].key;
      const bool follows = i > 0 && next_key<Real>(runs_[i - 1].key) == runs_[i].key;
      const bool need_at = i > 0 && !cut_at_[i] && !(follows && cut_above_[i - 1]);
      const bool greatest = i + 1 == runs_.size() && top_count_ == 0;
      const bool need_above = !greatest && !is_top(above) && !cut_above_[i] && !(adjacent && cut_at_[i + 1]);
      const std::size_t cost = (need_at ? 1 : 0) + (need_above ? 1 : 0);
      if (cost > left) continue;
      left -= cost;
      if (need_at) edges_.push_back(runs_[i].key);
      if (need_above) edges_.push_back(above);
      cut_at_[i] = true;
      cut_above_[i] = true;
    }
    return edges_.size() - before;
  }

  // n edges over the light values, each midway between the quantile and the point of equal width.
  void spread(std::size_t n, std::size_t n_values) {
    std::size_t first = 0;
    while (runs_[first].heavy) ++first;
    std::size_t last = n_low_ - 1;
    while (runs_[last].heavy) --last;
    const double low = static_cast<double>(real_of_key<Real>(runs_[first].key));
    const Key high_key = top_count_ > 0 ? top_ : runs_[last].key;
    double high = static_cast<double>(real_of_key<Real>(high_key));
    if (!std::isfinite(high)) high = static_cast<double>(real_of_key<Real>(runs_[last].key));
    std::size_t run = first;
    std::size_t passed = 0;  // light values before `run`
    for (std::size_t j = 1; j <= n; ++j) {
      const double t = static_cast<double>(j) / static_cast<double>(n + 1);
      const auto place = std::min(n_values - 1, static_cast<std::size_t>(t * static_cast<double>(n_values)));
      while (runs_[run].heavy || passed + runs_[run].count <= place) {
        if (!runs_[run].heavy) passed += runs_[run].count;
        ++run;
      }
      const double quantile = static_cast<double>(real_of_key<Real>(runs_[run].key));
      const double even = low * (1.0 - t) + high * t;
      edges_.push_back(key_of(static_cast<Real>(0.5 * quantile + 0.5 * even)));
    }
  }

  std::size_t n_partitions_;
  std::size_t top_count_;
  std::size_t n_low_ = 0;  // runs below the top edge
  Key top_ = 0;
  std::vector<Run<Key>> runs_;
  std::vector<std::size_t> order_;
  std::vector<bool> cut_at_;
  std::vector<bool> cut_above_;
  std::vector<Key> edges_;
};

std::size_t find_bad(const float* row, std::size_t n) { return active_kernels().find_non_finite_f32(row, n); }
std::size_t find_bad(const double* row, std::size_t n) { return active_kernels().find_non_finite_f64(row, n); }

}  // namespace

template <class Real>
void choose_edges(const Real* sample, std::size_t n_sample, std::size_t n_neurons, int bits, std::size_t top_count,
                  Real* edges, int threads, const Poll& poll) {
  using Key = typename KeyOf<Real>::Key;
  for (std::size_t row = 0; row < n_sample; ++row) {
    const std::size_t bad = find_bad(sample + row * n_neurons, n_neurons);
    if (bad < n_neurons) throw NonFiniteError(row, bad, static_cast<double>(sample[row * n_neurons + bad]));
  }
  const std::size_t n_edges = (std::size_t{1} << bits) - 1;
  const std::size_t n_blocks = (n_neurons + kBlockNeurons - 1) / kBlockNeurons;
  parallel_for(
      n_blocks, threads,
      [&](std::size_t block, std::size_t) {
        const std::size_t begin = block * kBlockNeurons;
        const std::size_t width = std::min(kBlockNeurons, n_neurons - begin);
        std::vector<std::vector<Key>> columns(width, std::vector<Key>(n_sample));
        for (std::size_t row = 0; row < n_sample; ++row) {
          const Real* values = sample + row * n_neurons + begin;
          for (std::size_t c = 0; c < width; ++c) columns[c][row] = key_of(values[c]);
        }
        std::vector<Key> other(n_sample);
        std::vector<std::uint32_t> histogram;
        NeuronEdges<Real> neuron(bits, top_count);
        for (std::size_t c = 0; c < width; ++c) {
          sort_keys(columns[c], other, histogram);
          neuron.choose(columns[c], edges + (begin + c) * n_edges);
        }
      },
      poll);
}

template void choose_edges<float>(const float*, std::size_t, std::size_t, int, std::size_t, float*, int, const Poll&);
template void choose_edges<double>(const double*, std::size_t, std::size_t, int, std::size_t, double*, int,
                                   const Poll&);

}  // namespace nadb::activation
