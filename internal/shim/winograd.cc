//go:build !cgotorch_so

// The arithmetic of winograd.h. It knows nothing of libtorch, and compiles in a second.
#include "winograd.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")
#include "winograd_tiles.h"

namespace hcunet::winograd {
namespace {

// Values 0 to 3 of eight tiles, which stand side by side from p on.
inline void columns_of(const float* p, Vector d[4]) {
  Vector t[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++)
    t[i] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(p + 4 * i)), _mm_loadu_ps(p + 16 + 4 * i), 1);
  Vector s0 = _mm256_unpacklo_ps(t[0], t[1]), s1 = _mm256_unpackhi_ps(t[0], t[1]);
  Vector s2 = _mm256_unpacklo_ps(t[2], t[3]), s3 = _mm256_unpackhi_ps(t[2], t[3]);
  d[0] = _mm256_shuffle_ps(s0, s2, 0x44), d[1] = _mm256_shuffle_ps(s0, s2, 0xee);
  d[2] = _mm256_shuffle_ps(s1, s3, 0x44), d[3] = _mm256_shuffle_ps(s1, s3, 0xee);
}

// The inverse.
inline void store_columns(const Vector d[4], float* p) {
  Vector s0 = _mm256_unpacklo_ps(d[0], d[1]), s1 = _mm256_unpackhi_ps(d[0], d[1]);
  Vector s2 = _mm256_unpacklo_ps(d[2], d[3]), s3 = _mm256_unpackhi_ps(d[2], d[3]);
  Vector t[4] = {_mm256_shuffle_ps(s0, s2, 0x44), _mm256_shuffle_ps(s0, s2, 0xee), _mm256_shuffle_ps(s1, s3, 0x44),
                 _mm256_shuffle_ps(s1, s3, 0xee)};
#pragma GCC unroll 4
  for (int i = 0; i < 4; i++) {
    _mm_storeu_ps(p + 4 * i, _mm256_castps256_ps128(t[i]));
    _mm_storeu_ps(p + 16 + 4 * i, _mm256_extractf128_ps(t[i], 1));
  }
}

inline void store_columns(const Vector d[4], BFloat16* p) {
  alignas(32) float values[tile * lanes];
  store_columns(d, values);
  for (int64_t i = 0; i < tile * lanes; i += lanes) store(p + i, _mm256_load_ps(values + i));
}

// Calls f(image, row, column, count, at) for the runs of tiles [first, first+n) that
// stand in one row of tiles; `at` counts from first, and a run has at most `most` tiles.
template <class F>
inline void runs(const Maps& maps, int64_t first, int64_t n, int64_t most, F f) {
  for (int64_t at = 0; at < n;) {
    int64_t t = first + at, column = t % maps.across(), row = t / maps.across();
    int64_t count = std::min({n - at, maps.across() - column, most});
    f(row / maps.down(), row % maps.down(), column, count, at);
    at += count;
  }
}

// Rows of a plane that begin at row y and column x, as far as tiles need them. Where
// the plane ends, they are copies with zeros around; rows of bfloat16 always are copies.
template <int n>
struct Lines {
  static constexpr int64_t most = tile * Convolution::tiles_at_once + 2 + tile * lanes;
  const float* at[n];
  alignas(32) float copies[n][most];

  // `width` values are used; vectors may read up to one vector of tiles behind them.
  template <class T>
  Lines(const Maps& maps, const T* plane, int64_t y, int64_t x, int64_t width) {
    bool inside = x >= 0 && x + width + tile * lanes <= maps.width;
    int64_t before = std::max<int64_t>(-x, 0), end = std::min(maps.width - x, width);
    for (int i = 0; i < n; i++) {
      bool missing = y + i < 0 || y + i >= maps.height;
      const T* row = plane + (y + i) * maps.width + x;
      at[i] = copies[i];
      if constexpr (std::is_same_v<T, float>) {
        if (inside && !missing) {
          at[i] = row;
          continue;
        }
      }
      if (missing) {
        std::memset(copies[i], 0, width * sizeof(float));
        continue;
      }
      if (before) copies[i][0] = 0;
      copy(row + before, end - before, copies[i] + before);
      if (end < width) std::memset(copies[i] + end, 0, (width - end) * sizeof(float));
    }
  }
};

