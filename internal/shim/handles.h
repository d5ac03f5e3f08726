// Handles and scopes: who owns a tensor that Go can see.
//
// A handle is the at::Tensor* behind gotorch.Tensor.T. Handles live in a pool
// of their own, so that one that waits for Go's collector does not pin a page
// of the heap, and register in the innermost scope of the thread that made
// them; the scope's end empties them at once.
//
// The pool's memory stays a Handle for ever: a spare one is an undefined tensor
// and the longest spare is used first. A pointer that outlives its handle
// therefore meets an undefined tensor, which is an error, and no freed memory.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <utility>
#include <vector>

namespace hcunet {

struct Scope;

struct Handle : at::Tensor {
  enum State : uint8_t {
    spare,
    live,
    dropped,  // Go let go of it while its scope is open
    closed,   // Go let go of it; it is in the graveyard
  };
  Scope* scope = nullptr;
  size_t index = 0;  // in scope->handles
  Handle* next = nullptr;
  State state = spare;
};

struct Scope {
  Scope* parent;
  std::vector<Handle*> handles;

  void enter(Handle* h) {
    h->scope = this;
    h->index = handles.size();
    handles.push_back(h);
  }
  void leave(Handle* h) {
    h->scope = nullptr;
    handles[h->index] = nullptr;
  }
};

struct Closed {
  Handle* handle;
  std::chrono::steady_clock::time_point at;
};

// Held shared by every guarded call; held exclusively, by try_lock only, while
// handles that Go has dropped are emptied.
inline std::shared_mutex calls_mutex;

inline std::mutex handles_mutex;  // guards all that follows, and every open scope's list
inline Handle* spare_first = nullptr;
inline Handle* spare_last = nullptr;
inline std::deque<Closed> graveyard;

inline std::atomic<int64_t> live_handles{0};
inline std::atomic<size_t> closed_handles{0};  // graveyard.size(), to be read without the lock
inline thread_local Scope* innermost = nullptr;

// The caller holds handles_mutex, here and in recycle.
inline void add_spare(Handle* h) {
  h->state = Handle::spare;
  h->next = nullptr;
  (spare_last ? spare_last->next : spare_first) = h;
  spare_last = h;
}

inline void recycle(Handle* h) {
  add_spare(h);
  live_handles--;
}

inline at::Tensor* make(at::Tensor t) {
  constexpr size_t slab = 1024;
  std::lock_guard<std::mutex> lock(handles_mutex);
  if (!spare_first) {
    auto* handles = new Handle[slab];  // never deleted: see above
    for (size_t i = 0; i < slab; i++) add_spare(handles + i);
  }
  Handle* h = spare_first;
  if (innermost) innermost->enter(h);  // the only step that may throw
  spare_first = h->next;
  if (!spare_first) spare_last = nullptr;
  h->state = Handle::live;
  static_cast<at::Tensor&>(*h) = std::move(t);
  live_handles++;
  return h;
}

// gotorch does not keep its operands alive across a call, so Go's collector may
// close a handle while the call that reads it is running or about to start. A
// closed handle is emptied only when no call runs, and not before a grace
// period that covers the way from Go's load of the pointer into the call.
constexpr auto grace = std::chrono::milliseconds(500);

inline void bury() {
  std::unique_lock<std::shared_mutex> no_calls(calls_mutex, std::try_to_lock);
  if (!no_calls) return;
  auto limit = std::chrono::steady_clock::now() - grace;
  std::vector<at::Tensor> contents;  // released outside of handles_mutex
  std::lock_guard<std::mutex> lock(handles_mutex);
  while (!graveyard.empty() && graveyard.front().at < limit) {
    Handle* h = graveyard.front().handle;
    contents.push_back(std::move(*static_cast<at::Tensor*>(h)));
    graveyard.pop_front();
    recycle(h);
  }
  closed_handles = graveyard.size();
}

inline void close(at::Tensor* t) {
  auto* h = static_cast<Handle*>(t);
  {
    std::lock_guard<std::mutex> lock(handles_mutex);
    if (h->state != Handle::live) return;
    h->state = h->scope ? Handle::dropped : Handle::closed;
    if (h->scope) return;  // the scope's end recycles it
    graveyard.push_back({h, std::chrono::steady_clock::now()});
    closed_handles = graveyard.size();
  }
  bury();
}

inline void scope_begin() { innermost = new Scope{innermost, {}}; }

// Moves a handle of the innermost scope to the one around it. A handle that the
// innermost scope does not own stays where it is.
inline void scope_keep(at::Tensor* t) {
  auto* h = static_cast<Handle*>(t);
  std::lock_guard<std::mutex> lock(handles_mutex);
  if (!innermost || h->scope != innermost) return;
  innermost->leave(h);
  if (innermost->parent) innermost->parent->enter(h);
}

// Empties what the innermost scope still holds and returns how many it were.
inline int64_t scope_end() {
  std::unique_ptr<Scope> scope(innermost);
  if (!scope) return 0;
  innermost = scope->parent;
  std::vector<at::Tensor> contents;  // released outside of handles_mutex
  contents.reserve(scope->handles.size());
  {
    std::lock_guard<std::mutex> lock(handles_mutex);
    for (Handle* h : scope->handles) {
      if (!h) continue;
      contents.push_back(std::move(*static_cast<at::Tensor*>(h)));
      h->scope = nullptr;
      if (h->state == Handle::dropped) recycle(h);
    }
  }
  return static_cast<int64_t>(contents.size());
}

}  // namespace hcunet
