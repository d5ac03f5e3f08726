// Handles and scopes: who owns a tensor that Go can see.
//
// A handle is the at::Tensor* behind gotorch.Tensor.T. Handles live in a pool
// of their own, so that one that waits for Go's collector does not pin a page
// of the heap, and register in the innermost scope of the thread that made
// them; the scope's end empties them at once.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

namespace hcunet {

struct Handle;
struct Scope {
  Scope* parent;
  std::vector<Handle*> handles;
};

// Held shared by every guarded call; held exclusively, by try_lock only, while
// handles that Go has dropped are deleted.
inline std::shared_mutex calls_mutex;
inline std::mutex handles_mutex;  // guards scopes, the pool and the graveyard
inline std::atomic<int64_t> live_handles{0};
inline thread_local Scope* innermost = nullptr;
inline void* pool_free = nullptr;

inline void* pool_take() {
  constexpr size_t slot = 64, slots = 1024;
  std::lock_guard<std::mutex> lock(handles_mutex);
  if (!pool_free) {
    char* slab = static_cast<char*>(std::aligned_alloc(slot, slot * slots));
    if (!slab) throw std::bad_alloc();
    for (size_t i = 0; i < slots; i++) {
      *reinterpret_cast<void**>(slab + i * slot) = pool_free;
      pool_free = slab + i * slot;
    }
  }
  void* p = pool_free;
  pool_free = *static_cast<void**>(p);
  return p;
}

struct Handle : at::Tensor {
  Scope* scope = nullptr;
  size_t index = 0;      // in scope->handles
  bool dropped = false;  // Go let go of it while its scope was open

  explicit Handle(at::Tensor t) : at::Tensor(std::move(t)) {
    live_handles++;
    if (!innermost) return;
    std::lock_guard<std::mutex> lock(handles_mutex);
    enter(innermost);
  }
  ~Handle() { live_handles--; }

  // The caller holds handles_mutex.
  void enter(Scope* s) {
    scope = s;
    index = s->handles.size();
    s->handles.push_back(this);
  }

  static void* operator new(size_t n) {
    static_assert(sizeof(at::Tensor) + 24 <= 64, "a handle must fit its slot");
    (void)n;
    return pool_take();
  }
  static void operator delete(void* p) {
    std::lock_guard<std::mutex> lock(handles_mutex);
    *static_cast<void**>(p) = pool_free;
    pool_free = p;
  }
};

inline at::Tensor* make(at::Tensor t) { return new Handle(std::move(t)); }

// Handles that Go's collector has closed. gotorch does not keep its operands
// alive across a call, so a handle may be closed while the call that reads it
// is running or about to start: it is deleted only when no call runs, and not
// before a grace period that covers the way from Go's load of the pointer into
// the guarded call.
struct Closed {
  Handle* handle;
  std::chrono::steady_clock::time_point at;
};
inline std::deque<Closed> graveyard;
constexpr auto grace = std::chrono::milliseconds(200);

inline void bury() {
  std::unique_lock<std::shared_mutex> calls(calls_mutex, std::try_to_lock);
  if (!calls) return;
  std::vector<Handle*> gone;
  {
    std::lock_guard<std::mutex> lock(handles_mutex);
    auto limit = std::chrono::steady_clock::now() - grace;
    while (!graveyard.empty() && graveyard.front().at < limit) {
      gone.push_back(graveyard.front().handle);
      graveyard.pop_front();
    }
  }
  for (auto* h : gone) delete h;
}

inline void close(at::Tensor* t) {
  auto* h = static_cast<Handle*>(t);
  {
    std::lock_guard<std::mutex> lock(handles_mutex);
    if (h->scope) {
      h->dropped = true;  // the scope's end deletes it
      return;
    }
    graveyard.push_back({h, std::chrono::steady_clock::now()});
  }
  bury();
}

inline void scope_begin() { innermost = new Scope{innermost, {}}; }

// Moves a handle of an open scope to that scope's parent.
inline void scope_keep(at::Tensor* t) {
  auto* h = static_cast<Handle*>(t);
  std::lock_guard<std::mutex> lock(handles_mutex);
  Scope* s = h->scope;
  if (!s) return;
  s->handles[h->index] = nullptr;
  h->scope = nullptr;
  if (s->parent) h->enter(s->parent);
}

// Empties what the innermost scope still holds and returns how many it were.
inline int64_t scope_end() {
  Scope* s = innermost;
  if (!s) return 0;
  std::vector<at::Tensor> storage;  // released outside of the lock
  std::vector<Handle*> gone;
  {
    std::lock_guard<std::mutex> lock(handles_mutex);
    for (auto* h : s->handles) {
      if (!h) continue;
      h->scope = nullptr;
      storage.push_back(std::move(*static_cast<at::Tensor*>(h)));
      if (h->dropped) gone.push_back(h);
    }
    innermost = s->parent;
  }
  for (auto* h : gone) delete h;
  delete s;
  return static_cast<int64_t>(storage.size());
}

}  // namespace hcunet