// Asks for rows of a plane before they are used: they are short, and the processor does not foresee the next plane.
template <int n, bool write, class T>
inline void fetch(const Maps& maps, const T* plane, int64_t y, int64_t x, int64_t width) {
  constexpr int64_t cache_line = 64 / sizeof(T);
  for (int64_t i = std::max<int64_t>(y, 0); i < std::min(y + n, maps.height); i++)
    for (int64_t k = 0; k < width; k += cache_line) __builtin_prefetch(plane + i * maps.width + x + k, write);
}

// Transforms the tiles of a run on both axes, eight at a time: transform takes n vectors
// to 6, and store(j, v) takes the 36 vectors of tiles j to j+7.
template <int n, class Transform, class Store>
inline void transform_run(const Lines<n>& lines, int64_t count, Transform transform, Store store) {
  for (int64_t j = 0; j < count; j += lanes) {
    Vector v[positions];
    auto row = [&](int i, Vector* d) {
      Vector more[4];
      columns_of(lines.at[i] + tile * j, d);
      if (n == 4) return;
      columns_of(lines.at[i] + tile * j + 4, more);
      d[4] = more[0], d[5] = more[1];
    };
    both_axes<n, 6>(row, transform, v);
    store(j, v);
  }
}

// B' d B.
template <class T, class Store>
inline void input_run(const Maps& x, const T* plane, int64_t row, int64_t column, int64_t count, Store store) {
  Lines<6> lines(x, plane, tile * row - 1, tile * column - 1, tile * count + 2);
  transform_run(lines, count, [](const Vector* d, Vector* t) { input(d, t); }, store);
}

// A dy A'.
template <class T, class Store>
inline void gradient_run(const Maps& dy, const T* plane, int64_t row, int64_t column, int64_t count, Store store) {
  Lines<4> lines(dy, plane, tile * row, tile * column, tile * count);
  transform_run(lines, count, [](const Vector* d, Vector* t) { gradient(d, t); }, store);
}

// The 36 vectors of eight tiles, of up to 16 channels.
using Stage = Vector[positions][columns];

// Stores the first six values, one row of a block.
inline void store_row(Vector v, float* to) {
  _mm_storeu_ps(to, _mm256_castps256_ps128(v));
  _mm_storel_pi(reinterpret_cast<__m64*>(to + 4), _mm256_extractf128_ps(v, 1));
}

// Writes to memory what is read much later: a cached store would first read the line.
inline void store_past_cache(const float* from, int64_t n, float* to) {
  int64_t i = 0;
  if (reinterpret_cast<uintptr_t>(to) % sizeof(Vector) == 0)
    for (; i + lanes <= n; i += lanes) _mm256_stream_ps(to + i, _mm256_load_ps(from + i));
  std::memcpy(to + i, from + i, (n - i) * sizeof(float));
}

inline void store_past_cache(const float* from, int64_t n, BFloat16* to) {
  bool aligned = reinterpret_cast<uintptr_t>(to) % sizeof(__m128i) == 0;
  for (int64_t i = 0; i < n; i += lanes) {
    __m128i v = rounded(_mm256_load_ps(from + i));
    auto* p = reinterpret_cast<__m128i*>(to + i);
    aligned ? _mm_stream_si128(p, v) : _mm_storeu_si128(p, v);
  }
}

// Writes a row of less than a vector of tiles.
inline void store_part(const float* from, int64_t n, float* to) { std::memcpy(to, from, n * sizeof(float)); }
inline void store_part(const float* from, int64_t n, BFloat16* to) {
  BFloat16 values[tile * lanes];
  for (int64_t i = 0; i < n; i += lanes) store(values + i, load(from + i));
  std::memcpy(to, values, n * sizeof(BFloat16));
}

