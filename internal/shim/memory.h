// Memory: what libtorch frees on the CPU is kept for the tensors that come next.
//
// The C library gives large blocks back to the kernel when they are freed, and the
// kernel clears every page of a new one: writing a fresh tensor takes five times as
// long as writing one whose memory is there already, and a network makes the same
// tensors in every pass. So freed memory waits for other tensors: one takes a part of
// what is kept, and parts that touch become one again.
// Kept and used memory together never exceed the most that was used at one time, but for
// the rest of a huge page: a process is not larger than it would have to be without this.
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
#include <map>
#include <mutex>
#include <new>
#include <set>
#include <unordered_map>
#include <utility>

namespace hcunet {

class Blocks {
 public:
  static constexpr size_t smallest = 1 << 20;  // below this the C library is fast enough

  // Returns memory for a tensor, or null if there is none.
  void* take(size_t bytes) {
    std::lock_guard<std::mutex> lock(mutex_);
    bytes = rounded(bytes, page);
    auto it = by_size_.lower_bound({bytes, nullptr});
    if (it == by_size_.end()) {
      size_t fresh = rounded(bytes, huge), limit = std::max(most_, used_ + bytes);
      if (used_ + kept_ + fresh > limit) drop(used_ + kept_ + fresh - limit);
      char* p = map(fresh);
      if (!p) {
        drop(kept_);
        if (!(p = map(fresh))) return nullptr;
      }
      keep(p, fresh);
      it = by_size_.lower_bound({bytes, nullptr});
    }
    auto [n, p] = *it;
    forget(p);
    if (n > bytes) keep(p + bytes, n - bytes);
    sizes_[p] = bytes;
    used_ += bytes;
    most_ = std::max(most_, used_);
    return p;
  }

  // Keeps the memory of a tensor; false says that it is not from here.
  bool give(void* p) {
    if (reinterpret_cast<uintptr_t>(p) % page) return false;
    std::lock_guard<std::mutex> lock(mutex_);
    auto it = sizes_.find(p);
    if (it == sizes_.end()) return false;
    used_ -= it->second;
    keep(static_cast<char*>(p), it->second);
    sizes_.erase(it);
    return true;
  }

  // Returns all that is kept to the kernel, and forgets how much was ever used.
  size_t release() {
    std::lock_guard<std::mutex> lock(mutex_);
    auto kept = kept_;
    drop(kept);
    most_ = used_;
    return kept;
  }

 private:
  static constexpr size_t page = 4 << 10, huge = 2 << 20;
  static size_t rounded(size_t n, size_t unit) { return (n + unit - 1) / unit * unit; }

  // Whole huge pages, which the kernel clears faster than many small ones.
  static char* map(size_t n) {
    auto whole = n + huge;
    auto* at = static_cast<char*>(mmap(nullptr, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (at == MAP_FAILED) return nullptr;
    auto* p = reinterpret_cast<char*>(rounded(reinterpret_cast<uintptr_t>(at), huge));
    if (p > at) munmap(at, p - at);
    if (at + whole > p + n) munmap(p + n, at + whole - (p + n));
    madvise(p, n, MADV_HUGEPAGE);
    return p;
  }

  // Adds memory to what is kept, as one with what it touches.
  void keep(char* p, size_t n) {
    kept_ += n;
    auto next = kept_at_.lower_bound(p);
    if (next != kept_at_.end() && next->first == p + n) {
      n += next->second;
      next = erase(next);
    }
    if (next != kept_at_.begin()) {
      auto before = std::prev(next);
      if (before->first + before->second == p) {
        p = before->first;
        n += before->second;
        erase(before);
      }
    }
    kept_at_[p] = n;
    by_size_.insert({n, p});
  }

  void forget(char* p) {
    auto it = kept_at_.find(p);
    kept_ -= it->second;
    erase(it);
  }

  using Kept = std::map<char*, size_t>;
  Kept::iterator erase(Kept::iterator it) {
    by_size_.erase({it->second, it->first});
    return kept_at_.erase(it);
  }

  // Returns at least so many bytes of what is kept to the kernel, the smallest parts first.
  void drop(size_t bytes) {
    for (size_t dropped = 0; dropped < bytes && kept_ > 0;) {
      auto [n, p] = *by_size_.begin();
      forget(p);
      munmap(p, n);
      dropped += n;
    }
  }

  std::mutex mutex_;
  std::unordered_map<void*, size_t> sizes_;     // of tensors
  Kept kept_at_;                                // sizes of what is kept, by address
  std::set<std::pair<size_t, char*>> by_size_;  // the same
  size_t used_ = 0, kept_ = 0, most_ = 0;       // bytes; most_ of used_
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
