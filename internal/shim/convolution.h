// Convolutions on the CPU: libtorch's, or, where winograd.h computes the same faster,
// that. All callers of at::convolution get it, and autograd knows no difference.
//
// libtorch computes a convolution of bfloat16 maps by plain loops where the processor has no
// instructions that its library oneDNN asks for, a hundred times as slowly as one of float32.
// There winograd.h reads such maps as they are; for other convolutions some images at a time, or
// some pixels, are converted to float32. The result is rounded to bfloat16.
//
// The filters and the bias of bfloat16 maps may be float32, which libtorch refuses. Autocast
// would keep a copy of them in bfloat16 until the backward pass has ended; see conv2d.
#pragma once

#include "avx2.h"
#include "winograd.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/autocast_mode.h>
#include <ATen/ops/convolution_backward_native.h>
#include <ATen/ops/convolution_native.h>
#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>
#include <array>
#include <atomic>

namespace hcunet {

inline std::atomic<bool> fast_convolutions{avx2()};

// Whether libtorch computes in bfloat16 by instructions of the processor. libtorch 1.13 asks for
// these three parts of AVX-512; where the processor has AVX-512 BF16 or AMX, oneDNN uses them. On
// processors that are not x86-64 libtorch decides.
inline bool computes_bfloat16() {
#if defined(__x86_64__) && defined(__GNUC__)
  return at::hasMKLDNN() && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return true;
#endif
}

inline std::atomic<bool> native_bfloat16{computes_bfloat16()};

inline bool is_bfloat16(const at::Tensor& t) {
  return t.layout() == at::kStrided && t.device().is_cpu() && t.scalar_type() == at::kBFloat16;
}

// The type in which autocast computes convolutions on the CPU, if it is on.
inline c10::optional<at::ScalarType> type_on_cpu() {
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 204
  if (at::autocast::is_autocast_enabled(at::kCPU)) return at::autocast::get_autocast_dtype(at::kCPU);
#else
  if (at::autocast::is_cpu_enabled()) return at::autocast::get_autocast_cpu_dtype();
#endif
  return {};
}

// As long as it lives autocast is off, for functions that take care of the types.
inline auto no_autocast() {
  return c10::impl::ExcludeDispatchKeyGuard(c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA}));
}

inline bool all_are(at::IntArrayRef values, int64_t wanted) {
  return std::all_of(values.begin(), values.end(), [=](int64_t v) { return v == wanted; });
}

inline bool are_rows(const at::Tensor& t) {
  return t.layout() == at::kStrided && t.device().is_cpu() && t.dim() == 4 && t.is_contiguous();
}

inline bool plain(const at::Tensor& t) { return are_rows(t) && t.scalar_type() == at::kFloat; }

template <class T>
T* elements(const at::Tensor& t) {
  return static_cast<T*>(t.data_ptr());
}

// Calls f with an element of the type of a map: float32 or bfloat16.
template <class F>
void with_type(at::ScalarType map, F&& f) {
  map == at::kFloat ? f(float{}) : f(BFloat16{});
}

// Who computes a convolution: libtorch, or winograd.h as for large maps or as for small ones.
enum class Way { libtorch, large, small };

// Tells the way that is right for a convolution, and the fastest, or, with only_filters set, that of the
// gradient of its filters. The way of a convolution does not depend on the number of images: one is
// computed alike in any company. With few channels the transforms take longer than they save, in maps of
// less than a few pixels most of them are for nothing, and narrow maps do not fill vectors of tiles. x may
// be bfloat16.
inline Way way(const at::Tensor& x, const at::Tensor& w, at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation,
               bool transposed, int64_t groups, bool only_filters = false) {
  bool winograd = fast_convolutions.load(std::memory_order_relaxed) && (plain(x) || (are_rows(x) && is_bfloat16(x))) && plain(w) &&
                  !transposed && groups == 1 && w.size(2) == 3 && w.size(3) == 3 && all_are(stride, 1) && all_are(padding, 1) &&
                  all_are(dilation, 1) && x.size(1) == w.size(1) && x.size(0) > 0;
  int64_t channels = std::min(w.size(0), w.size(1));
  if (!winograd || channels < 16) return Way::libtorch;
  constexpr int64_t width = 32, pixels = 1024;
  int64_t area = x.size(2) * x.size(3);
  if (x.size(3) >= width && area >= pixels) return Way::large;
  if (area == 0 || area >= 2 * pixels) return Way::libtorch;
  return only_filters || (channels >= 96 && std::min(x.size(2), x.size(3)) >= 4) ? Way::small : Way::libtorch;
}

