// The arithmetic of fused_cpu.h: steps of the decoder in one pass over the memory, for
// float32 planes on a CPU with AVX2.
//
// What a backward pass needs of a ReLU is which of its results are positive. These functions
// write that as one bit an element, the first in the lowest bit of a byte.
#pragma once

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
// where the first row and column are repeated. positive may be null.
void shuffle(const Shape& shape, const float* u, const float* bias, float* y, uint8_t* positive);

// Makes the gradient du of the four planes from that of y, and sets sums to the sum of each
// plane of du.
void shuffle_back(const Shape& shape, const float* g, const uint8_t* positive, float* du, float* sums);

// y becomes x + max(y, 0). positive may be null; it has a byte for each lanes elements that have begun.
void add_relu(int64_t n, const float* x, float* y, uint8_t* positive);

// Makes the gradient dy before a ReLU from that after it.
void relu_back(int64_t n, const float* g, const uint8_t* positive, float* dy);

}  // namespace hcunet::planar
