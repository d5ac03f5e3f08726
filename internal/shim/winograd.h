// Winograd: convolutions by 3x3 with stride 1 and padding 1 in four times fewer
// multiplications, or 2.25 times for small maps, on a CPU with AVX2. Filters and all arithmetic are float32; maps are float32
// or bfloat16, to which results are rounded.
//
// A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks",
// https://arxiv.org/abs/1509.09308, F(4x4, 3x3): a tile of 6x6 pixels d and a filter g
// give 4x4 outputs A'[(G g G') * (B' d B)]A. The product * is elementwise, so that
// for each of the 36 positions in a tile a layer is one matrix product.
//
// The matrices interpolate a polynomial at 0, +-3/4, +-3/2 and infinity. With these
// points the rounding errors are about twice those of the plain sum; with 0, +-1, +-2
// and infinity, the usual ones, they are five to ten times as large. See B. Barabasz and
// others, "Error Analysis and Improving the Accuracy of Winograd Convolution for Deep
// Neural Networks", https://arxiv.org/abs/1803.10986.
//
// An array of "positions" has one part for each position. A part holds a matrix in the
// order in which multiply reads it: the rows of the left one in blocks of `rows`, the
// columns of the right one and of the product in panels of `columns`.
#pragma once

#include "bfloat16.h"

#include <cstdint>

// Convolution and Sum are for maps that are wide enough for vectors of tiles, SmallConvolution and
// SmallSum for the others.
// The functions are only for a processor for which avx2() is true.
namespace hcunet::winograd {

constexpr int64_t tile = 4, positions = 36, rows = 6, columns = 16, lanes = 8;

constexpr int64_t parts(int64_t n, int64_t of) { return (n + of - 1) / of; }

// N images of C maps, contiguous in the order N, C, H, W.
struct Maps {
  int64_t images, channels, height, width;
  int64_t down() const { return parts(height, tile); }
  int64_t across() const { return parts(width, tile); }
  int64_t tiles() const { return images * down() * across(); }
};

// Filters of shape (out, in, 3, 3), or, for the gradient of the input, the mirrored
// filters with `in` and `out` exchanged: element (o, i) begins at o*out_step + i*in_step.
struct Filters {
  const float* data;
  int64_t out, in, out_step, in_step;
  bool mirrored;
};

// A convolution: transform the filters of all blocks of outputs, then compute the tiles
// in pieces [first, first + n), n <= tiles_at_once, each with a scratch of its own. A
// piece can be computed for some groups of outputs only.
class Convolution {
 public:
  static constexpr int64_t tiles_at_once = 32;

  Convolution(const Maps& x, const Filters& f) : x_(x), f_(f) {}
  int64_t blocks() const { return parts(f_.out, rows); }
  int64_t groups() const { return parts(blocks(), group); }
  int64_t transformed_size() const { return positions * filter_part(); }
  int64_t scratch_size() const { return positions * (input_part() + product_part()); }

  void filters(int64_t block, float* transformed) const;
  // y has maps of the size of x; bias may be null. T is float or BFloat16, in Sum too.
  template <class T>
  void tiles(const T* x, const float* transformed, const float* bias, T* y, int64_t first, int64_t n, int64_t first_group,
             int64_t end_group, float* scratch) const;

 private:
  static constexpr int64_t group = 4;  // blocks whose products stay in the second cache
  // Parts are an odd number of cache lines apart: one place in all of them would
  // otherwise fall into one set of the cache.
  int64_t filter_part() const { return parts(blocks() * f_.in * rows, columns) * columns + columns; }
  int64_t input_part() const { return tiles_at_once * f_.in + columns; }
  int64_t product_part() const { return tiles_at_once * group * rows + columns; }

  Maps x_;
  Filters f_;
};

// The gradient of the filters, the sum over tiles of (A dy A') * (B' d B) transformed
// back. Sum takes at most tiles_at_once tiles at a time, and is called for each piece in
// this order: input for all panels, gradient for all blocks, add for all positions.
class Sum {
 public:
  static constexpr int64_t tiles_at_once = 256;

  Sum(const Maps& x, int64_t out) : x_(x), dy_{x.images, out, x.height, x.width} {}
  int64_t panels() const { return parts(x_.channels, columns); }
  int64_t blocks() const { return parts(dy_.channels, rows); }
  int64_t size() const { return positions * (input_part() + gradient_part() + sum_part()); }