// Calls f(i, scratch) for i in [0, n) on all threads. Each thread has a scratch of its own, of zeros at
// first: parts that belong to no tile are never written, but some are read.
template <class F>
void each_with_scratch(int64_t n, int64_t size, const at::TensorOptions& options, F&& f) {
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    auto scratch = at::zeros({size}, options.dtype(at::kFloat));
    for (int64_t i = begin; i < end; i++) f(i, scratch.data_ptr<float>());
  });
}

inline winograd::Maps maps_of(const at::Tensor& x) { return {x.size(0), x.size(1), x.size(2), x.size(3)}; }

// Transforms small maps: the input of a convolution or, with of_output set, the gradient of its output.
template <bool of_output, int m>
at::Tensor transformed(const winograd::SmallMaps<m>& maps, const at::Tensor& x) {
  auto to = at::empty({maps.size()}, x.options().dtype(at::kFloat));
  with_type(x.scalar_type(), [&]<class T>(T) {
    each_with_scratch(x.size(0) * maps.blocks(), maps.frame_size(), x.options(), [&](int64_t i, float* frame) {
      int64_t image = i / maps.blocks(), block = i % maps.blocks();
      if constexpr (of_output) {
        maps.gradient(elements<T>(x), image, block, frame, to.template data_ptr<float>());
      } else {
        maps.input(elements<T>(x), image, block, frame, to.template data_ptr<float>());
      }
    });
  });
  return to;
}

inline at::Tensor small_convolved(const at::Tensor& x, const winograd::Filters& f, const float* bias) {
  namespace wg = winograd;
  wg::SmallConvolution c(maps_of(x), f);
  auto input = transformed<false>(c.x(), x);
  auto y = at::empty({x.size(0), f.out, x.size(2), x.size(3)}, x.options());
  // Where there are fewer panels than threads, they share the tiles of a panel.
  int64_t tiles = x.size(0) * c.x().tiles(), panels = c.panels(), sharing = wg::parts(at::get_num_threads(), panels);
  int64_t many = std::min(c.tiles_at_once, wg::parts(wg::parts(tiles, sharing), wg::rows) * wg::rows);
  with_type(x.scalar_type(), [&]<class T>(T) {
    each_with_scratch(wg::parts(tiles, many) * panels, c.scratch_size(), x.options(), [&](int64_t i, float* scratch) {
      int64_t first = i / panels * many;
      c.outputs(input.data_ptr<float>(), bias, elements<T>(y), i % panels, first, std::min(many, tiles - first), scratch);
    });
  });
  return y;
}

inline at::Tensor small_filter_gradient(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& w) {
  winograd::SmallSum sum(maps_of(x), dy.size(1));
  auto input = transformed<false>(sum.x(), x), gradient = transformed<true>(sum.dy(), dy), dw = at::empty(w.sizes(), w.options());
  each_with_scratch(sum.x().panels() * sum.groups(), sum.scratch_size(), w.options(), [&](int64_t i, float* scratch) {
    sum.filters(input.data_ptr<float>(), gradient.data_ptr<float>(), i / sum.groups(), i % sum.groups(), dw.data_ptr<float>(), scratch);
  });
  return dw;
}

inline at::Tensor large_convolved(const at::Tensor& x, const winograd::Filters& f, const float* bias) {
  winograd::Maps maps = maps_of(x);
  winograd::Convolution c(maps, f);
  auto y = at::empty({maps.images, f.out, maps.height, maps.width}, x.options());
  auto filters = at::empty({c.transformed_size()}, x.options().dtype(at::kFloat));
  float* transformed = filters.data_ptr<float>();
  at::parallel_for(0, c.blocks(), 1, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; b++) c.filters(b, transformed);
  });
  // Where there are fewer pieces than threads, several threads share a piece, each for a part of the outputs.
  int64_t tiles = maps.tiles(), many = c.tiles_at_once, pieces = winograd::parts(tiles, many);
  int64_t shares = std::clamp<int64_t>(winograd::parts(at::get_num_threads(), pieces), 1, c.groups());
  with_type(x.scalar_type(), [&]<class T>(T) {
    const T* from = elements<T>(x);
    T* to = elements<T>(y);
    each_with_scratch(pieces * shares, c.scratch_size(), x.options(), [&](int64_t i, float* scratch) {
      int64_t first = i / shares * many, share = i % shares;
      c.tiles(from, transformed, bias, to, first, std::min(many, tiles - first), share * c.groups() / shares,
              (share + 1) * c.groups() / shares, scratch);
    });
  });
  return y;
}

