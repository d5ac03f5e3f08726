//go:build !cgotorch_so

// The arithmetic of winograd.h for small maps. It knows nothing of libtorch, and compiles in a second.
#include "winograd.h"

#include <algorithm>
#include <utility>

#if defined(__x86_64__) && defined(__GNUC__)

#pragma GCC optimize("O3")
#pragma GCC target("avx2,fma")
#include "winograd_tiles.h"

namespace hcunet::winograd {
namespace {

// Calls f with n, at most `rows`, as a constant.
template <class F>
inline void with_rows(int64_t n, F f) {
  [&]<int... i>(std::integer_sequence<int, i...>) {
    ((n == i + 1 && (f(std::integral_constant<int, i + 1>()), true)) || ...);
  }(std::make_integer_sequence<int, rows>());
}

// The first n elements of a vector, and zeros.
template <class T>
inline Vector load_part(const T* from, int64_t n) {
  alignas(32) float values[lanes] = {};
  copy(from, n, values);
  return _mm256_load_ps(values);
}

// The nine values of the filters from f on: those of n outputs, at most eight, for one input. The next
// inputs' are asked for: they come from many places, which the processor does not foresee.
inline void filter_columns(const Filters& f, const float* from, int64_t n, Vector g[9]) {
  int64_t ahead = std::max<int64_t>(8 * 9, 4 * f.in_step);
  Vector v[lanes];
  alignas(32) float last[lanes] = {};
  auto take = [&](int64_t i) {
    const float* filter = from + i * f.out_step;
    _mm_prefetch(filter + ahead, _MM_HINT_T0);
    v[i] = _mm256_loadu_ps(filter);
    last[i] = filter[8];
  };
  if (n >= lanes) {
    for (int64_t i = 0; i < lanes; i++) take(i);
  } else {
    for (Vector& zeros : v) zeros = _mm256_setzero_ps();
    for (int64_t i = 0; i < n; i++) take(i);
  }
  transpose(v, g);
  g[8] = _mm256_load_ps(last);
}

// Transforms the filters of a panel of outputs for one input, to parts of this size.
inline void transform_filters(const Filters& f, int64_t panel, int64_t input, int64_t part, float* to) {
  for (int64_t half = 0; half < columns; half += lanes) {
    int64_t o = panel * columns + half;
    Vector g[9], v[SmallMaps<2>::positions];
    filter_columns(f, f.data + o * f.out_step + input * f.in_step, f.out - o, g);
    both_axes<3, 4>(
        [&](int row, Vector d[3]) {
          for (int k = 0; k < 3; k++) d[k] = g[f.mirrored ? 8 - 3 * row - k : 3 * row + k];
        },
        filter_2, v);
    for (int p = 0; p < SmallMaps<2>::positions; p++) _mm256_store_ps(to + p * part + half, v[p]);
  }
}

// Stores 2x2 pixels of n planes, at most eight, at a place, as far as the planes reach.
template <class T>
inline void store_tile(const Vector pixels[4], const Maps& maps, int64_t n, int64_t row, int64_t column, T* planes) {
  Vector v[lanes] = {pixels[0], pixels[1], pixels[2], pixels[3]}, by_plane[lanes];
  transpose(v, by_plane);
  int64_t high = std::min<int64_t>(2, maps.height - row), wide = std::min<int64_t>(2, maps.width - column);
  for (int64_t plane = 0; plane < n; plane++) {
    alignas(32) T values[lanes];
    store(values, by_plane[plane]);
    T* to = planes + (plane * maps.height + row) * maps.width + column;
    for (int64_t i = 0; i < high; i++)
      for (int64_t k = 0; k < wide; k++) to[i * maps.width + k] = values[2 * i + k];
  }
}

}  // namespace

// The pixels of a block of channels, as vectors, go into a frame of zeros, where each tile of n x n pixels is then.
template <int m>
template <int n, class T, class Matrix>
void SmallMaps<m>::transform(const T* maps, int64_t image, int64_t block, float* frame, Matrix matrix, float* to) const {
  int64_t area = maps_.height * maps_.width, channels = maps_.channels - block * lanes;
  const T* planes = maps + (image * maps_.channels + block * lanes) * area;
  for (int64_t p = 0, row = 1, column = 1; p < area; p += lanes) {
    int64_t pixels = std::min(lanes, area - p);
    Vector v[lanes], t[lanes];
    for (int64_t c = 0; c < lanes; c++) {
      v[c] = _mm256_setzero_ps();
      if (c < channels) v[c] = pixels == lanes ? load(planes + c * area + p) : load_part(planes + c * area + p, pixels);
    }
    transpose(v, t);
    for (int64_t i = 0; i < pixels; i++) {
      _mm256_store_ps(frame + (row * frame_width() + column) * lanes, t[i]);
      if (++column > maps_.width) column = 1, row++;
    }
  }

  constexpr int64_t before = n == m ? 1 : 0;  // an input tile begins a pixel before the output tile
  for (int64_t i = 0; i < tiles(); i++) {
    int64_t row = m * (i / across()) + before, column = m * (i % across()) + before;
    const float* corner = frame + (row * frame_width() + column) * lanes;
    Vector v[positions];
    both_axes<n, m + 2>(
        [&](int row, Vector* d) {
          for (int k = 0; k < n; k++) d[k] = _mm256_load_ps(corner + (row * frame_width() + k) * lanes);
        },
        matrix, v);
    float* tile = to + (image * tiles() + i) * step() + block * lanes;
    for (int p = 0; p < positions; p++) _mm256_store_ps(tile + p * part(), v[p]);
  }
}

template <int m>
template <class T>
void SmallMaps<m>::input(const T* x, int64_t image, int64_t block, float* frame, float* to) const {
  auto matrix = [](const Vector* d, Vector* t) {
    if constexpr (m == 2) {
      input_2(d, t);
    } else {
      winograd::input(d, t);
    }
  };
  transform<m + 2>(x, image, block, frame, matrix, to);
}

template <int m>
template <class T>
void SmallMaps<m>::gradient(const T* dy, int64_t image, int64_t block, float* frame, float* to) const {
  static_assert(m == 4);
  transform<m>(dy, image, block, frame, [](const Vector* d, Vector* t) { winograd::gradient(d, t); }, to);
}

template <class T>
void SmallConvolution::outputs(const float* input, const float* bias, T* y, int64_t panel, int64_t first, int64_t n, float* scratch) const {
  constexpr int64_t positions = SmallMaps<2>::positions;
  float *filters = scratch, *products = scratch + positions * filter_part;
  for (int64_t c = 0; c < f_.in; c += depth) {
    int64_t many = std::min(depth, f_.in - c);
    for (int64_t i = 0; i < many; i++) transform_filters(f_, panel, c + i, filter_part, filters + i * columns);
    for (int p = 0; p < positions; p++)
      for (int64_t t = 0; t < n; t += rows)
        with_rows(std::min(rows, n - t), [&](auto r) {
          multiply_rows<r>(input + p * x_.part() + (first + t) * x_.step() + c, x_.step(), 1, filters + p * filter_part, columns, many,
                           c > 0, products + p * product_part + t * columns);
        });
  }

  const Maps& maps = x_.maps();
  for (int64_t t = 0; t < n; t++) {
    int64_t image = (first + t) / x_.tiles(), in_image = (first + t) % x_.tiles();
    for (int64_t o = panel * columns; o < std::min((panel + 1) * columns, f_.out); o += lanes) {
      const float* product = products + t * columns + o % columns;
      int64_t many = std::min(lanes, f_.out - o);
      Vector v[4], add = bias ? load_part(bias + o, many) : _mm256_setzero_ps();
      both_axes<4, 2>(
          [&](int row, Vector* d) {
            for (int k = 0; k < 4; k++) d[k] = _mm256_load_ps(product + (4 * row + k) * product_part);
          },
          output_2, v);
      for (Vector& pixel : v) pixel += add;
      store_tile(v, maps, many, 2 * (in_image / x_.across()), 2 * (in_image % x_.across()),
                 y + (image * f_.out + o) * maps.height * maps.width);
    }
  }
}

void SmallSum::filters(const float* input, const float* gradient, int64_t panel, int64_t group, float* filters, float* scratch) const {
  int64_t channels = x_.maps().channels, first = group * outputs_at_once, out = std::min(outputs_at_once, dy_.maps().channels - first);
  int64_t in = std::min(columns, channels - panel * columns), tiles = x_.maps().images * x_.tiles();
  for (int64_t t = 0; t < tiles; t += tiles_at_once)
    for (int p = 0; p < positions; p++)
      for (int64_t o = 0; o < out; o += rows)
        multiply_rows<rows>(gradient + p * dy_.part() + t * dy_.step() + first + o, 1, dy_.step(),
                            input + p * x_.part() + t * x_.step() + panel * columns, x_.step(), std::min(tiles_at_once, tiles - t), t > 0,
                            scratch + p * sum_part + o * columns);
  for (int64_t o = 0; o < out; o++)
    for (int64_t half = 0; half < in; half += lanes) {
      const float* sums = scratch + o * columns + half;
      Vector v[9], t[lanes];
      both_axes<6, 3>(
          [&](int row, Vector* d) {
            for (int k = 0; k < 6; k++) d[k] = _mm256_load_ps(sums + (6 * row + k) * sum_part);
          },
          [](const Vector* d, Vector* t) { filter_back(d, t); }, v);
      transpose(v, t);
      alignas(32) float last[lanes];
      _mm256_store_ps(last, v[8]);
      float* to = filters + ((first + o) * channels + panel * columns + half) * 9;
      for (int64_t i = 0; i < std::min(lanes, in - half); i++) {
        _mm256_storeu_ps(to + i * 9, t[i]);
        to[i * 9 + 8] = last[i];
      }
    }
}

}  // namespace hcunet::winograd