// product (+)= left right, for all blocks and panels.
void multiply(const float* left, const float* right, float* product, int64_t blocks, int64_t depth, int64_t panels, bool add) {
  constexpr int64_t deep = 256, high = 16;  // a piece of left stays in the second cache, one of right in the first
  for (int64_t p = 0; p < depth; p += deep) {
    int64_t n = std::min(deep, depth - p);
    for (int64_t r = 0; r < blocks; r += high)
      for (int64_t c = 0; c < panels; c++)
        for (int64_t i = r; i < std::min(r + high, blocks); i++)
          multiply_rows<rows>(left + (i * depth + p) * rows, 1, rows, right + (c * depth + p) * columns, columns, n, add || p > 0,
                              product + (c * blocks + i) * rows * columns);
  }
}

}  // namespace

void Convolution::filters(int64_t block, float* transformed) const {
  int64_t part = filter_part(), outputs = std::min(rows, f_.out - block * rows);
  float* to = transformed + block * f_.in * rows;
  for (int64_t first = 0; first < f_.in; first += lanes) {
    int64_t n = std::min(lanes, f_.in - first);
    alignas(32) float u[positions][lanes * rows + lanes];
    for (int64_t i = 0; i < n; i++) {
      alignas(32) float g[9][lanes] = {};
      for (int64_t o = 0; o < outputs; o++)
        for (int k = 0; k < 9; k++)
          g[k][o] = f_.data[(block * rows + o) * f_.out_step + (first + i) * f_.in_step + (f_.mirrored ? 8 - k : k)];
      Vector t[6][3];
      for (int k = 0; k < 3; k++) {
        Vector c[3] = {_mm256_load_ps(g[k]), _mm256_load_ps(g[3 + k]), _mm256_load_ps(g[6 + k])}, v[6];
        filter(c, v);
        for (int l = 0; l < 6; l++) t[l][k] = v[l];
      }
      for (int k = 0; k < 6; k++) {
        Vector v[6];
        filter(t[k], v);
        for (int l = 0; l < 6; l++) _mm256_storeu_ps(u[6 * k + l] + i * rows, v[l]);
      }
    }
    for (int p = 0; p < positions; p++) store_past_cache(u[p], n * rows, to + p * part + first * rows);
  }
  _mm_sfence();
}

