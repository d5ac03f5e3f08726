// The one shape of every C function: a body inside guard(), an error text or
// nullptr as the result. Nothing thrown by libtorch passes it.
#pragma once

#include "handles.h"

#include <cstring>
#include <new>
#include <string>

namespace hcunet {

// Errors of gotorch functions that return nothing (Backward, Step, ...). The
// next call on the same thread that can report one does.
inline thread_local std::string pending;

inline char* text(const char* s) { return strdup(s && *s ? s : "unknown C++ error"); }

inline char* take_pending() {
  if (pending.empty()) return nullptr;
  char* t = text(pending.c_str());
  pending.clear();
  return t;
}

template <class Body>
char* guard(Body&& body) noexcept {
  try {
    if (char* earlier = take_pending()) return earlier;
    std::shared_lock<std::shared_mutex> running(calls_mutex);
    body();
    return nullptr;
  } catch (const c10::Error& e) {
    return text(e.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return text("out of memory");
  } catch (const std::exception& e) {
    return text(e.what());
  } catch (...) {
    return text("unknown C++ exception");
  }
}

// For functions that cannot report: the error waits in pending.
template <class Body>
void guard_void(const char* where, Body&& body) noexcept {
  if (char* error = guard(std::forward<Body>(body))) {
    pending = std::string(where) + ": " + error;
    std::free(error);
  }
}

inline at::Tensor& ref(void* t) {
  TORCH_CHECK(t, "nil tensor");
  return *static_cast<at::Tensor*>(t);
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