#else

namespace hcunet::winograd {
template <int m>
template <class T>
void SmallMaps<m>::input(const T*, int64_t, int64_t, float*, float*) const {}
template <int m>
template <class T>
void SmallMaps<m>::gradient(const T*, int64_t, int64_t, float*, float*) const {}
template <class T>
void SmallConvolution::outputs(const float*, const float*, T*, int64_t, int64_t, int64_t, float*) const {}
void SmallSum::filters(const float*, const float*, int64_t, int64_t, float*, float*) const {}
}  // namespace hcunet::winograd

#endif

namespace hcunet::winograd {
template void SmallMaps<2>::input(const float*, int64_t, int64_t, float*, float*) const;
template void SmallMaps<2>::input(const BFloat16*, int64_t, int64_t, float*, float*) const;
template void SmallMaps<4>::input(const float*, int64_t, int64_t, float*, float*) const;
template void SmallMaps<4>::input(const BFloat16*, int64_t, int64_t, float*, float*) const;
template void SmallMaps<4>::gradient(const float*, int64_t, int64_t, float*, float*) const;
template void SmallMaps<4>::gradient(const BFloat16*, int64_t, int64_t, float*, float*) const;
template void SmallConvolution::outputs(const float*, const float*, float*, int64_t, int64_t, int64_t, float*) const;
template void SmallConvolution::outputs(const float*, const float*, BFloat16*, int64_t, int64_t, int64_t, float*) const;
}  // namespace hcunet::winograd
