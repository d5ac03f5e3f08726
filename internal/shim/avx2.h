// Whether adam.cc, planar.cc, winograd.cc and winograd_small.cc can run here.
#pragma once

namespace hcunet {

inline bool avx2() {
#if defined(__x86_64__) && defined(__GNUC__)
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

}  // namespace hcunet
