// The arithmetic of fused_cpu.h: steps of the decoder in one pass over the memory, for
// float32 or bfloat16 planes on a CPU with AVX2. All arithmetic is in float32; results are
// rounded to the nearest number of bfloat16, to the even one between two.
//
// What a backward pass needs of a ReLU is which of its results are positive. These functions
// write that as one bit an element, the first in the lowest bit of a byte.
#pragma once

#include "bfloat16.h"

#include <cstdint>

// The functions are only for a processor for which avx2() is true.
namespace hcunet::planar {

constexpr int64_t lanes = 8;  // elements of a byte of bits

// A map of height x width pixels that becomes one of twice that. The width must be a multiple of lanes.
struct Shape {
  int64_t height, width;
  bool blur;
  int64_t area() const { return height * width; }
};

// Makes one plane y (2 height, 2 width) from four planes u: bias, ReLU, the pixel shuffle and,
// if blur is set, the mean of each pixel and its neighbours to the left, above and left above,
// where the first row and column are repeated. positive may be null. U and Y are float and float,
// float and BFloat16, or BFloat16 and BFloat16, here and in shuffle_back.
template <class U, class Y>
void shuffle(const Shape& shape, const U* u, const float* bias, Y* y, uint8_t* positive);

// Makes the gradient du of the four planes from that of y, and sets sums to the sum of each
// plane of du before it is rounded.
template <class U, class Y>
void shuffle_back(const Shape& shape, const Y* g, const uint8_t* positive, U* du, float* sums);

// y becomes x + max(y, 0). positive may be null; it has a byte for each lanes elements that have begun.
// Y is float or BFloat16, here and in relu_back.
template <class Y>
void add_relu(int64_t n, const Y* x, Y* y, uint8_t* positive);

// Makes the gradient dy before a ReLU from that after it.
template <class Y>
void relu_back(int64_t n, const Y* g, const uint8_t* positive, Y* dy);

}  // namespace hcunet::planar
