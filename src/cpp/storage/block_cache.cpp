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

std::uint64_t BlockCache::open_file(const std::string& name) {
  const auto [at, is_new] = numbers_.try_emplace(name, next_file_);
  if (is_new) {
    try {
      files_.try_emplace(next_file_, File{name, 0, 0});
    } catch (...) {
      numbers_.erase(at);
      throw;
    }
    ++next_file_;
  }
  ++files_.find(at->second)->second.n_users;
  return at->second;
}

void BlockCache::close_file(std::uint64_t file) noexcept {
  const auto found = files_.find(file);
  if (found == files_.end()) return;
  --found->second.n_users;
  prune(found);
}

void BlockCache::prune(Files::iterator file) noexcept {
  if (file->second.n_users != 0 || file->second.n_blocks != 0) return;
  numbers_.erase(file->second.name);
  files_.erase(file);
}

Block BlockCache::find(const BlockKey& key) {
  const auto found = by_key_.find(key);
  if (found == by_key_.end()) return nullptr;
  entries_.splice(entries_.end(), entries_, found->second);
  return found->second->block;
}

bool BlockCache::holds(const BlockLayout& layout, const ByteRange& range) const noexcept {
  for (std::size_t block = layout.first_of(range); block < layout.end_of(range); ++block) {
    if (by_key_.find({layout.file, block}) == by_key_.end()) return false;
  }
  return true;
}

void BlockCache::put(const BlockKey& key, Block block, std::size_t size) {
  const std::uint64_t cost = size + kEntryOverhead;
  if (cost > budget_bytes_) return;
  const auto found = by_key_.find(key);
  if (found != by_key_.end()) {
    entries_.splice(entries_.end(), entries_, found->second);
    return;
  }
  const auto file = files_.find(key.file);
  if (file == files_.end()) return;
  ++file->second.n_blocks;  // before others go, which may be the last ones of this file
  while (used_bytes_ + cost > budget_bytes_) drop_oldest();
  bool is_listed = false;
  try {
    entries_.push_back(Entry{key, std::move(block), cost});
    is_listed = true;
    by_key_.emplace(key, std::prev(entries_.end()));
  } catch (...) {
    if (is_listed) entries_.pop_back();
    --file->second.n_blocks;
    prune(file);
    throw;
  }
  used_bytes_ += cost;
}

void BlockCache::drop_oldest() noexcept {
  const Entry& oldest = entries_.front();
  const auto file = files_.find(oldest.key.file);
  used_bytes_ -= oldest.cost;
  by_key_.erase(oldest.key);
  entries_.pop_front();
  --file->second.n_blocks;
  prune(file);
}

void BlockCache::clear() noexcept {
  while (!entries_.empty()) drop_oldest();
}

Spans::Spans(BlockCache& cache, const BlockLayout& layout, const std::vector<ByteRange>& ranges)
    : layout_(layout), ranges_(ranges) {
  blocks_.reserve(ranges.size());
  for (const ByteRange& range : ranges_) {
    const std::size_t n_absent = absent_.size();
    for (std::size_t block = layout.first_of(range); block < layout.end_of(range); ++block) {
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
    const std::size_t first = layout_.first_of(range);
    const std::size_t n_blocks = layout_.end_of(range) - first;
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