inline at::Tensor large_filter_gradient(const at::Tensor& x, const at::Tensor& dy, const at::Tensor& w) {
  namespace wg = winograd;
  wg::Maps maps = maps_of(x);
  wg::Sum sum(maps, dy.size(1));
  auto scratch = at::empty({sum.size()}, w.options());
  auto gradient = at::empty(w.sizes(), w.options());
  float *s = scratch.data_ptr<float>(), *to = gradient.data_ptr<float>();
  for (int64_t first = 0; first < maps.tiles(); first += sum.tiles_at_once) {
    int64_t n = std::min(sum.tiles_at_once, maps.tiles() - first);
    int64_t transforms = sum.panels() + sum.blocks();
    with_type(x.scalar_type(), [&]<class T>(T) {
      const T *from = elements<T>(x), *dfrom = elements<T>(dy);
      at::parallel_for(0, transforms, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; i++) {  // panels are spread evenly among the blocks, as they take longer
          int64_t panel = i * sum.panels() / transforms;
          bool is_panel = panel < (i + 1) * sum.panels() / transforms;
          is_panel ? sum.input(from, panel, first, n, s) : sum.gradient(dfrom, i - panel, first, n, s);
        }
      });
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

// Calls f(first, n) for pieces of a batch: as many images as have four million elements, but at
// least one. Their copies in float32 then take some 16 MiB.
template <class F>
void in_pieces(const at::Tensor& batch, F&& f) {
  constexpr int64_t elements = 1 << 22;
  int64_t images = batch.size(0), each = std::max<int64_t>(batch.numel() / std::max<int64_t>(images, 1), 1);
  int64_t many = std::clamp<int64_t>(elements / each, 1, std::max<int64_t>(images, 1)), first = 0;
  do {
    f(first, std::min(many, images - first));
    first += many;
  } while (first < images);
}

// Sets a piece of a batch, which is made with the first one.
inline void put_piece(at::Tensor& batch, const at::Tensor& piece, int64_t images, int64_t first) {
  if (!piece.defined()) return;
  if (!batch.defined()) {
    auto shape = piece.sizes().vec();
    shape[0] = images;
    batch = at::empty(shape, piece.options().dtype(at::kBFloat16), piece.suggest_memory_format());
  }
  batch.narrow(0, first, piece.size(0)).copy_(piece);
}

using Gradients = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

// The convolution of bfloat16 maps x; convolve computes one of float32.
template <class Convolve>
at::Tensor in_float32(const at::Tensor& x, Convolve&& convolve) {
  at::Tensor y;
  in_pieces(x, [&](int64_t first, int64_t n) { put_piece(y, convolve(x.narrow(0, first, n).to(at::kFloat)), x.size(0), first); });
  return y;
}

// Its gradients from that of its result, dy; differentiate computes those of one of float32.
// Those of the filters and the bias are float32.
template <class Differentiate>
Gradients back_in_float32(const at::Tensor& dy, const at::Tensor& x, Differentiate&& differentiate) {
  at::Tensor dx, dw, db;
  auto add = [](at::Tensor& sum, const at::Tensor& part) {
    if (!part.defined()) return;
    sum.defined() ? void(sum.add_(part)) : void(sum = part);
  };
  in_pieces(x, [&](int64_t first, int64_t n) {
    auto [dxn, dwn, dbn] = differentiate(dy.narrow(0, first, n).to(at::kFloat), x.narrow(0, first, n).to(at::kFloat));
    put_piece(dx, dxn, x.size(0), first);
    add(dw, dwn);
    add(db, dbn);
  });
  return {dx, dw, db};
}

// Whether a convolution of bfloat16 maps is the product of its filters with the pixels.
inline bool by_product(const at::Tensor& x, const at::Tensor& w, at::IntArrayRef stride, at::IntArrayRef padding, bool transposed,
                       int64_t groups) {
  return is_bfloat16(x) && are_rows(x) && w.scalar_type() == at::kFloat && w.dim() == 4 && w.size(2) == 1 && w.size(3) == 1 &&
         x.size(1) == w.size(1) && all_are(stride, 1) && all_are(padding, 0) && !transposed && groups == 1;
}

// Calls f(image, first, n) for pieces [first, first + n) of the pixels of each image. Their copies
// in float32 stay in the cache.
template <class F>
void in_pixels(const at::Tensor& x, F&& f) {
  constexpr int64_t many = 1 << 13;
  int64_t area = x.size(2) * x.size(3);
  for (int64_t image = 0; image < x.size(0); image++)
    for (int64_t first = 0; first < area; first += many) f(image, first, std::min(many, area - first));
}

// The part of in_pixels, a row for each channel.
inline at::Tensor pixels(const at::Tensor& x, int64_t image, int64_t first, int64_t n) {
  return x[image].view({x.size(1), x.size(2) * x.size(3)}).narrow(1, first, n);
}

inline at::Tensor product(const at::Tensor& x, const at::Tensor& w, const c10::optional<at::Tensor>& bias) {
  auto filters = w.reshape({w.size(0), w.size(1)});
  auto column = bias && bias->defined() ? bias->unsqueeze(1) : at::zeros({w.size(0), 1}, w.options());
  auto y = at::empty({x.size(0), w.size(0), x.size(2), x.size(3)}, x.options());
  in_pixels(x, [&](int64_t image, int64_t first, int64_t n) {
    pixels(y, image, first, n).copy_(at::addmm(column, filters, pixels(x, image, first, n).to(at::kFloat)));
  });
  return y;
}

inline Gradients product_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, std::array<bool, 3> wanted) {
  auto filters = w.reshape({w.size(0), w.size(1)});
  at::Tensor dx, dw, db;
  if (wanted[0]) dx = at::empty_like(x);
  if (wanted[1]) dw = at::zeros(filters.sizes(), w.options());
  if (wanted[2]) db = at::zeros({w.size(0)}, w.options());
  in_pixels(x, [&](int64_t image, int64_t first, int64_t n) {
    auto g = pixels(dy, image, first, n).to(at::kFloat);
    if (wanted[0]) pixels(dx, image, first, n).copy_(at::mm(filters.t(), g));
    if (wanted[1]) dw.addmm_(g, pixels(x, image, first, n).to(at::kFloat).t());
    if (wanted[2]) db.add_(g.sum(1));
  });
  return {dx, wanted[1] ? dw.view(w.sizes()) : dw, db};
}

// The type of the filters and the bias with which bfloat16 maps are convolved.
inline at::ScalarType filter_type() { return native_bfloat16.load(std::memory_order_relaxed) ? at::kBFloat16 : at::kFloat; }

// Whether filters or a bias are float32 or bfloat16, but not what is wanted.
inline bool differs(const at::Tensor& t, at::ScalarType wanted) {
  return t.scalar_type() != wanted && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
}

inline at::Tensor bias_gradient(const at::Tensor& dy) {
  winograd::Sum sum({dy.size(0), 0, dy.size(2), dy.size(3)}, dy.size(1));
  auto gradient = at::empty({dy.size(1)}, dy.options().dtype(at::kFloat));
  with_type(dy.scalar_type(), [&]<class T>(T) {
    const T* from = elements<T>(dy);
    float* to = gradient.data_ptr<float>();
    at::parallel_for(0, dy.size(1), 1, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; o++) to[o] = sum.bias(from, o);
    });
  });
  return gradient;
}

