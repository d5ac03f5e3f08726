// Convolutions on the CPU: libtorch's, or, where winograd.h computes the same faster,
// that. All callers of at::convolution get it, and autograd knows no difference.
#pragma once

#include "avx2.h"
#include "winograd.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/ops/convolution_backward_native.h>
#include <ATen/ops/convolution_native.h>
#include <torch/library.h>

#include <algorithm>
#include <array>
#include <atomic>

namespace hcunet {

inline std::atomic<bool> fast_convolutions{avx2()};

inline bool all_are(at::IntArrayRef values, int64_t wanted) {
  return std::all_of(values.begin(), values.end(), [=](int64_t v) { return v == wanted; });
}

inline bool plain(const at::Tensor& t) {
  return t.layout() == at::kStrided && t.device().is_cpu() && t.scalar_type() == at::kFloat && t.dim() == 4 && t.is_contiguous();
}

// Whether winograd.h is right for this convolution, and faster. The answer does not depend on
// the number of images: one is computed alike in any company. Small maps spend more on the
// filters than they save, narrow ones do not fill its vectors, and with few channels the
// transforms take longer than the products.
inline bool by_winograd(const at::Tensor& x, const at::Tensor& w, at::IntArrayRef stride, at::IntArrayRef padding,
                        at::IntArrayRef dilation, bool transposed, int64_t groups) {
  constexpr int64_t channels = 16, width = 32, pixels = 1024;
  return fast_convolutions.load(std::memory_order_relaxed) && plain(x) && plain(w) && !transposed && groups == 1 &&
         w.size(2) == 3 && w.size(3) == 3 && all_are(stride, 1) && all_are(padding, 1) && all_are(dilation, 1) &&
         x.size(1) == w.size(1) && w.size(0) >= channels && w.size(1) >= channels && x.size(3) >= width &&
         x.size(2) * x.size(3) >= pixels;
}

inline at::Tensor convolved(const at::Tensor& x, const winograd::Filters& f, const float* bias) {
  winograd::Maps maps{x.size(0), x.size(1), x.size(2), x.size(3)};
  winograd::Convolution c(maps, f);
  auto y = at::empty({maps.images, f.out, maps.height, maps.width}, x.options());
  auto filters = at::empty({c.transformed_size()}, x.options());
  const float* from = x.data_ptr<float>();
  float *to = y.data_ptr<float>(), *transformed = filters.data_ptr<float>();
  at::parallel_for(0, c.blocks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) c.filters(b, transformed);
  });
  // Where there are fewer pieces than threads, several threads share a piece, each for a part of the outputs.
  int64_t tiles = maps.tiles(), many = c.tiles_at_once, pieces = winograd::parts(tiles, many);
  int64_t shares = std::clamp<int64_t>(winograd::parts(at::get_num_threads(), pieces), 1, c.groups());
  at::parallel_for(0, pieces * shares, 1, [&](int64_t begin, int64_t end) {
    auto scratch = at::zeros({c.scratch_size()}, x.options());  // multiply reads lanes of no tile, too
    for (int64_t i = begin; i < end; i++) {
      int64_t first = i / shares * many, share = i % shares;
      c.tiles(from, transformed, bias, to, first, std::min(many, tiles - first), share * c.groups() / shares,
              (share + 1) * c.groups() / shares, scratch.data_ptr<float>());
    }
  });
  return y;
}

inline at::Tensor filter_gradient(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& w) {
  namespace wg = winograd;
  wg::Maps maps{x.size(0), x.size(1), x.size(2), x.size(3)};
  wg::Sum sum(maps, dy.size(1));
  auto scratch = at::empty({sum.size()}, x.options());
  auto gradient = at::empty(w.sizes(), x.options());
  const float *from = x.data_ptr<float>(), *dfrom = dy.data_ptr<float>();
  float *s = scratch.data_ptr<float>(), *to = gradient.data_ptr<float>();
  for (int64_t first = 0; first < maps.tiles(); first += sum.tiles_at_once) {
    int64_t n = std::min(sum.tiles_at_once, maps.tiles() - first);
    int64_t transforms = sum.panels() + sum.blocks();
    at::parallel_for(0, transforms, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {  // panels are spread evenly among the blocks, as they take longer
        int64_t panel = i * sum.panels() / transforms;
        bool is_panel = panel < (i + 1) * sum.panels() / transforms;
        is_panel ? sum.input(from, panel, first, n, s) : sum.gradient(dfrom, i - panel, first, n, s);
      }
    });
    at::parallel_for(0, wg::positions, 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; p++) sum.add(p, first, n, s);
    });
  }
  at::parallel_for(0, dy.size(1), 1, [&](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; o++) sum.filters(o, s, to + o * maps.channels * 9);
  });
  return gradient;
}

inline at::Tensor convolution(const at::Tensor& x, const at::Tensor& w, const c10::optional<at::Tensor>& bias,
                              at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                              at::IntArrayRef output_padding, int64_t groups) {
  bool has_bias = bias && bias->defined();
  if (!by_winograd(x, w, stride, padding, dilation, transposed, groups) || (has_bias && bias->scalar_type() != at::kFloat) ||
      (has_bias && !bias->is_contiguous()))
    return at::native::convolution(x, w, bias, stride, padding, dilation, transposed, output_padding, groups);
  winograd::Filters f{w.data_ptr<float>(), w.size(0), w.size(1), w.size(1) * 9, 9, false};
  return convolved(x, f, has_bias ? bias->data_ptr<float>() : nullptr);
}

inline std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, at::OptionalIntArrayRef bias_sizes, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups,
    std::array<bool, 3> wanted) {
  if (!by_winograd(x, w, stride, padding, dilation, transposed, groups) || !plain(dy))
    return at::native::convolution_backward(dy, x, w, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, wanted);
  std::tuple<at::Tensor, at::Tensor, at::Tensor> gradients;
  winograd::Filters f{w.data_ptr<float>(), w.size(1), w.size(0), 9, w.size(1) * 9, true};
  if (wanted[0]) std::get<0>(gradients) = convolved(dy, f, nullptr);
  if (wanted[1]) std::get<1>(gradients) = filter_gradient(x, dy, w);
  if (wanted[2]) std::get<2>(gradients) = dy.sum(at::IntArrayRef{0, 2, 3});
  return gradients;
}

}  // namespace hcunet

TORCH_LIBRARY_IMPL(aten, CPU, m) {
  m.impl("convolution", hcunet::convolution);
  m.impl("convolution_backward", hcunet::convolution_backward);
}
