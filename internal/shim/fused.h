// Layers of the decoder as one step each, for a GPU's tensor cores: a convolution with its
// bias and ReLU, and an upsampling by pixel shuffle with the concatenation that follows.
// Their maps are channels-last, in bfloat16 or float16, and pass the memory once, where
// libtorch's operators read and write them at each step; on a GPU this takes longer than the
// convolutions.
//
// A map may have more channels than its layer: channels of zeros, up to a multiple for which
// cuDNN has fast convolutions. A layer extends its kernel by zeros to fit such a map.
#pragma once

#include "gpu.h"
#include "guard.h"

#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/version.h>

namespace hcunet {

namespace fused {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline constexpr auto channels_last = at::MemoryFormat::ChannelsLast;

// The loops for the CPU, which tests run.
using Loops = Kernels<float>;

inline float* floats(const at::Tensor& t) {
  TORCH_CHECK(t.scalar_type() == at::kFloat && t.device().is_cpu(), "a map of ", t.scalar_type(), " on ", t.device());
  return t.data_ptr<float>();
}

inline unsigned count(int64_t n) {
  TORCH_CHECK(n < (int64_t{1} << 31), "a map of ", n, " groups of elements is too large; take a smaller batch");
  return static_cast<unsigned>(n);
}

// Makes a gradient of y's shape, eight channels at a time, and its sums over all pixels: on
// CUDA by a kernel, which gets arguments between the gradient and the sums, on the CPU by loop.
template <class Loop, class... Arguments>
std::pair<at::Tensor, at::Tensor> summed(const at::Tensor& g, const at::Tensor& y, gpu::Module::Kernel kernel, Loop&& loop,
                                         Arguments... arguments) {
  auto to = at::empty_like(y);
  auto total = at::zeros({y.size(1)}, y.options().dtype(at::kFloat));
  unsigned groups = y.size(1) / 8, n = count(y.numel() / 8);
  if (y.is_cuda()) {
    gpu::module(y.device(), y.scalar_type())
        .run(kernel, y.device(), n, groups * 8 * sizeof(float), g.data_ptr(), y.data_ptr(), to.data_ptr(), arguments..., groups,
             total.data_ptr());
  } else {
    for (unsigned i = 0; i < n; i++) loop(i, floats(g), floats(y), floats(to), floats(total) + i % groups * 8);
  }
  return {to, total};
}

// The gradient before a ReLU that made y, and its sums.
inline std::pair<at::Tensor, at::Tensor> relu_backward(const at::Tensor& g, const at::Tensor& y) {
  return summed(g, y, gpu::Module::relu_back, Loops::relu_back);
}

// The map of a smaller map u and a skip s, see kernels.h.
struct Join {
  int64_t images, channels;
  Loops::Shape shape;

  Join(const at::Tensor& u, const at::Tensor& s, int64_t channels, bool blur) : images(u.size(0)), channels(channels) {
    auto part = [](int64_t n) { return static_cast<unsigned>(n); };
    int64_t height = u.size(2), width = u.size(3), up = u.size(1) / 4, skip = s.size(1);
    TORCH_CHECK(u.size(1) % 8 == 0 && channels % 2 == 0 && channels >= up + skip, "no map of ", channels, " channels from ",
                u.size(1), " by pixel shuffle and ", skip);
    TORCH_CHECK(s.size(0) == images && s.size(2) == 2 * height && s.size(3) == 2 * width, "a skip of shape ", s.sizes(),
                " for a smaller map of ", u.sizes());
    shape = {part(height), part(width), part(up), part(skip), part(channels), blur};
  }

  at::Tensor forward(const at::Tensor& u, const at::Tensor& s) const {
    auto y = at::empty({images, channels, 2 * u.size(2), 2 * u.size(3)}, u.options(), channels_last);
    unsigned n = count(images * u.size(2) * u.size(3) * channels / 2);
    if (u.is_cuda()) {
      gpu::module(u.device(), u.scalar_type())
          .run(gpu::Module::join, u.device(), n, 0, u.data_ptr(), s.data_ptr(), y.data_ptr(), shape);
    } else {
      for (unsigned i = 0; i < n; i++) Loops::join(i, floats(u), floats(s), floats(y), shape);
    }
    return y;
  }

