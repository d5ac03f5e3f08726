// The one shape of every C function: a body inside guard(), an error text or
// nullptr as the result. Nothing thrown by libtorch passes it.
#pragma once

#include "handles.h"

#include <ATen/Parallel.h>

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

namespace hcunet {

// The number of threads inside an operator. OpenMP keeps it per thread, and one that
// calls libtorch for the first time would begin with all cores, which adds up in
// another order; so each takes the number before it works.
inline std::atomic<int> wanted_threads{0};  // 0 before anybody has chosen
inline thread_local int taken_threads = 0;

inline void take_threads() {
  int n = wanted_threads.load(std::memory_order_relaxed);
  if (n == taken_threads) return;
  at::set_num_threads(n);
  taken_threads = n;
}

// OpenBLAS has threads of its own, whose number changes the last bits of a product as
// well. at::set_num_threads does not know them, and without OpenBLAS there are none.
inline void set_blas_threads(int n) {
  static auto set = reinterpret_cast<void (*)(int)>(dlsym(RTLD_DEFAULT, "openblas_set_num_threads"));
  if (set) set(n);
}
inline int blas_threads() {
  static auto get = reinterpret_cast<int (*)()>(dlsym(RTLD_DEFAULT, "openblas_get_num_threads"));
  return get ? get() : 0;
}

inline char* text(const char* s) { return strdup(s && *s ? s : "unknown C++ error"); }

// Runs body and returns what it threw as a text, or nullptr.
template <class Body>
char* caught(Body&& body) noexcept {
  char* error = nullptr;
  try {
    std::shared_lock<std::shared_mutex> running(calls_mutex);
    take_threads();
    body();
  } catch (const c10::Error& e) {
    error = text(e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    error = text("out of memory");
  } catch (const std::exception& e) {
    error = text(e.what());
  } catch (...) {
    error = text("unknown C++ exception");
  }
  if (closed_handles.load(std::memory_order_relaxed)) bury();
  return error;
}

// The error of a gotorch function that returns nothing (Backward, Step, ...). It
// waits for the next call on the same thread that can report one.
struct Pending {
  char* text = nullptr;
  char* take() { return std::exchange(text, nullptr); }
  ~Pending() { std::free(text); }
};
inline thread_local Pending pending;

template <class Body>
char* guard(Body&& body) noexcept {
  if (char* earlier = pending.take()) return earlier;
  return caught(std::forward<Body>(body));
}

// For functions that cannot report. After one that failed the following do
// nothing, until the error has been reported: no step on half a gradient.
template <class Body>
void guard_void(const char* where, Body&& body) noexcept {
  if (pending.text) return;
  if (char* error = caught(std::forward<Body>(body))) {
    if (asprintf(&pending.text, "%s: %s", where, error) < 0) pending.text = nullptr;
    std::free(error);
  }
}

// The tensor behind a handle, even an undefined one.
inline at::Tensor& raw(void* t) {
  TORCH_CHECK(t, "nil tensor");
  return *static_cast<at::Tensor*>(t);
}

// An operand.
inline at::Tensor& ref(void* t) {
  TORCH_CHECK(raw(t).defined(), "empty tensor: the scope that it was made in has ended, or it never held a value");
  return raw(t);
}

// An operand that may be absent.
inline at::Tensor opt(void* t) { return t ? *static_cast<at::Tensor*>(t) : at::Tensor(); }

inline std::vector<at::Tensor> refs(void* const* t, int64_t n) {
  std::vector<at::Tensor> v;
  v.reserve(n);
  for (int64_t i = 0; i < n; i++) v.push_back(ref(t[i]));
  return v;
}

inline at::IntArrayRef ints(const int64_t* p, int64_t n) { return at::IntArrayRef(p, n); }

}  // namespace hcunet
