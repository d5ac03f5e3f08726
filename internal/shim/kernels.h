// The element loops of fused.h, written once: the C++ compiler builds them for the CPU, and
// CUDA's run-time compiler gets the same text. They compute in float32 on maps in the
// channels-last format, several channels in one step.
#pragma once

#include <ATen/ATen.h>

namespace hcunet {

// How the loops read and write elements, on the CPU.
template <class T>
struct Elements {
  static float load1(const T* p) { return static_cast<float>(*p); }
  static void load8(const T* p, float* v) {
    for (int k = 0; k < 8; k++) v[k] = static_cast<float>(p[k]);
  }
  static void load2(const T* p, float* v) { v[0] = static_cast<float>(p[0]), v[1] = static_cast<float>(p[1]); }
  static void store2(T* p, float a, float b) { p[0] = static_cast<T>(a), p[1] = static_cast<T>(b); }
  static void store8(T* p, const float* v) {
    for (int k = 0; k < 8; k++) p[k] = static_cast<T>(v[k]);
  }
};

// The text has no comments and no lines of the preprocessor, which would be lost in a string.
//
// join makes the four pixels of the joined map y that one pixel of the smaller map u becomes,
// two channels of them: the pixel shuffle of u, averaged with the neighbours to the left and
// above (outside of the map, with the edge itself), then the channels of the skip s, then
// zeros. i counts pixels of u and pairs of channels of y, the pairs first.
//
// join_back is its gradient for eight channels of u, through the ReLU that made u; it adds
// them to sums. relu_back is that of a ReLU alone.
#define HCUNET_KERNELS(...)                                                                    \
  template <class T>                                                                           \
  struct Kernels : Elements<T> {                                                               \
    using Elements<T>::load1, Elements<T>::load2, Elements<T>::load8, Elements<T>::store2, Elements<T>::store8; \
    __VA_ARGS__                                                                                \
  };                                                                                           \
  inline const char* const kernels_text = #__VA_ARGS__;
#define HCUNET_LOOP static inline

HCUNET_KERNELS(
struct Shape {
  unsigned height, width;
  unsigned up, skip, channels;
  unsigned blur;
};

HCUNET_LOOP void join(unsigned i, const T* u, const T* s, T* y, Shape z) {
  unsigned pairs = z.channels / 2;
  unsigned p = i / pairs;
  unsigned c = (i - p * pairs) * 2;
  unsigned r = p / z.width;
  unsigned w = p - r * z.width;
  unsigned h = r % z.height;
  size_t pixel = (size_t)r * 4 * z.width + 2 * w;
  T* at = y + pixel * z.channels + c;
  size_t right = z.channels;
  size_t below = (size_t)2 * z.width * z.channels;
  if (c >= z.up) {
    unsigned k = c - z.up;
    for (unsigned q = 0; q < 4; q++) {
      size_t from = (pixel + (q & 1) + (q >> 1) * 2 * z.width) * z.skip + k;
      float a = k < z.skip ? load1(s + from) : 0.f;
      float b = k + 1 < z.skip ? load1(s + from + 1) : 0.f;
      store2(at + (q & 1) * right + (q >> 1) * below, a, b);
    }
    return;
  }
  size_t step = (size_t)z.up * 4;
  const T* here = u + p * step + c * 4;
  float a[8];
  load8(here, a);
  float v[8];
  if (z.blur) {
    float above[8];
    float left[8];
    float corner[8];
    load8(h ? here - z.width * step : here, above);
    load8(w ? here - step : here, left);
    load8(h && w ? here - (z.width + 1) * step : here, corner);
    for (int k = 0; k < 8; k += 4) {
      float a2 = h ? above[k + 2] : a[k];
      float a3 = h ? above[k + 3] : a[k + 1];
      float l1 = w ? left[k + 1] : a[k];
      float l3 = w ? left[k + 3] : a[k + 2];
      float c3 = h ? (w ? corner[k + 3] : a2) : l1;
      v[k] = (a[k] + a2 + l1 + c3) * .25f;
      v[k + 1] = (a[k + 1] + a3 + a[k] + a2) * .25f;
      v[k + 2] = (a[k + 2] + a[k] + l3 + l1) * .25f;
      v[k + 3] = (a[k + 3] + a[k + 1] + a[k + 2] + a[k]) * .25f;
    }
  } else {
    for (int k = 0; k < 8; k++) v[k] = a[k];
  }
  store2(at, v[0], v[4]);
  store2(at + right, v[1], v[5]);
  store2(at + below, v[2], v[6]);
  store2(at + below + right, v[3], v[7]);
}

HCUNET_LOOP void join_back(unsigned i, const T* g, const T* u, T* du, Shape z, float* sums) {
  unsigned pairs = z.up / 2;
  unsigned p = i / pairs;
  unsigned c = (i - p * pairs) * 2;
  unsigned r = p / z.width;
  unsigned w = p - r * z.width;
  unsigned h = r % z.height;
  size_t right = z.channels;
  size_t below = (size_t)2 * z.width * z.channels;
  const T* at = g + ((size_t)r * 4 * z.width + 2 * w) * z.channels + c;
  int rows = h + 1 < z.height && z.blur ? 3 : 2;
  int columns = w + 1 < z.width && z.blur ? 3 : 2;
  float d[3][3][2];
  for (int y = 0; y < 3; y++) {
    for (int x = 0; x < 3; x++) {
      d[y][x][0] = d[y][x][1] = 0.f;
      if (y < rows && x < columns) load2(at + y * below + x * right, d[y][x]);
    }
  }
  float value[8];
  float gradient[8];
  load8(u + (size_t)i * 8, value);
  float top = h ? 1.f : 2.f;
  float side = w ? 1.f : 2.f;
  for (int k = 0; k < 2; k++) {
    float* t = gradient + 4 * k;
    if (z.blur) {
      t[0] = (d[0][0][k] * top * side + d[0][1][k] * top + d[1][0][k] * side + d[1][1][k]) * .25f;
      t[1] = (d[0][1][k] * top + d[1][1][k] + d[0][2][k] * top + d[1][2][k]) * .25f;
      t[2] = (d[1][0][k] * side + d[1][1][k] + d[2][0][k] * side + d[2][1][k]) * .25f;
      t[3] = (d[1][1][k] + d[1][2][k] + d[2][1][k] + d[2][2][k]) * .25f;
    } else {
      t[0] = d[0][0][k];
      t[1] = d[0][1][k];
      t[2] = d[1][0][k];
      t[3] = d[1][1][k];
    }
  }
  for (int k = 0; k < 8; k++) {
    if (!(value[k] > 0.f)) gradient[k] = 0.f;
    sums[k] += gradient[k];
  }
  store8(du + (size_t)i * 8, gradient);
}

HCUNET_LOOP void relu_back(unsigned i, const T* g, const T* y, T* to, float* sums) {
  float value[8];
  float gradient[8];
  load8(y + (size_t)i * 8, value);
  load8(g + (size_t)i * 8, gradient);
  for (int k = 0; k < 8; k++) {
    if (!(value[k] > 0.f)) gradient[k] = 0.f;
    sums[k] += gradient[k];
  }
  store8(to + (size_t)i * 8, gradient);
}
)

#undef HCUNET_LOOP
#undef HCUNET_KERNELS

}  // namespace hcunet