template <class T>
void Convolution::tiles(const T* x, const float* transformed, const float* bias, T* y, int64_t first, int64_t n,
                        int64_t first_group, int64_t end_group, float* scratch) const {
  int64_t in = f_.in, out = f_.out, panels = parts(n, columns), area = x_.height * x_.width;
  int64_t in_part = input_part(), out_part = product_part();
  float *inputs = scratch, *products = scratch + positions * in_part;
  // Maps of this size are out of the cache before anybody reads them.
  bool large = x_.images * out * area * int64_t{sizeof(T)} >= int64_t{16} << 20;

  runs(x_, first, n, tiles_at_once, [&](int64_t image, int64_t row, int64_t column, int64_t count, int64_t at) {
    for (int64_t c = 0; c < in; c++) {
      const T* plane = x + (image * in + c) * area;
      fetch<6, false>(x_, plane + area, tile * row - 1, tile * column, tile * count);
      input_run(x_, plane, row, column, count, [&](int64_t j, const Vector* v) {
        int64_t t = at + j;
        if (t % lanes == 0) {
          float* u = inputs + (t / columns * in + c) * columns + t % columns;
          for (int p = 0; p < positions; p++) _mm256_store_ps(u + p * in_part, v[p]);
          return;
        }
        alignas(32) float values[positions][lanes];
        for (int p = 0; p < positions; p++) _mm256_store_ps(values[p], v[p]);
        for (int64_t i = 0; i < std::min(lanes, count - j); i++)
          for (int p = 0; p < positions; p++)
            inputs[p * in_part + ((t + i) / columns * in + c) * columns + (t + i) % columns] = values[p][i];
      });
    }
  });

  for (int64_t block = first_group * group; block < std::min(end_group * group, blocks()); block += group) {
    int64_t many = std::min(group, blocks() - block);
    for (int p = 0; p < positions; p++)
      multiply(transformed + p * filter_part() + block * in * rows, inputs + p * in_part, products + p * out_part, many, in, panels, false);
    runs(x_, first, n, tiles_at_once, [&](int64_t image, int64_t row, int64_t column, int64_t count, int64_t at) {
      for (int64_t r = 0; r < std::min(many * rows, out - block * rows); r++) {
        int64_t o = block * rows + r;
        Vector add = _mm256_set1_ps(bias ? bias[o] : 0);
        T* plane = y + (image * out + o) * area;
        if (!large) fetch<4, true>(x_, plane + area, tile * row, tile * column, tile * count);
        for (int64_t j = 0; j < count;) {
          int64_t t = at + j, skip = t % lanes, n8 = std::min(count - j, lanes - skip);
          const float* m = products + (t / columns * many * rows + r) * columns + t % columns - skip;
          Vector s[4][6];
          for (int i = 0; i < 6; i++) {
            Vector d[6], u[4];
            for (int k = 0; k < 6; k++) d[k] = _mm256_load_ps(m + (6 * k + i) * out_part);
            output(d, u);
            for (int k = 0; k < 4; k++) s[k][i] = u[k];
          }
          int64_t left = tile * (column + j), width = std::min(tile * n8, x_.width - left);
          for (int i = 0; i < 4 && tile * row + i < x_.height; i++) {
            Vector d[4];
            output(s[i], d);
            for (int k = 0; k < 4; k++) d[k] += add;
            T* p = plane + (tile * row + i) * x_.width + left;
            bool whole = width == tile * lanes;
            if (whole && !large) {
              store_columns(d, p);
              continue;
            }
            alignas(32) float values[2 * tile * lanes];  // store_part reads whole vectors
            store_columns(d, values);
            if (whole) {
              store_past_cache(values, width, p);
            } else {
              store_part(values + tile * skip, width, p);
            }
          }
          j += n8;
        }
      }
    });
  }
  _mm_sfence();
}

template <class T>
void Sum::input(const T* x, int64_t panel, int64_t first, int64_t n, float* scratch) const {
  int64_t area = x_.height * x_.width;
  Stage stage = {};
  runs(x_, first, n, lanes, [&](int64_t image, int64_t row, int64_t column, int64_t count, int64_t at) {
    for (int64_t c = 0; c < std::min(columns, x_.channels - panel * columns); c++) {
      const T* plane = x + (image * x_.channels + panel * columns + c) * area;
      fetch<6, false>(x_, plane + area, tile * row - 1, tile * column, tile * count);
      input_run(x_, plane, row, column, count, [&](int64_t, const Vector* v) {
        for (int p = 0; p < positions; p++) stage[p][c] = v[p];
      });
    }
    for (int p = 0; p < positions; p++) {
      float* to = scratch + p * input_part() + (panel * n + at) * columns;
      for (int64_t half = 0; half < columns; half += lanes) {
        Vector t[lanes];
        transpose(stage[p] + half, t);
        for (int64_t i = 0; i < count; i++) _mm256_store_ps(to + i * columns + half, t[i]);
      }
    }
  });
}

template <class T>
void Sum::gradient(const T* dy, int64_t block, int64_t first, int64_t n, float* scratch) const {
  int64_t area = dy_.height * dy_.width;
  Stage stage = {};
  runs(dy_, first, n, lanes, [&](int64_t image, int64_t row, int64_t column, int64_t count, int64_t at) {
    for (int64_t o = 0; o < std::min(rows, dy_.channels - block * rows); o++) {
      const T* plane = dy + (image * dy_.channels + block * rows + o) * area;
      fetch<4, false>(dy_, plane + area, tile * row, tile * column, tile * count);
      gradient_run(dy_, plane, row, column, count, [&](int64_t, const Vector* v) {
        for (int p = 0; p < positions; p++) stage[p][o] = v[p];
      });
    }
    for (int p = 0; p < positions; p++) {
      float* to = scratch + positions * input_part() + p * gradient_part() + (block * n + at) * rows;
      Vector t[lanes];
      transpose(stage[p], t);
      for (int64_t i = 0; i < count; i++) store_row(t[i], to + i * rows);
    }
  });
}