  template <class T>
  void input(const T* x, int64_t panel, int64_t first, int64_t n, float* scratch) const;
  template <class T>
  void gradient(const T* dy, int64_t block, int64_t first, int64_t n, float* scratch) const;
  void add(int64_t position, int64_t first, int64_t n, float* scratch) const;
  void filters(int64_t o, const float* scratch, float* gradient) const;  // of one output
  // The gradient of the bias of one output, which is the sum of dy.
  template <class T>
  float bias(const T* dy, int64_t o) const;

 private:
  int64_t input_part() const { return panels() * columns * tiles_at_once + columns; }
  int64_t gradient_part() const { return blocks() * rows * tiles_at_once + columns; }
  int64_t sum_part() const { return panels() * columns * blocks() * rows; }

  Maps x_, dy_;
};

// Maps that are too small for vectors of tiles of m x m outputs: the vectors are of channels. What they
// are transformed to has, for each position, a row of channels for each tile.
template <int m>
class SmallMaps {
 public:
  static constexpr int64_t positions = (m + 2) * (m + 2);

  explicit SmallMaps(const Maps& maps) : maps_(maps) {}
  const Maps& maps() const { return maps_; }
  int64_t across() const { return parts(maps_.width, m); }
  int64_t tiles() const { return parts(maps_.height, m) * across(); }  // of an image
  int64_t panels() const { return parts(maps_.channels, columns); }
  int64_t blocks() const { return panels() * (columns / lanes); }
  // Tiles and positions are an odd number of cache lines apart, as in Convolution.
  int64_t step() const { return (panels() / 2 * 2 + 1) * columns; }
  int64_t part() const { return (maps_.images * tiles() / 2 * 2 + 1) * step(); }
  int64_t size() const { return positions * part(); }
  int64_t frame_size() const { return (parts(maps_.height, m) * m + 2) * frame_width() * lanes; }

  // Transforms a block of channels of an image: B' d B, or, of the gradient of outputs, A dy A'. The
  // frame is zeros before the first block.
  template <class T>
  void input(const T* x, int64_t image, int64_t block, float* frame, float* to) const;
  template <class T>
  void gradient(const T* dy, int64_t image, int64_t block, float* frame, float* to) const;

 private:
  int64_t frame_width() const { return across() * m + 2; }
  template <int n, class T, class Matrix>
  void transform(const T* maps, int64_t image, int64_t block, float* frame, Matrix matrix, float* to) const;

  Maps maps_;
};

// A convolution of small maps: transform the input, then compute the panels of outputs. The filters are
// transformed where they are used, some at a time, as each is used for few tiles only. With F(2x2, 3x3),
// whose matrices have only 0, +-1 and +-1/2, the rounding errors are about those of the plain sum.
class SmallConvolution {
 public:
  static constexpr int64_t tiles_at_once = 128;

  SmallConvolution(const Maps& x, const Filters& f) : x_(x), f_(f) {}
  const SmallMaps<2>& x() const { return x_; }
  int64_t panels() const { return parts(f_.out, columns); }
  static constexpr int64_t scratch_size() { return SmallMaps<2>::positions * (filter_part + product_part); }

  // Computes a panel for the tiles [first, first + n) of all images, n <= tiles_at_once. y has maps of
  // the size of x; bias may be null.
  template <class T>
  void outputs(const float* input, const float* bias, T* y, int64_t panel, int64_t first, int64_t n, float* scratch) const;

 private:
  static constexpr int64_t depth = 128;  // inputs whose filters stay in the second cache
  static constexpr int64_t filter_part = (depth + 1) * columns, product_part = (tiles_at_once + 1) * columns;

  SmallMaps<2> x_;
  Filters f_;
};

// The gradient of the filters for small maps: transform x and dy, then compute the panels of inputs for
// the groups of outputs.
class SmallSum {
 public:
  SmallSum(const Maps& x, int64_t out) : x_(x), dy_({x.images, out, x.height, x.width}) {}
  const SmallMaps<4>& x() const { return x_; }
  const SmallMaps<4>& dy() const { return dy_; }
  int64_t groups() const { return parts(dy_.maps().channels, outputs_at_once); }
  static constexpr int64_t scratch_size() { return positions * sum_part; }

  void filters(const float* input, const float* gradient, int64_t panel, int64_t group, float* filters, float* scratch) const;

 private:
  static constexpr int64_t tiles_at_once = 64, outputs_at_once = 8 * rows, sum_part = (outputs_at_once + 1) * columns;

  SmallMaps<4> x_, dy_;
};

}  // namespace hcunet::winograd
