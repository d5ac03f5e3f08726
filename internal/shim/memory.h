// Memory: what libtorch frees on the CPU is kept for the tensors that come next.
//
// The C library gives large blocks back to the kernel when they are freed, and the
// kernel clears every page of a new one: writing a fresh tensor takes five times as
// long as writing one whose memory is there already, and a network makes the same
// tensors in every pass. So freed blocks wait for a tensor of about their size.
// Kept and used memory together never exceed the most that was used at one time:
// a process is never larger than it would have to be without this.
#pragma once

#ifdef __linux__

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <torch/version.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <new>
#include <unordered_map>

namespace hcunet {

class Blocks {
 public:
  static constexpr size_t smallest = 1 << 20;  // below this the C library is fast enough

  void* take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    bytes = rounded(bytes, page);
    auto it = by_size_.lower_bound(bytes);
    if (it != by_size_.end() && it->first <= bytes + bytes / 8) {
      auto [p, n] = *it->second;
      kept_ -= n;
      order_.erase(it->second);
      by_size_.erase(it);
      return use(p, n);
    }
    while (kept_ > 0 && used_ + kept_ + bytes > std::max(most_, used_ + bytes)) drop_oldest();
    void* p = map(bytes);
    if (!p) {
      while (kept_ > 0) drop_oldest();
      p = map(bytes);
    }
    return p ? use(p, bytes) : nullptr;
  }

  // Keeps a block; false says that it is none of these.
  bool give(void* p) {
    if (reinterpret_cast<uintptr_t>(p) % huge) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = sizes_.find(p);
    if (it == sizes_.end()) return false;
    auto n = it->second;
    sizes_.erase(it);
    used_ -= n;
    kept_ += n;
    order_.push_back({p, n});
    by_size_.emplace(n, std::prev(order_.end()));
    return true;
  }

  // Returns all that is kept to the kernel, and forgets how much was ever used.
  size_t release() {
    std::lock_guard<std::mutex> lock(mutex_);
    auto kept = kept_;
    while (kept_ > 0) drop_oldest();
    most_ = used_;
    return kept;
  }

 private:
  struct Block {
    void* p;
    size_t n;
  };
  using Order = std::list<Block>;

  static constexpr size_t page = 4 << 10, huge = 2 << 20;
  static size_t rounded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

  void* use(void* p, size_t n) {
    sizes_[p] = n;
    used_ += n;
    most_ = std::max(most_, used_);
    return p;
  }

  // Blocks begin at a huge page, which the kernel clears faster than many small ones.
  static void* map(size_t n) {
    auto whole = n + huge;
    auto* at = static_cast<char*>(mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (at == MAP_FAILED) return nullptr;
    auto* p = reinterpret_cast<char*>(rounded(reinterpret_cast<uintptr_t>(at), huge));
    if (p > at) munmap(at, p - at);
    if (at + whole > p + n) munmap(p + n, at + whole - (p + n));
    if (n >= huge) madvise(p, n / huge * huge, MADV_HUGEPAGE);
    return p;
  }

  void drop_oldest() {
    auto [p, n] = order_.front();
    auto [it, end] = by_size_.equal_range(n);
    while (it != end && it->second != order_.begin()) ++it;
    by_size_.erase(it);
    order_.pop_front();
    kept_ -= n;
    munmap(p, n);
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;         // of blocks in use
  Order order_;                                     // kept ones, the longest kept first
  std::multimap<size_t, Order::iterator> by_size_;  // the same
  size_t used_ = 0, kept_ = 0, most_ = 0;           // bytes; most_ of used_
};

inline Blocks& blocks() {
  static auto* b = new Blocks;  // tensors may be freed after the last destructor
  return *b;
}

class Memory final : public c10::Allocator {
 public:
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 203
  c10::DataPtr allocate(size_t n) override { return take(n); }
  void copy_data(void* to, const void* from, size_t n) const override { default_copy_data(to, from, n); }
#else
  c10::DataPtr allocate(size_t n) const override { return take(n); }
#endif
  c10::DeleterFnPtr raw_deleter() const override { return &give; }

 private:
  static c10::DataPtr take(size_t n) {
    void* p = n < Blocks::smallest ? c10::alloc_cpu(n) : blocks().take(n);
    TORCH_CHECK(p || n == 0, "not enough memory for a tensor of ", n, " bytes");
    return {p, p, &give, c10::Device(c10::kCPU)};
  }
  static void give(void* p) {
    if (p && !blocks().give(p)) c10::free_cpu(p);
  }
};

// Takes effect when the program, or libcgotorch.so, is loaded.
inline const bool memory_in_use = [] {
  c10::SetCPUAllocator(new Memory);
  return true;
}();

inline size_t release_memory() { return blocks().release(); }

}  // namespace hcunet

#else

namespace hcunet {
inline size_t release_memory() { return 0; }
}  // namespace hcunet

#endif