inline at::Tensor convolution(const at::Tensor& x, const at::Tensor& w, const c10::optional<at::Tensor>& bias,
                              at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                              at::IntArrayRef output_padding, int64_t groups) {
  auto again = [&](const at::Tensor& x, const at::Tensor& w, const c10::optional<at::Tensor>& bias) {
    return hcunet::convolution(x, w, bias, stride, padding, dilation, transposed, output_padding, groups);
  };
  auto off = no_autocast();
  bool has_bias = bias && bias->defined();
  if (auto type = filter_type(); is_bfloat16(x) && (differs(w, type) || (has_bias && differs(*bias, type))))
    return again(x, w.to(type), has_bias ? c10::optional<at::Tensor>(bias->to(type)) : bias);
  Way by = way(x, w, stride, padding, dilation, transposed, groups);
  if (by == Way::libtorch || (has_bias && (bias->scalar_type() != at::kFloat || !bias->is_contiguous()))) {
    if (by_product(x, w, stride, padding, transposed, groups)) return product(x, w, bias);
    if (is_bfloat16(x) && w.scalar_type() == at::kFloat) return in_float32(x, [&](const at::Tensor& x) { return again(x, w, bias); });
    return at::native::convolution(x, w, bias, stride, padding, dilation, transposed, output_padding, groups);
  }
  winograd::Filters f{w.data_ptr<float>(), w.size(0), w.size(1), w.size(1) * 9, 9, false};
  return (by == Way::large ? large_convolved : small_convolved)(x, f, has_bias ? bias->data_ptr<float>() : nullptr);
}

