// The block cache and what reads through it; see block_cache.h.
#include "storage/block_cache.h"

#include <algorithm>
#include <cstring>

namespace nadb::storage {

namespace {

std::shared_ptr<std::uint8_t> make_block(std::size_t size) {
  return std::shared_ptr<std::uint8_t>(new std::uint8_t[size], std::default_delete<std::uint8_t[]>());
}

}  // namespace

Block BlockCache::find(const BlockKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.end(), entries_, found->second);
  return found->second->block;
}

void BlockCache::put(const BlockKey& key, Block block, std::size_t size) {
  const std::uint64_t cost = size + kEntryOverhead;
  if (cost > budget_bytes_) return;
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) {
    entries_.splice(entries_.end(), entries_, found->second);
    return;
  }
  while (used_bytes_ + cost > budget_bytes_) {
    used_bytes_ -= entries_.front().cost;
    by_key_.erase(entries_.front().key);
    entries_.pop_front();
  }
  entries_.push_back(Entry{key, std::move(block), cost});
  try {
    by_key_.emplace(key, std::prev(entries_.end()));
  } catch (...) {
    entries_.pop_back();
    throw;
  }
  used_bytes_ += cost;
}

void BlockCache::clear() noexcept {
  by_key_.clear();
  entries_.clear();
  used_bytes_ = 0;
}

Spans::Spans(BlockCache& cache, const BlockLayout& layout, const std::vector<ByteRange>& ranges)
    : layout_(layout), ranges_(ranges) {
  blocks_.reserve(ranges.size());
  for (const ByteRange& range : ranges_) {
    const std::size_t n_absent = absent_.size();
    const std::size_t end = range.length == 0 ? 0 : (range.offset + range.length - 1) / layout.block_bytes + 1;
    for (std::size_t block = range.offset / layout.block_bytes; block < end; ++block) {
      blocks_.push_back(cache.find({layout.file, block}));
      if (blocks_.back() == nullptr) absent_.push_back(static_cast<std::int64_t>(block));
    }
    ++(absent_.size() == n_absent ? cache.hits : cache.misses);
  }
  if (absent_.empty()) {
    resolve();
    return;
  }
  std::sort(absent_.begin(), absent_.end());
  absent_.erase(std::unique(absent_.begin(), absent_.end()), absent_.end());
}

void Spans::read(const StoredArray& array, int threads, const Poll& poll) {
  std::vector<Block> fresh;
  std::vector<std::uint8_t*> targets;
  fresh.reserve(absent_.size());
  targets.reserve(absent_.size());
  for (const std::int64_t block : absent_) {
    const std::shared_ptr<std::uint8_t> made = make_block(layout_.size_of(static_cast<std::size_t>(block)));
    targets.push_back(made.get());
    fresh.push_back(made);
  }
  read_many(array, absent_.data(), absent_.size(), targets.data(), threads, poll);
  fresh_ = std::move(fresh);
  resolve();
}

void Spans::keep(BlockCache& cache) {
  for (std::size_t i = 0; i < fresh_.size(); ++i) {
    const auto block = static_cast<std::size_t>(absent_[i]);
    cache.put({layout_.file, block}, fresh_[i], layout_.size_of(block));
  }
  absent_.clear();
  fresh_.clear();
}

void Spans::resolve() {
  static const std::uint8_t kNothing = 0;
  pointers_.reserve(ranges_.size());
  std::size_t at = 0;  // in blocks_
  for (const ByteRange& range : ranges_) {
    if (range.length == 0) {
      pointers_.push_back(&kNothing);
      continue;
    }
    const std::size_t first = range.offset / layout_.block_bytes;
    const std::size_t n_blocks = (range.offset + range.length - 1) / layout_.block_bytes + 1 - first;
    for (std::size_t i = 0; i < n_blocks; ++i) {
      Block& block = blocks_[at + i];
      if (block != nullptr) continue;
      const auto place = std::lower_bound(absent_.begin(), absent_.end(), static_cast<std::int64_t>(first + i));
      block = fresh_[static_cast<std::size_t>(place - absent_.begin())];
    }
    std::size_t start = range.offset - first * layout_.block_bytes;
    if (n_blocks == 1) {
      pointers_.push_back(blocks_[at].get() + start);
    } else {
      joined_.emplace_back(new std::uint8_t[range.length]);
      std::uint8_t* out = joined_.back().get();
      pointers_.push_back(out);
      for (std::size_t i = 0, left = range.length; i < n_blocks; ++i, start = 0) {
        const std::size_t n = std::min(left, layout_.block_bytes - start);
        std::memcpy(out, blocks_[at + i].get() + start, n);
        out += n;
        left -= n;
      }
    }
    at += n_blocks;
  }
}

}  // namespace nadb::storage
