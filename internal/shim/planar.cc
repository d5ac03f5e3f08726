//go:build !cgotorch_so

// The arithmetic of planar.h. It knows nothing of libtorch, and compiles in a moment.
#include "planar.h"

#include <algorithm>
#include <utility>
#include <vector>

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")
#include "vectors.h"

namespace hcunet::planar {
namespace {

inline Vector all(float f) { return _mm256_set1_ps(f); }

// NaN stays NaN and counts as positive, as in libtorch.
inline Vector relu(Vector v) { return _mm256_max_ps(_mm256_setzero_ps(), v); }
inline uint8_t positives(Vector v) {
  return static_cast<uint8_t>(_mm256_movemask_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_NLE_UQ)));
}

// The elements of v whose bit is set, and 0 for the others.
inline Vector chosen(Vector v, uint8_t bits) {
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  __m256i set = _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(bits), each), each);
  return _mm256_and_ps(v, _mm256_castsi256_ps(set));
}

inline float sum(Vector v) {
  float f[lanes];
  store(f, v);
  return ((f[0] + f[1]) + (f[2] + f[3])) + ((f[4] + f[5]) + (f[6] + f[7]));
}

// Rows of a plane, with room for a neighbour on either side.
class Rows {
 public:
  Rows(int64_t rows, int64_t width) : step_(width + 2 * lanes), values_(rows * step_) {}
  float* operator[](int64_t row) { return values_.data() + row * step_ + lanes; }

 private:
  int64_t step_;
  std::vector<float> values_;
};

template <class U>
void activate(int64_t width, const U* u, float bias, float* to, uint8_t* positive) {
  for (int64_t i = 0; i < width; i += lanes) {
    Vector v = load(u + i) + all(bias);
    if (positive) positive[i / lanes] = positives(v);
    store(to + i, relu(v));
  }
}

// Stores 2*lanes pixels: those of even columns and of odd ones by turns.
template <class Y>
void interleave(Y* to, Vector even, Vector odd) {
  Vector low = _mm256_unpacklo_ps(even, odd), high = _mm256_unpackhi_ps(even, odd);
  store(to, _mm256_permute2f128_ps(low, high, 0x20));
  store(to + lanes, _mm256_permute2f128_ps(low, high, 0x31));
}

struct Columns {
  Vector even, odd;
};

template <class Y>
Columns deinterleave(const Y* from) {
  Vector first = load(from), second = load(from + lanes);
  Vector low = _mm256_permute2f128_ps(first, second, 0x20), high = _mm256_permute2f128_ps(first, second, 0x31);
  return {_mm256_shuffle_ps(low, high, 0x88), _mm256_shuffle_ps(low, high, 0xdd)};
}

// A row of the result from the even and the odd columns of that row and of the one above.
// The element before an odd row's first is the even row's first.
template <class Y>
void emit(const Shape& s, const float* even, const float* odd, const float* even_above, const float* odd_above, Y* to) {
  for (int64_t i = 0; i < s.width; i += lanes) {
    Vector e = load(even + i), o = load(odd + i);
    if (s.blur) {
      e += load(even_above + i);
      o += load(odd_above + i);
      Vector left = load(odd + i - 1) + load(odd_above + i - 1);
      interleave(to + 2 * i, (e + left) * all(.25f), (o + e) * all(.25f));
    } else {
      interleave(to + 2 * i, e, o);
    }
  }
}

// Stores the gradients of the even and the odd columns before the horizontal mean, times two,
// from a row of the result's gradient. shuffle_back divides by the two, and by that of the
// vertical mean.
template <class Y>
void collect(const Shape& s, const Y* g, float* even, float* odd) {
  for (int64_t i = 0; i < s.width; i += lanes) {
    auto [e, o] = deinterleave(g + 2 * i);
    store(even + i, e);
    store(odd + i, o);
  }
  if (!s.blur) return;
  even[s.width] = 0;
  float first = even[0];
  for (int64_t i = 0; i < s.width; i += lanes) {
    Vector e = load(even + i), o = load(odd + i), right = load(even + i + 1);
    store(even + i, e + o);
    store(odd + i, o + right);
  }
  even[0] += first;
}

// Calls f(i, x, y) for each lanes elements from i on. The last ones, if they are fewer, are copied
// to where there is room for all, with zeros after them.
template <class Y, class F>
void in_vectors(int64_t n, const Y* x, Y* y, F&& f) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) f(i, x + i, y + i);
  if (i == n) return;
  Y from[lanes] = {}, to[lanes] = {};
  std::copy(x + i, x + n, from);
  std::copy(y + i, y + n, to);
  f(i, from, to);
  std::copy(to, to + n - i, y + i);
}

}  // namespace