void Sum::add(int64_t position, int64_t first, int64_t n, float* scratch) const {
  const float *inputs = scratch + position * input_part();
  const float *gradients = scratch + positions * input_part() + position * gradient_part();
  float* sums = scratch + positions * (input_part() + gradient_part()) + position * sum_part();
  multiply(gradients, inputs, sums, blocks(), n, panels(), first > 0);
}

void Sum::filters(int64_t o, const float* scratch, float* gradient) const {
  const float* sums = scratch + positions * (input_part() + gradient_part());
  for (int64_t i = 0; i < x_.channels; i++) {
    const float* m = sums + (i / columns * blocks() * rows + o) * columns + i % columns;
    float t[3][6];
    for (int l = 0; l < 6; l++) {
      float c[6], g[3];
      for (int k = 0; k < 6; k++) c[k] = m[(6 * k + l) * sum_part()];
      filter_back(c, g);
      for (int k = 0; k < 3; k++) t[k][l] = g[k];
    }
    for (int k = 0; k < 3; k++) filter_back(t[k], gradient + i * 9 + k * 3);
  }
}

template <class T>
float Sum::bias(const T* dy, int64_t o) const {
  constexpr int64_t most = 1024;  // elements that are added up in float32
  int64_t area = dy_.height * dy_.width;
  double total = 0;
  for (int64_t image = 0; image < dy_.images; image++) {
    const T* plane = dy + (image * dy_.channels + o) * area;
    for (int64_t i = 0; i < area; i += most) {
      int64_t n = std::min(most, area - i);
      alignas(32) float values[most + lanes], sums[lanes];
      copy(plane + i, n, values);
      std::fill_n(values + n, lanes, 0.f);
      Vector sum = _mm256_setzero_ps();
      for (int64_t k = 0; k < n; k += lanes) sum += _mm256_load_ps(values + k);
      _mm256_store_ps(sums, sum);
      for (float s : sums) total += s;
    }
  }
  return static_cast<float>(total);
}

}  // namespace hcunet::winograd

#else

namespace hcunet::winograd {
void Convolution::filters(int64_t, float*) const {}
template <class T>
void Convolution::tiles(const T*, const float*, const float*, T*, int64_t, int64_t, int64_t, int64_t, float*) const {}
template <class T>
void Sum::input(const T*, int64_t, int64_t, int64_t, float*) const {}
template <class T>
void Sum::gradient(const T*, int64_t, int64_t, int64_t, float*) const {}
template <class T>
float Sum::bias(const T*, int64_t) const {
  return 0;
}
void Sum::add(int64_t, int64_t, int64_t, float*) const {}
void Sum::filters(int64_t, const float*, float*) const {}
}  // namespace hcunet::winograd

#endif

namespace hcunet::winograd {
template void Convolution::tiles(const float*, const float*, const float*, float*, int64_t, int64_t, int64_t, int64_t, float*) const;
template void Convolution::tiles(const BFloat16*, const float*, const float*, BFloat16*, int64_t, int64_t, int64_t, int64_t, float*) const;
template void Sum::input(const float*, int64_t, int64_t, int64_t, float*) const;
template void Sum::input(const BFloat16*, int64_t, int64_t, int64_t, float*) const;
template void Sum::gradient(const float*, int64_t, int64_t, int64_t, float*) const;
template void Sum::gradient(const BFloat16*, int64_t, int64_t, int64_t, float*) const;
template float Sum::bias(const float*, int64_t) const;
template float Sum::bias(const BFloat16*, int64_t) const;
}  // namespace hcunet::winograd