  // The gradient before the ReLU that made u, and its sums.
  std::pair<at::Tensor, at::Tensor> backward(const at::Tensor& g, const at::Tensor& u) const {
    auto loop = [&](unsigned i, const float* g, const float* u, float* du, float* sums) { Loops::join_back(i, g, u, du, shape, sums); };
    return summed(g, u, gpu::Module::join_back, loop, shape);
  }
};

// A convolution with stride 1 that keeps the size, its operands in the type and the widths
// in which it is computed.
struct Convolution {
  at::Tensor x, w, b;

  // out is the number of channels of the result, at least that of the kernel.
  Convolution(const at::Tensor& x_, const at::Tensor& w_, const at::Tensor& b_, at::ScalarType type, int64_t out) {
    int64_t more_in = x_.size(1) - w_.size(1), more_out = out - w_.size(0);
    TORCH_CHECK(more_in >= 0 && more_out >= 0, "a kernel of ", w_.sizes(), " for maps of ", x_.size(1), " and ", out, " channels");
    x = x_.to(type).contiguous(channels_last);
    w = w_.to(type);
    b = b_.to(type);
    if (more_in || more_out) w = at::constant_pad_nd(w, {0, 0, 0, 0, 0, more_in, 0, more_out});
    if (more_out) b = at::constant_pad_nd(b, {0, more_out});
    w = w.contiguous(channels_last);
  }

  std::array<int64_t, 2> padding() const { return {w.size(2) / 2, w.size(3) / 2}; }

  at::Tensor forward_relu() const {
    constexpr std::array<int64_t, 2> one{1, 1};
    if (x.is_cuda()) return at::cudnn_convolution_relu(x, w, b, one, padding(), one, 1);
    return at::relu(at::convolution(x, w, b, one, padding(), one, false, {0, 0}, 1)).contiguous(channels_last);
  }
};

// The gradients of a convolution's operands from that of its result, in their own types and
// widths. bias holds the gradient of the bias.
inline variable_list gradients(AutogradContext* ctx, const at::Tensor& g, const at::Tensor& x, const at::Tensor& w, at::Tensor bias) {
  constexpr std::array<int64_t, 2> one{1, 1};
  std::array<int64_t, 2> padding{w.size(2) / 2, w.size(3) / 2};
  auto [dx, dw, none] = at::convolution_backward(g, x, w, at::OptionalIntArrayRef(), one, padding, one, false, {0, 0}, 1,
                                                 {ctx->needs_input_grad(0), ctx->needs_input_grad(1), false});
  auto type = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
  int64_t in = ctx->saved_data["in"].toInt(), out = ctx->saved_data["out"].toInt();
  if (dx.defined()) dx = dx.to(static_cast<at::ScalarType>(ctx->saved_data["x"].toInt()));
  if (dw.defined()) dw = dw.narrow(0, 0, out).narrow(1, 0, in).to(type);
  bias = ctx->needs_input_grad(2) ? bias.narrow(0, 0, out).to(type) : at::Tensor();
  return {dx, dw, bias};
}

inline void remember(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w) {
  ctx->saved_data["type"] = static_cast<int64_t>(w.scalar_type());
  ctx->saved_data["x"] = static_cast<int64_t>(x.scalar_type());
  ctx->saved_data["in"] = w.size(1);
  ctx->saved_data["out"] = w.size(0);
}

struct ConvReLU : torch::autograd::Function<ConvReLU> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor x, at::Tensor w, at::Tensor b, at::ScalarType type, int64_t out) {
    auto off = no_autocast();
    Convolution c(x, w, b, type, out);
    auto y = c.forward_relu();
    remember(ctx, x, w);
    ctx->save_for_backward({c.x, c.w, y});
    return y;
  }
  static variable_list backward(AutogradContext* ctx, variable_list gs) {
    auto off = no_autocast();
    auto saved = ctx->get_saved_variables();
    auto& y = saved[2];
    auto [g, bias] = relu_backward(gs[0].to(y.scalar_type()).contiguous(channels_last), y);
    auto d = gradients(ctx, g, saved[0], saved[1], bias);
    return {d[0], d[1], d[2], at::Tensor(), at::Tensor()};
  }
};

