// The arithmetic that winograd.cc and winograd_small.cc share: the matrices of winograd.h and
// products of their positions. Include it after #pragma GCC target("avx2,fma").
#pragma once

#include "vectors.h"
#include "winograd.h"

#include <cstring>

namespace hcunet::winograd {
namespace {

constexpr float a = 0.75f, b = 1.5f;  // the points
constexpr float a2 = a * a, b2 = b * b, a3 = a2 * a, b3 = b2 * b;

inline Vector plus(Vector x, float f, Vector y) { return _mm256_fmadd_ps(_mm256_set1_ps(f), y, x); }
inline float plus(float x, float f, float y) { return x + f * y; }
inline Vector times(float f, Vector x) { return _mm256_set1_ps(f) * x; }
inline float times(float f, float x) { return f * x; }

// B' d.
template <class T>
inline void input(const T d[6], T t[6]) {
  T u = plus(d[4], -b2, d[2]), v = times(a, plus(d[3], -b2, d[1]));
  T w = plus(d[4], -a2, d[2]), x = times(b, plus(d[3], -a2, d[1]));
  t[0] = plus(plus(d[4], -(a2 + b2), d[2]), a2 * b2, d[0]);
  t[1] = u + v, t[2] = u - v, t[3] = w + x, t[4] = w - x;
  t[5] = plus(plus(d[5], -(a2 + b2), d[3]), a2 * b2, d[1]);
}

// A' m.
template <class T>
inline void output(const T m[6], T y[4]) {
  T s = m[1] + m[2], u = m[1] - m[2], v = m[3] + m[4], w = m[3] - m[4];
  y[0] = m[0] + s + v;
  y[1] = plus(times(a, u), b, w);
  y[2] = plus(times(a2, s), b2, v);
  y[3] = plus(plus(m[5], a3, u), b3, w);
}

// A y.
template <class T>
inline void gradient(const T y[4], T t[6]) {
  T u = plus(y[0], a2, y[2]), v = times(a, plus(y[1], a2, y[3]));
  T w = plus(y[0], b2, y[2]), x = times(b, plus(y[1], b2, y[3]));
  t[0] = y[0], t[1] = u + v, t[2] = u - v, t[3] = w + x, t[4] = w - x, t[5] = y[3];
}

constexpr float at_0 = 1 / (a2 * b2), at_a = 1 / (2 * a2 * (a2 - b2)), at_b = 1 / (2 * b2 * (b2 - a2));

// G g.
template <class T>
inline void filter(const T g[3], T t[6]) {
  T u = plus(g[0], a2, g[2]), v = times(a, g[1]), w = plus(g[0], b2, g[2]), x = times(b, g[1]);
  t[0] = times(at_0, g[0]);
  t[1] = times(at_a, u + v), t[2] = times(at_a, u - v);
  t[3] = times(at_b, w + x), t[4] = times(at_b, w - x);
  t[5] = g[2];
}

// G' m.
template <class T>
inline void filter_back(const T m[6], T g[3]) {
  T s = times(at_a, m[1] + m[2]), u = times(at_a, m[1] - m[2]), v = times(at_b, m[3] + m[4]), w = times(at_b, m[3] - m[4]);
  g[0] = plus(s + v, at_0, m[0]);
  g[1] = plus(times(a, u), b, w);
  g[2] = plus(plus(m[5], a2, s), b2, v);
}

// B' d, A' m and G g of F(2x2, 3x3), which interpolates at 0, +-1 and infinity.
inline void input_2(const Vector d[4], Vector t[4]) {
  t[0] = d[0] - d[2], t[1] = d[1] + d[2], t[2] = d[2] - d[1], t[3] = d[1] - d[3];
}

inline void output_2(const Vector m[4], Vector y[2]) {
  y[0] = m[0] + m[1] + m[2];
  y[1] = m[1] - m[2] - m[3];
}

inline void filter_2(const Vector g[3], Vector t[4]) {
  Vector s = times(0.5f, g[0] + g[2]), u = times(0.5f, g[1]);
  t[0] = g[0], t[1] = s + u, t[2] = s - u, t[3] = g[2];
}

// Transforms a tile on both axes: row(i, d) sets the n vectors of a row, and transform takes n vectors
// to m. The results are v[m * i + k].
template <int n, int m, class Row, class Transform>
inline void both_axes(Row row, Transform transform, Vector v[m * m]) {
  Vector t[n][m];
  for (int i = 0; i < n; i++) {
    Vector d[n];
    row(i, d);
    transform(d, t[i]);
  }
  for (int k = 0; k < m; k++) {
    Vector d[n], u[m];
    for (int i = 0; i < n; i++) d[i] = t[i][k];
    transform(d, u);
    for (int i = 0; i < m; i++) v[m * i + k] = u[i];
  }
}

// Eight vectors as columns: t[i] has the element i of each.
inline void transpose(const Vector v[lanes], Vector t[lanes]) {
  Vector u[lanes];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    u[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    u[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
  }
  Vector w[lanes];
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    w[4 * i] = _mm256_shuffle_ps(u[4 * i], u[4 * i + 2], 0x44), w[4 * i + 1] = _mm256_shuffle_ps(u[4 * i], u[4 * i + 2], 0xee);
    w[4 * i + 2] = _mm256_shuffle_ps(u[4 * i + 1], u[4 * i + 3], 0x44), w[4 * i + 3] = _mm256_shuffle_ps(u[4 * i + 1], u[4 * i + 3], 0xee);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    t[i] = _mm256_permute2f128_ps(w[i], w[4 + i], 0x20);
    t[4 + i] = _mm256_permute2f128_ps(w[i], w[4 + i], 0x31);
  }
}

// product (+)= left right, where left has n rows and right `columns` columns. An element of left
// is at row*across + p*down.
template <int n>
inline void multiply_rows(const float* left, int64_t across, int64_t down, const float* right, int64_t right_step, int64_t depth,
                          bool add, float* product) {
  Vector sum[n][2];
#pragma GCC unroll 6
  for (int i = 0; i < n; i++) {
    sum[i][0] = sum[i][1] = _mm256_setzero_ps();
  }
  for (int64_t p = 0; p < depth; p++, left += down, right += right_step) {
    Vector r0 = _mm256_load_ps(right), r1 = _mm256_load_ps(right + lanes);
#pragma GCC unroll 6
    for (int i = 0; i < n; i++) {
      Vector l = _mm256_broadcast_ss(left + i * across);
      sum[i][0] = _mm256_fmadd_ps(l, r0, sum[i][0]);
      sum[i][1] = _mm256_fmadd_ps(l, r1, sum[i][1]);
    }
  }
#pragma GCC unroll 6
  for (int i = 0; i < n; i++) {
    float* to = product + i * columns;  // what is there comes last: sums of sums lose less than one long sum
    _mm256_store_ps(to, add ? _mm256_load_ps(to) + sum[i][0] : sum[i][0]);
    _mm256_store_ps(to + lanes, add ? _mm256_load_ps(to + lanes) + sum[i][1] : sum[i][1]);
  }
}

inline void copy(const float* from, int64_t n, float* to) { std::memcpy(to, from, n * sizeof(float)); }
inline void copy(const BFloat16* from, int64_t n, float* to) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) store(to + i, load(from + i));
  for (; i < n; i++) {
    uint32_t bits = uint32_t{from[i].bits} << 16;
    std::memcpy(to + i, &bits, sizeof bits);
  }
}

}  // namespace
}  // namespace hcunet::winograd