inline Gradients convolution_backward(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, at::OptionalIntArrayRef bias_sizes, at::IntArrayRef stride,
    at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups,
    std::array<bool, 3> wanted) {
  auto again = [&](const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w) {
    return hcunet::convolution_backward(dy, x, w, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, wanted);
  };
  auto off = no_autocast();
  if (auto type = filter_type(); is_bfloat16(x) && differs(w, type)) {
    auto [dx, dw, db] = again(dy, x, w.to(type));
    return {dx, dw.defined() ? dw.to(w.scalar_type()) : dw, db.defined() ? db.to(w.scalar_type()) : db};
  }
  Way by = way(x, w, stride, padding, dilation, transposed, groups);
  bool alike = are_rows(dy) && dy.scalar_type() == x.scalar_type();
  // For the gradient of the filters of small maps libtorch takes up to several times as long, but for one image.
  if (wanted[1] && by == Way::libtorch && alike && x.size(0) > 1 &&
      way(x, w, stride, padding, dilation, transposed, groups, true) == Way::small) {
    wanted[1] = false;
    auto gradients = again(dy, x, w);
    std::get<1>(gradients) = small_filter_gradient(x, dy, w);
    return gradients;
  }
  if (by == Way::libtorch || !alike) {
    if (by_product(x, w, stride, padding, transposed, groups) && are_rows(dy)) return product_backward(dy, x, w, wanted);
    if (is_bfloat16(x) && w.scalar_type() == at::kFloat)
      return back_in_float32(dy, x, [&](const at::Tensor& dy, const at::Tensor& x) { return again(dy, x, w); });
    return at::native::convolution_backward(dy, x, w, bias_sizes, stride, padding, dilation, transposed, output_padding, groups, wanted);
  }
  Gradients gradients;
  winograd::Filters f{w.data_ptr<float>(), w.size(1), w.size(0), 9, w.size(1) * 9, true};
  if (wanted[0]) std::get<0>(gradients) = (by == Way::large ? large_convolved : small_convolved)(dy, f, nullptr);
  if (wanted[1]) std::get<1>(gradients) = (by == Way::large ? large_filter_gradient : small_filter_gradient)(x, dy, w);
  if (wanted[2]) std::get<2>(gradients) = plain(dy) ? dy.sum(at::IntArrayRef{0, 2, 3}) : bias_gradient(dy);
  return gradients;
}

// Whether an operand that is there is one that autocast would convert to bfloat16 on the CPU.
inline bool takes_bfloat16(const at::Tensor& t) {
  return !t.defined() || (t.device().is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16));
}

// at::conv2d. Where autocast computes it in bfloat16 on the CPU, the filters and the bias are not
// copied as autocast does: each copy would take memory until the backward pass has ended. On a
// processor without the instructions they are not rounded to bfloat16 at all.
inline at::Tensor conv2d(const at::Tensor& x, const at::Tensor& w, const at::Tensor& bias, at::IntArrayRef stride,
                         at::IntArrayRef padding, at::IntArrayRef dilation, int64_t groups) {
  if (type_on_cpu() != at::kBFloat16 || x.dim() != 4 || !takes_bfloat16(x) || !takes_bfloat16(w) || !takes_bfloat16(bias))
    return at::conv2d(x, w, bias, stride, padding, dilation, groups);
  auto off = no_autocast();
  return at::convolution(x.to(at::kBFloat16), w, bias, stride, padding, dilation, false, {0, 0}, groups);
}

// at::matmul. Where autocast computes it in bfloat16 on a processor without the instructions, the
// operands are used as they are, in float32, and the result is rounded to bfloat16: for bfloat16
// libtorch would use plain loops.
inline at::Tensor matmul(const at::Tensor& a, const at::Tensor& b) {
  if (type_on_cpu() != at::kBFloat16 || filter_type() == at::kBFloat16 || !takes_bfloat16(a) || !takes_bfloat16(b)) return at::matmul(a, b);
  auto off = no_autocast();
  return at::matmul(a.to(at::kFloat), b.to(at::kFloat)).to(at::kBFloat16);
}

}  // namespace hcunet

TORCH_LIBRARY_IMPL(aten, CPU, m) {
  m.impl("convolution", hcunet::convolution);
  m.impl("convolution_backward", hcunet::convolution_backward);
}
