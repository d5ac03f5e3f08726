// Layers of the decoder as one step each, for float32 or bfloat16 on a CPU with AVX2: they pass over the
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

// The type to compute a map in: x's own where autocast is off.
inline at::ScalarType type_of(const at::Tensor& x) { return type_on_cpu().value_or(x.scalar_type()); }

// Whether these layers can compute with a map as it is.
inline bool can(const at::Tensor& x) {
  return avx2() && are_rows(x) && (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

// Whether a map is for these layers. One of float32 is, too, where autocast computes in bfloat16.
inline bool takes(const at::Tensor& x) {
  return fused::wanted.load(std::memory_order_relaxed) && can(x) && (type_of(x) == x.scalar_type() || type_of(x) == at::kBFloat16);
}

// Calls f with an element of the type of the products that make a map, and one of the map's.
template <class F>
void with_types(at::ScalarType product, at::ScalarType map, F&& f) {
  with_type(map, [&]<class Y>(Y y) {
    std::is_same_v<Y, float> || product == at::kFloat ? f(float{}, y) : f(y, y);
  });
}

inline bool needs_gradient(std::initializer_list<at::Tensor> operands) {
  return at::GradMode::is_enabled() &&
         std::any_of(operands.begin(), operands.end(), [](const at::Tensor& t) { return t.requires_grad(); });
}

inline at::Tensor bits(const at::Tensor& like, int64_t n) {
  return at::empty({winograd::parts(n, planar::lanes)}, like.options().dtype(at::kByte));
}

// See hcunet_upsample_cpu. u, the result of the convolution, is as large as the upsampled map;
// it exists for one image at a time. It is float32 for a bfloat16 map too, unless libtorch
// computes products of bfloat16 by instructions. w and b may be float32 for such a map.
struct Upsample : torch::autograd::Function<Upsample> {
  static at::ScalarType product_type(const at::Tensor& x) {
    return native_bfloat16.load(std::memory_order_relaxed) ? x.scalar_type() : at::kFloat;
  }

  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& w, const at::Tensor& b,
                            const at::Tensor& skip, bool blur, bool keep) {
    auto off = no_autocast();
    TORCH_CHECK(can(x) && x.size(2) > 0 && x.size(3) > 0 && x.size(3) % planar::lanes == 0, "a map of ", x.scalar_type(), " of shape ",
                x.sizes(), "; wanted rows, a width that is a multiple of ", planar::lanes, ", and a processor with AVX2");
    TORCH_CHECK(w.dim() == 4 && w.size(0) % 4 == 0 && w.size(1) == x.size(1) && w.size(2) * w.size(3) == 1 && b.numel() == w.size(0),
                "a kernel of ", w.sizes(), " and ", b.numel(), " biases for maps of ", x.size(1), " channels");
    int64_t images = x.size(0), up = w.size(0) / 4;
    planar::Shape shape{x.size(2), x.size(3), blur};
    TORCH_CHECK(skip.dim() == 4 && skip.size(0) == images && skip.size(2) == 2 * shape.height && skip.size(3) == 2 * shape.width,
                "a skip of shape ", skip.sizes(), " for a smaller map of ", x.sizes());
    auto type = product_type(x);
    auto y = at::empty({images, up + skip.size(1), 2 * shape.height, 2 * shape.width}, x.options());
    y.narrow(1, up, skip.size(1)).copy_(skip);
    auto positive = keep ? bits(x, images * w.size(0) * shape.area()) : at::Tensor();
    auto bias = b.to(at::kFloat).contiguous(), kernel = w.reshape({w.size(0), w.size(1)}).to(type);
    auto u = at::empty({w.size(0), shape.area()}, x.options().dtype(type));
    for (int64_t n = 0; n < images; n++) {
      at::mm_out(u, kernel, x[n].view({x.size(1), shape.area()}).to(type));
      const float* biases = bias.data_ptr<float>();
      uint8_t* mask = keep ? positive.data_ptr<uint8_t>() + n * u.numel() / planar::lanes : nullptr;
      with_types(type, x.scalar_type(), [&]<class U, class Y>(U, Y) {
        const U* from = elements<U>(u);
        Y* to = elements<Y>(y[n]);
        at::parallel_for(0, up, 1, [&](int64_t begin, int64_t end) {
          for (int64_t c = begin; c < end; c++) {
            int64_t at = 4 * c * shape.area();
            planar::shuffle(shape, from + at, biases + 4 * c, to + at, mask ? mask + at / planar::lanes : nullptr);
          }
        });
      });
    }
    if (keep) ctx->save_for_backward({x, w, positive});
    ctx->saved_data["blur"] = blur;
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gs) {
    auto off = no_autocast();
    auto saved = ctx->get_saved_variables();
    auto &x = saved[0], &w = saved[1], &positive = saved[2];
    auto g = gs[0].contiguous();
    auto type = product_type(x);
    int64_t images = x.size(0), out = w.size(0), up = out / 4;
    planar::Shape shape{x.size(2), x.size(3), ctx->saved_data["blur"].toBool()};
    auto kernel = w.reshape({out, w.size(1)}).to(type), du = at::empty({out, shape.area()}, x.options().dtype(type));
    auto dx = ctx->needs_input_grad(0) ? at::empty_like(x) : at::Tensor();
    auto sums = at::empty({out}, x.options().dtype(at::kFloat)), db = at::zeros_like(sums), dw = at::zeros(kernel.sizes(), sums.options());
    for (int64_t n = 0; n < images; n++) {
      const uint8_t* mask = positive.data_ptr<uint8_t>() + n * du.numel() / planar::lanes;
      float* total = sums.data_ptr<float>();
      with_types(type, x.scalar_type(), [&]<class U, class Y>(U, Y) {
        const Y* from = elements<Y>(g[n]);
        U* to = elements<U>(du);
        at::parallel_for(0, up, 1, [&](int64_t begin, int64_t end) {
          for (int64_t c = begin; c < end; c++) {
            int64_t at = 4 * c * shape.area();
            planar::shuffle_back(shape, from + at, mask + at / planar::lanes, to + at, total + 4 * c);
          }
        });
      });
      db += sums;
      std::array<int64_t, 2> flat{x.size(1), shape.area()};
      if (ctx->needs_input_grad(1)) {
        auto xn = x[n].view(flat).to(type).t();
        type == at::kFloat ? dw.addmm_(du, xn) : dw.add_(at::mm(du, xn));
      }
      if (!dx.defined()) continue;
      auto dxn = dx[n].view(flat);
      type == x.scalar_type() ? at::mm_out(dxn, kernel.t(), du) : dxn.copy_(at::mm(kernel.t(), du));
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
    TORCH_CHECK(can(x) && can(y) && x.scalar_type() == y.scalar_type() && x.sizes() == y.sizes(), "the sum of maps of shapes ", x.sizes(),
                " and ", y.sizes(), " of ", x.scalar_type(), " and ", y.scalar_type());
    auto positive = keep ? bits(x, x.numel()) : at::Tensor();
    uint8_t* mask = keep ? positive.data_ptr<uint8_t>() : nullptr;
    with_type(x.scalar_type(), [&]<class Y>(Y) {
      const Y* from = elements<Y>(x);
      Y* to = elements<Y>(y);
      parallel(x.numel(), [&](int64_t first, int64_t n) {
        planar::add_relu(n, from + first, to + first, mask ? mask + first / planar::lanes : nullptr);
      });
    });
    ctx->mark_dirty({y});
    if (keep) ctx->save_for_backward({positive});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list gs) {
    auto g = gs[0].contiguous(), dy = at::empty_like(g), positive = ctx->get_saved_variables()[0];
    const uint8_t* mask = positive.data_ptr<uint8_t>();
    with_type(g.scalar_type(), [&]<class Y>(Y) {
      const Y* from = elements<Y>(g);
      Y* to = elements<Y>(dy);
      parallel(g.numel(), [&](int64_t first, int64_t n) {
        planar::relu_back(n, from + first, mask + first / planar::lanes, to + first);
      });
    });
    return {g, dy, at::Tensor()};
  }
};

}  // namespace hcunet::fused_cpu
