// Layers of the decoder as one step each, for float32 on a CPU with AVX2: they pass over the
// memory once, where libtorch's operators do so several times, and keep for the backward pass one
// bit of each result of a ReLU instead of the result.
#pragma once

#include "avx2.h"
#include "convolution.h"
#include "fused.h"
#include "planar.h"

#include <ATen/Parallel.h>

namespace hcunet::fused_cpu {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline bool autocast_is_on() {
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 204
  return at::autocast::is_autocast_enabled(at::kCPU);
#else
  return at::autocast::is_cpu_enabled();
#endif
}

// Whether a map is for these layers.
inline bool takes(const at::Tensor& x) {
  return fused::wanted.load(std::memory_order_relaxed) && avx2() && plain(x) && !autocast_is_on();
}

inline bool needs_gradient(std::initializer_list<at::Tensor> operands) {
  return at::GradMode::is_enabled() &&
         std::any_of(operands.begin(), operands.end(), [](const at::Tensor& t) { return t.requires_grad(); });
}

inline at::Tensor bits(const at::Tensor& like, int64_t n) {
  return at::empty({winograd::parts(n, planar::lanes)}, like.options().dtype(at::kByte));
}

// See hcunet_upsample_cpu. u, the result of the convolution, is as large as the upsampled map;
// it exists for one image at a time.
struct Upsample : torch::autograd::Function<Upsample> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w, const at::Tensor& b,
                            const at::Tensor& skip, bool blur, bool keep) {
    TORCH_CHECK(avx2() && plain(x) && x.size(2) > 0 && x.size(3) > 0 && x.size(3) % planar::lanes == 0, "a map of shape ", x.sizes(),
                "; wanted rows, a width that is a multiple of ", planar::lanes, ", and a processor with AVX2");
    TORCH_CHECK(w.dim() == 4 && w.size(0) % 4 == 0 && w.size(1) == x.size(1) && w.size(2) * w.size(3) == 1 && b.numel() == w.size(0),
                "a kernel of ", w.sizes(), " and ", b.numel(), " biases for maps of ", x.size(1), " channels");
    int64_t images = x.size(0), up = w.size(0) / 4;
    planar::Shape shape{x.size(2), x.size(3), blur};
    TORCH_CHECK(skip.dim() == 4 && skip.size(0) == images && skip.size(2) == 2 * shape.height && skip.size(3) == 2 * shape.width,
                "a skip of shape ", skip.sizes(), " for a smaller map of ", x.sizes());
    auto y = at::empty({images, up + skip.size(1), 2 * shape.height, 2 * shape.width}, x.options());
    y.narrow(1, up, skip.size(1)).copy_(skip);
    auto positive = keep ? bits(x, images * w.size(0) * shape.area()) : at::Tensor();
    auto bias = b.contiguous(), kernel = w.reshape({w.size(0), w.size(1)}), u = at::empty({w.size(0), shape.area()}, x.options());
    for (int64_t n = 0; n < images; n++) {
      at::mm_out(u, kernel, x[n].view({x.size(1), shape.area()}));
      const float *from = u.data_ptr<float>(), *biases = bias.data_ptr<float>();
      float* to = y[n].data_ptr<float>();
      uint8_t* mask = keep ? positive.data_ptr<uint8_t>() + n * u.numel() / planar::lanes : nullptr;
      at::parallel_for(0, up, 1, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; c++) {
          int64_t at = 4 * c * shape.area();
          planar::shuffle(shape, from + at, biases + 4 * c, to + at, mask ? mask + at / planar::lanes : nullptr);
        }
      });
    }
    if (keep) ctx->save_for_backward({x, w, positive});
    ctx->saved_data["blur"] = blur;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gs) {
    auto saved = ctx->get_saved_variables();
    auto &x = saved[0], &w = saved[1], &positive = saved[2];
    auto g = gs[0].contiguous();
    int64_t images = x.size(0), out = w.size(0), up = out / 4;
    planar::Shape shape{x.size(2), x.size(3), ctx->saved_data["blur"].toBool()};
    auto kernel = w.reshape({out, w.size(1)}), du = at::empty({out, shape.area()}, x.options());
    auto dx = ctx->needs_input_grad(0) ? at::empty_like(x) : at::Tensor();
    auto dw = at::zeros_like(kernel), db = at::zeros({out}, x.options()), sums = at::empty({out}, x.options());
    for (int64_t n = 0; n < images; n++) {
      const float* from = g[n].data_ptr<float>();
      const uint8_t* mask = positive.data_ptr<uint8_t>() + n * du.numel() / planar::lanes;
      float *to = du.data_ptr<float>(), *total = sums.data_ptr<float>();
      at::parallel_for(0, up, 1, [&](int64_t begin, int64_t end) {
        for (int64_t c = begin; c < end; c++) {
          int64_t at = 4 * c * shape.area();
          planar::shuffle_back(shape, from + at, mask + at / planar::lanes, to + at, total + 4 * c);
        }
      });
      db += sums;
      auto xn = x[n].view({x.size(1), shape.area()});
      if (ctx->needs_input_grad(1)) dw.addmm_(du, xn.t());
      if (dx.defined()) {
        auto dxn = dx[n].view(xn.sizes());
        at::mm_out(dxn, kernel.t(), du);
      }
    }
    at::Tensor dskip;
    if (ctx->needs_input_grad(3)) dskip = g.narrow(1, up, g.size(1) - up);
    return {dx, dw.view(w.sizes()), db, dskip, at::Tensor(), at::Tensor()};
  }
};

// Overwrites y with x + max(y, 0).
struct AddReLU : torch::autograd::Function<AddReLU> {
  static constexpr int64_t grain = 1 << 15;  // elements, a multiple of lanes

  template <class Loop>
  static void parallel(int64_t n, Loop&& loop) {
    at::parallel_for(0, winograd::parts(n, grain), 1, [&](int64_t begin, int64_t end) {
      int64_t first = begin * grain;
      loop(first, std::min(end * grain, n) - first);
    });
  }

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, at::Tensor y, bool keep) {
    TORCH_CHECK(avx2() && plain(x) && plain(y) && x.sizes() == y.sizes(), "the sum of maps of shapes ", x.sizes(), " and ", y.sizes());
    auto positive = keep ? bits(x, x.numel()) : at::Tensor();
    const float* from = x.data_ptr<float>();
    float* to = y.data_ptr<float>();
    uint8_t* mask = keep ? positive.data_ptr<uint8_t>() : nullptr;
    parallel(x.numel(), [&](int64_t first, int64_t n) {
      planar::add_relu(n, from + first, to + first, mask ? mask + first / planar::lanes : nullptr);
    });
    ctx->mark_dirty({y});
    if (keep) ctx->save_for_backward({positive});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gs) {
    auto g = gs[0].contiguous(), dy = at::empty_like(g), positive = ctx->get_saved_variables()[0];
    const float* from = g.data_ptr<float>();
    float* to = dy.data_ptr<float>();
    const uint8_t* mask = positive.data_ptr<uint8_t>();
    parallel(g.numel(), [&](int64_t first, int64_t n) {
      planar::relu_back(n, from + first, mask + first / planar::lanes, to + first);
    });
    return {g, dy, at::Tensor()};
  }
};

}  // namespace hcunet::fused_cpu