template <class U, class Y>
void shuffle(const Shape& s, const U* u, const float* bias, Y* y, uint8_t* positive) {
  enum { a, b, c, d, c_above, d_above, count };  // top left, top right, bottom left and bottom right pixels
  Rows rows(count, s.width);
  float* row[count];
  for (int i = 0; i < count; i++) row[i] = rows[i];
  for (int64_t i = 0; i < s.height; i++) {
    for (int k : {a, b, c, d}) {
      int64_t at = k * s.area() + i * s.width;
      activate(s.width, u + at, bias[k], row[k], positive ? positive + at / lanes : nullptr);
    }
    row[b][-1] = row[a][0];
    row[d][-1] = row[c][0];
    Y* to = y + 4 * i * s.width;
    emit(s, row[a], row[b], row[i ? c_above : a], row[i ? d_above : b], to);
    emit(s, row[c], row[d], row[a], row[b], to + 2 * s.width);
    std::swap(row[c], row[c_above]);
    std::swap(row[d], row[d_above]);
  }
}

template <class U, class Y>
void shuffle_back(const Shape& s, const Y* g, const uint8_t* positive, U* du, float* sums) {
  enum { top, bottom, below, count };  // two rows of the result that one of u becomes, and the next one
  Rows rows(2 * count, s.width);
  float *even[count], *odd[count];
  for (int i = 0; i < count; i++) even[i] = rows[2 * i], odd[i] = rows[2 * i + 1];
  Vector total[4] = {all(0), all(0), all(0), all(0)};
  int64_t line = 2 * s.width;
  collect(s, g, even[top], odd[top]);
  for (int64_t i = 0; i < s.height; i++) {
    bool last = i + 1 == s.height;
    collect(s, g + (2 * i + 1) * line, even[bottom], odd[bottom]);
    if (!last) collect(s, g + (2 * i + 2) * line, even[below], odd[below]);
    for (int64_t j = 0; j < s.width; j += lanes) {
      Vector d[4] = {load(even[top] + j), load(odd[top] + j), load(even[bottom] + j), load(odd[bottom] + j)};
      if (s.blur) {
        Vector times = all(i ? 1.f : 2.f);
        d[0] = (times * d[0] + d[2]) * all(.25f);
        d[1] = (times * d[1] + d[3]) * all(.25f);
        if (!last) d[2] += load(even[below] + j), d[3] += load(odd[below] + j);
        d[2] *= all(.25f);
        d[3] *= all(.25f);
      }
      for (int k = 0; k < 4; k++) {
        int64_t at = k * s.area() + i * s.width + j;
        d[k] = chosen(d[k], positive[at / lanes]);
        total[k] += d[k];
        store(du + at, d[k]);
      }
    }
    std::swap(even[top], even[below]);
    std::swap(odd[top], odd[below]);
  }
  for (int k = 0; k < 4; k++) sums[k] = sum(total[k]);
}

template <class Y>
void add_relu(int64_t n, const Y* x, Y* y, uint8_t* positive) {
  in_vectors(n, x, y, [&](int64_t i, const Y* x, Y* y) {
    Vector v = load(y);
    if (positive) positive[i / lanes] = positives(v);
    store(y, load(x) + relu(v));
  });
}

template <class Y>
void relu_back(int64_t n, const Y* g, const uint8_t* positive, Y* dy) {
  in_vectors(n, g, dy, [&](int64_t i, const Y* g, Y* dy) { store(dy, chosen(load(g), positive[i / lanes])); });
}

}  // namespace hcunet::planar

#else

namespace hcunet::planar {
template <class U, class Y>
void shuffle(const Shape&, const U*, const float*, Y*, uint8_t*) {}
template <class U, class Y>
void shuffle_back(const Shape&, const Y*, const uint8_t*, U*, float*) {}
template <class Y>
void add_relu(int64_t, const Y*, Y*, uint8_t*) {}
template <class Y>
void relu_back(int64_t, const Y*, const uint8_t*, Y*) {}
}  // namespace hcunet::planar

#endif

namespace hcunet::planar {
template void shuffle(const Shape&, const float*, const float*, float*, uint8_t*);
template void shuffle(const Shape&, const float*, const float*, BFloat16*, uint8_t*);
template void shuffle(const Shape&, const BFloat16*, const float*, BFloat16*, uint8_t*);
template void shuffle_back(const Shape&, const float*, const uint8_t*, float*, float*);
template void shuffle_back(const Shape&, const BFloat16*, const uint8_t*, float*, float*);
template void shuffle_back(const Shape&, const BFloat16*, const uint8_t*, BFloat16*, float*);
template void add_relu(int64_t, const float*, float*, uint8_t*);
template void add_relu(int64_t, const BFloat16*, BFloat16*, uint8_t*);
template void relu_back(int64_t, const float*, const uint8_t*, float*);
template void relu_back(int64_t, const BFloat16*, const uint8_t*, BFloat16*);
}  // namespace hcunet::planar