struct Upsample : torch::autograd::Function<Upsample> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor x, at::Tensor w, at::Tensor b, at::Tensor s, at::ScalarType type,
                            int64_t channels, bool blur) {
    auto off = no_autocast();
    Convolution c(x, w, b, type, w.size(0));
    auto u = c.forward_relu();
    auto skip = s.to(type).contiguous(channels_last);
    remember(ctx, x, w);
    ctx->saved_data["skip"] = static_cast<int64_t>(s.scalar_type());
    ctx->saved_data["blur"] = blur;
    ctx->save_for_backward({c.x, c.w, u, skip});
    return Join(u, skip, channels, blur).forward(u, skip);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gs) {
    auto off = no_autocast();
    auto saved = ctx->get_saved_variables();
    auto &u = saved[2], &s = saved[3];
    auto g = gs[0].to(u.scalar_type()).contiguous(channels_last);
    Join join(u, s, g.size(1), ctx->saved_data["blur"].toBool());
    auto [du, bias] = join.backward(g, u);
    auto d = gradients(ctx, du, saved[0], saved[1], bias);
    at::Tensor ds;
    if (ctx->needs_input_grad(3)) ds = g.narrow(1, join.shape.up, join.shape.skip).to(static_cast<at::ScalarType>(ctx->saved_data["skip"].toInt()));
    return {d[0], d[1], d[2], ds, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

// A bilinear resize. libtorch's gradient on CUDA adds numbers in any order and took a tenth of a
// training step; this one multiplies by the transposed matrices of the interpolation.
struct ResizeBilinear : torch::autograd::Function<ResizeBilinear> {
  static at::Tensor forward(AutogradContext* ctx, at::Tensor x, int64_t height, int64_t width) {
    auto off = no_autocast();
    ctx->saved_data["type"] = static_cast<int64_t>(x.scalar_type());
    ctx->saved_data["height"] = x.size(2);
    ctx->saved_data["width"] = x.size(3);
    bool narrow = x.scalar_type() == at::kHalf || x.scalar_type() == at::kBFloat16;
    return at::upsample_bilinear2d(narrow ? x.to(at::kFloat) : x, {height, width}, false);
  }
  static variable_list backward(AutogradContext* ctx, variable_list gs) {
    auto off = no_autocast();
    auto& g = gs[0];
    // The rows are those of an identity matrix, resized.
    auto transposed = [&](int64_t from, int64_t to) {
      auto unit = at::eye(from, g.options()).view({1, from, from, 1});
      return at::upsample_bilinear2d(unit, {to, 1}, false).view({from, to});
    };
    auto rows = transposed(ctx->saved_data["height"].toInt(), g.size(2));
    auto columns = transposed(ctx->saved_data["width"].toInt(), g.size(3));
    auto dx = at::matmul(at::matmul(rows, g), columns.t());
    return {dx.to(static_cast<at::ScalarType>(ctx->saved_data["type"].toInt())), at::Tensor(), at::Tensor()};
  }
};

inline std::atomic<bool> wanted{true};

// The type in which autocast computes convolutions on CUDA, if it is on and the kernels work.
inline c10::optional<at::ScalarType> type_on_cuda(const at::Tensor& x) {
  if (!x.is_cuda() || x.dim() != 4 || !wanted.load(std::memory_order_relaxed)) return {};
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 204
  if (!at::autocast::is_autocast_enabled(at::kCUDA)) return {};
  auto type = at::autocast::get_autocast_dtype(at::kCUDA);
  static std::mutex mutex;
  static std::map<std::pair<int, at::ScalarType>, bool> works;
  std::lock_guard<std::mutex> lock(mutex);
  auto [it, is_new] = works.try_emplace({x.device().index(), type}, false);
  if (is_new) {
    try {
      gpu::module(x.device(), type);
      it->second = type == at::kHalf || type == at::kBFloat16;
    } catch (const std::exception& e) {
      TORCH_WARN("hcunet's CUDA kernels are not used: ", e.what());
    }
  }
  if (it->second) return type;
#endif
  return {};
}

// The type to compute in: x's own where autocast is off.
inline at::ScalarType type_of(const at::Tensor& x) {
  auto type = type_on_cuda(x);
  return type ? *type : x.scalar_type();
}

// A bias, zeros for a layer that has none.
inline at::Tensor bias(void* b, const at::Tensor& w) { return b ? ref(b) : at::zeros({w.size(0)}, w.options()); }

}  // namespace fused

}  // namespace hcunet
