//go:build !cgotorch_so

// The arithmetic of adam.h. It knows nothing of libtorch, and compiles in a moment.
#include "adam.h"

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")
#include <immintrin.h>

namespace hcunet::adam {
namespace {

using Vector = __m256;
constexpr int64_t lanes = 8;

struct Wide {
  Vector beta1, rest1, beta2, rest2, size, over_root, eps, keep, l2;
  explicit Wide(const Numbers& n)
      : beta1(_mm256_set1_ps(n.beta1)), rest1(_mm256_set1_ps(n.rest1)), beta2(_mm256_set1_ps(n.beta2)),
        rest2(_mm256_set1_ps(n.rest2)), size(_mm256_set1_ps(n.size)), over_root(_mm256_set1_ps(1 / n.root)),
        eps(_mm256_set1_ps(n.eps)), keep(_mm256_set1_ps(n.keep)), l2(_mm256_set1_ps(n.l2)) {}
};

inline void step(const Wide& w, float* p, const float* g, float* m, float* v) {
  Vector x = _mm256_loadu_ps(p), d = _mm256_fmadd_ps(w.l2, x, _mm256_loadu_ps(g));
  Vector first = _mm256_fmadd_ps(w.rest1, d, w.beta1 * _mm256_loadu_ps(m));
  Vector second = _mm256_fmadd_ps(w.rest2 * d, d, w.beta2 * _mm256_loadu_ps(v));
  Vector divisor = _mm256_fmadd_ps(_mm256_sqrt_ps(second), w.over_root, w.eps);
  _mm256_storeu_ps(m, first);
  _mm256_storeu_ps(v, second);
  _mm256_storeu_ps(p, _mm256_fnmadd_ps(w.size, first / divisor, w.keep * x));
}

}  // namespace

void step(const Numbers& numbers, int64_t n, float* p, const float* g, float* m, float* v) {
  Wide w(numbers);
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) step(w, p + i, g + i, m + i, v + i);
  if (i == n) return;
  // The last elements, in the same operations.
  float rest[4][lanes] = {};
  for (int64_t k = 0; i + k < n; k++) rest[0][k] = p[i + k], rest[1][k] = g[i + k], rest[2][k] = m[i + k], rest[3][k] = v[i + k];
  step(w, rest[0], rest[1], rest[2], rest[3]);
  for (int64_t k = 0; i + k < n; k++) p[i + k] = rest[0][k], m[i + k] = rest[2][k], v[i + k] = rest[3][k];
}

}  // namespace hcunet::adam

#else

namespace hcunet::adam {
void step(const Numbers&, int64_t, float*, const float*, float*, float*) {}
}  // namespace hcunet::adam

#endif
