// The C interface that gotorch's Go code declares (github.com/wangkuiyi/gotorch,
// 2020-10-28, directory cgotorch), implemented on tracked handles.
//
// Behaviour that differs from gotorch's own library on purpose:
//   - nothing throws: functions whose error text has no way out (gotorch drops
//     that of Save) leave it for the next call on the thread that has one;
//   - a null handle is an error instead of a crash;
//   - GCPrepared is never true, so torch.GC collects and returns instead of
//     waiting for tensors that are still in use;
//   - SetNumThreads ignores counts below one (half of one core);
//   - Optimizer_Close may be called twice (the user's Close, then the finalizer);
//   - C strings and byte buffers that gotorch allocates for a call and never
//     frees are freed here, and devices and streams, which it never frees
//     either, exist once each.
#pragma once

#include "guard.h"

#include <ATen/Parallel.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/cuda.h>
#include <torch/nn/init.h>
#include <torch/optim/adam.h>
#include <torch/optim/sgd.h>
#include <torch/serialize.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <iostream>
#include <sstream>
#include <string>

namespace hcunet {

using Out = void**;

inline void put(Out out, at::Tensor t) { *out = make(std::move(t)); }

// Owns what gotorch's Go code made with C.CString or C.CBytes for this call.
struct Given {
  void* p;
  ~Given() { std::free(p); }
};

inline int64_t reduction(const std::string& name) {
  if (name == "none") return at::Reduction::None;
  if (name == "mean") return at::Reduction::Mean;
  if (name == "sum") return at::Reduction::Sum;
  TORCH_CHECK(false, "reduction is \"", name, "\", wanted none, mean or sum");
}

// A leaf that records gradients; at:: factories ignore requires_grad.
inline at::Tensor leaf(at::Tensor t, int64_t requires_grad) { return t.set_requires_grad(requires_grad != 0); }

// A closed box stays allocated (8 bytes), so that a second close finds it empty.
struct OptimizerBox {
  std::unique_ptr<torch::optim::Optimizer> optimizer;
};

inline torch::optim::Optimizer& optimizer(void* box) {
  auto& o = static_cast<OptimizerBox*>(box)->optimizer;
  TORCH_CHECK(o, "the optimizer is closed");
  return *o;
}

// The one copy of a device or stream.
template <class T>
T* intern(const T& value) {
  static std::mutex mutex;
  static std::deque<T> known;  // a deque does not move what it holds
  std::lock_guard<std::mutex> lock(mutex);
  for (T& k : known)
    if (k == value) return &k;
  return &known.emplace_back(value);
}

// Libtorch's own message for a device that is not there fills a page.
inline c10::Device usable(c10::Device d) {
  if (!d.is_cuda()) return d;
  auto n = torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0;
  TORCH_CHECK(d.index() < n && n > 0, "there is no device ", d, ": this libtorch sees ", n, " CUDA devices");
  return d;
}
inline c10::Device usable(void* d) {
  TORCH_CHECK(d, "nil device: it was not made by NewDevice");
  return usable(*static_cast<c10::Device*>(d));
}

inline c10::Stream& stream_of(void* s) {
  TORCH_CHECK(s, "nil stream: it was not made by NewCUDAStream");
  return *static_cast<c10::Stream*>(s);
}

inline c10::impl::VirtualGuardImpl cuda() {
  usable(c10::Device(c10::kCUDA, 0));
  return c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA);
}

inline torch::nn::init::FanModeType fan_mode(const std::string& s) {
  if (s == "fan_in") return torch::kFanIn;
  if (s == "fan_out") return torch::kFanOut;
  TORCH_CHECK(false, "fan mode is \"", s, "\", wanted fan_in or fan_out");
}

inline torch::nn::init::NonlinearityType nonlinearity(const std::string& s) {
  if (s == "relu") return torch::kReLU;
  if (s == "leaky_relu") return torch::kLeakyReLU;
  if (s == "tanh") return torch::kTanh;
  if (s == "sigmoid") return torch::kSigmoid;
  if (s == "linear") return torch::kLinear;
  if (s == "conv1d") return torch::kConv1D;
  if (s == "conv2d") return torch::kConv2D;
  if (s == "conv3d") return torch::kConv3D;
  if (s == "conv_transpose1d") return torch::kConvTranspose1D;
  if (s == "conv_transpose2d") return torch::kConvTranspose2D;
  if (s == "conv_transpose3d") return torch::kConvTranspose3D;
  TORCH_CHECK(false, "unknown nonlinearity \"", s, "\"");
}

}  // namespace hcunet

using namespace hcunet;  // NOLINT: this header is part of one translation unit

extern "C" {

// Memory and process state.
uint8_t GCPrepared() { return 0; }
void PrepareGC() {}
void FinishGC() {}
void Tensor_Close(void* a) {
  if (a) close(static_cast<at::Tensor*>(a));
}
void FreeString(const char* s) { std::free(const_cast<char*>(s)); }
void SetNumThreads(int32_t n) {
  if (n < 1) return;
  wanted_threads = n;
  set_blas_threads(n);
}
void ManualSeed(int64_t seed) {
  guard_void("ManualSeed", [&] { at::manual_seed(seed); });
}

// Devices and streams.
const char* Torch_Device(const char* name, void** device) {
  Given given{const_cast<char*>(name)};
  return guard([&] { *device = intern(c10::Device(std::string(name))); });
}
bool IsCUDAAvailable() { return torch::cuda::is_available(); }
bool IsCUDNNAvailable() { return torch::cuda::cudnn_is_available(); }
const char* CUDA_GetCurrentCUDAStream(void** stream, void** device) {
  return guard([&] { *stream = intern(cuda().getStream(usable(*device))); });
}
const char* CUDA_GetCUDAStreamFromPool(void** stream, void** device) {
  return guard([&] { *stream = intern(cuda().getStreamFromGlobalPool(usable(*device))); });
}
const char* CUDA_SetCurrentCUDAStream(void* stream) {
  return guard([&] { cuda().exchangeStream(stream_of(stream)); });
}
const char* CUDA_Synchronize(void* stream) {
  return guard([&] { stream_of(stream).synchronize(); });
}
const char* CUDA_Query(void* stream, int8_t* done) {
  return guard([&] { *done = stream_of(stream).query(); });
}

// Construction.
const char* RandN(int64_t* size, int64_t n, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::randn(ints(size, n)), grad)); });
}
const char* Rand(int64_t* size, int64_t n, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::rand(ints(size, n)), grad)); });
}
const char* Empty(int64_t* size, int64_t n, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::empty(ints(size, n)), grad)); });
}
const char* Ones(int64_t* size, int64_t n, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::ones(ints(size, n)), grad)); });
}
const char* Eye(int64_t n, int64_t m, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::eye(n, m), grad)); });
}
const char* Full(int64_t* size, int64_t n, float value, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::full(ints(size, n), value), grad)); });
}
const char* Arange(float start, float end, float step, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::arange(start, end, step), grad)); });
}
const char* Linspace(float start, float end, int64_t steps, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::linspace(start, end, steps), grad)); });
}
const char* Logspace(float start, float end, int64_t steps, double base, int64_t grad, Out out) {
  return guard([&] { put(out, leaf(at::logspace(start, end, steps, base), grad)); });
}
const char* Tensor_FromBlob(void* data, int8_t dtype, int64_t* size, int64_t n, Out out) {
  return guard([&] {
    put(out, at::from_blob(data, ints(size, n), at::TensorOptions(static_cast<at::ScalarType>(dtype))).clone());
  });
}

// Files and pickles.
const char* Tensor_Save(void* a, const char* path) {
  Given given{const_cast<char*>(path)};
  guard_void("Tensor.Save", [&] { torch::save(ref(a), std::string(path)); });
  return nullptr;
}
const char* Tensor_Load(const char* path, Out out) {
  Given given{const_cast<char*>(path)};
  return guard([&] {
    at::Tensor t;
    torch::load(t, std::string(path));
    put(out, t);
  });
}
const char* Tensor_Encode(void* a, void** buffer) {
  return guard([&] { *buffer = new std::vector<char>(torch::jit::pickle_save(ref(a).cpu())); });
}
void* ByteBuffer_Data(void* b) { return static_cast<std::vector<char>*>(b)->data(); }
int64_t ByteBuffer_Size(void* b) { return static_cast<int64_t>(static_cast<std::vector<char>*>(b)->size()); }
void ByteBuffer_Free(void* b) { delete static_cast<std::vector<char>*>(b); }
const char* Tensor_Decode(void* data, int64_t size, Out out) {
  Given given{data};
  return guard([&] {
    auto* p = static_cast<const char*>(data);
    put(out, torch::jit::pickle_load(std::vector<char>(p, p + size)).toTensor());
  });
}

// Looking at a tensor.
const char* Tensor_String(void* a) {
  std::string s;
  guard_void("Tensor.String", [&] {
    std::ostringstream o;
    o << raw(a);
    s = o.str();
  });
  return strdup(s.c_str());
}
void Tensor_Print(void* a) {
  guard_void("Tensor.Print", [&] { std::cout << raw(a) << std::endl; });
}
const char* Tensor_Dim(void* a, int64_t* dim) {
  return guard([&] { *dim = ref(a).dim(); });
}
const char* Tensor_Shape(void* a, int64_t* dims) {
  return guard([&] {
    for (int64_t d : ref(a).sizes()) *dims++ = d;
  });
}
const char* Tensor_Dtype(void* a, int8_t* dtype) {
  return guard([&] { *dtype = static_cast<int8_t>(ref(a).scalar_type()); });
}
const char* Item(void* a, float* v) {
  return guard([&] { *v = ref(a).item<float>(); });
}
const char* ItemInt64(void* a, int64_t* v) {
  return guard([&] { *v = ref(a).item<int64_t>(); });
}
const char* ItemFloat64(void* a, double* v) {
  return guard([&] { *v = ref(a).item<double>(); });
}
const char* Equal(void* a, void* b, int64_t* v) {
  return guard([&] { *v = at::equal(ref(a), ref(b)); });
}
const char* AllClose(void* a, void* b, int64_t* v) {
  return guard([&] { *v = at::allclose(ref(a), ref(b)); });
}

// Moving and sharing.
const char* Tensor_Detach(void* a, Out out) {
  return guard([&] { put(out, ref(a).detach()); });
}
const char* Tensor_SetData(void* a, void* data) {
  return guard([&] { ref(a).set_data(ref(data)); });
}
const char* Tensor_To(void* a, void* device, int8_t dtype, Out out) {
  return guard([&] { put(out, ref(a).to(usable(device), static_cast<at::ScalarType>(dtype))); });
}
const char* Tensor_CastTo(void* a, int8_t dtype, Out out) {
  return guard([&] { put(out, ref(a).to(static_cast<at::ScalarType>(dtype))); });
}
const char* Tensor_CopyTo(void* a, void* device, Out out) {
  return guard([&] { put(out, ref(a).to(ref(a).options().device(usable(device)))); });
}
const char* Tensor_PinMemory(void* a, Out out) {
  return guard([&] { put(out, ref(a).pin_memory()); });
}
const char* Tensor_CUDA(void* a, void* device, int8_t non_blocking, Out out) {
  return guard([&] {
    auto d = usable(device);
    TORCH_CHECK(d.is_cuda(), "the device is ", d, ", wanted a CUDA device");
    put(out, ref(a).to(ref(a).options().device(d), non_blocking != 0));
  });
}

// Gradients.
void Tensor_Backward(void* a) {
  guard_void("Tensor.Backward", [&] { ref(a).backward(); });
}
void* Tensor_Grad(void* a) {
  void* out = nullptr;
  guard_void("Tensor.Grad", [&] { put(&out, ref(a).grad()); });
  return out;
}

// Optimizers.
void* SGD(double lr, double momentum, double dampening, double weight_decay, int64_t nesterov) {
  auto* box = new OptimizerBox;
  guard_void("SGD", [&] {
    box->optimizer = std::make_unique<torch::optim::SGD>(std::vector<torch::optim::OptimizerParamGroup>{},
                                                         torch::optim::SGDOptions(lr)
                                                             .momentum(momentum)
                                                             .dampening(dampening)
                                                             .weight_decay(weight_decay)
                                                             .nesterov(nesterov != 0));
  });
  return box;
}
void* Adam(double lr, double beta1, double beta2, double weight_decay) {
  auto* box = new OptimizerBox;
  guard_void("Adam", [&] {
    box->optimizer = std::make_unique<torch::optim::Adam>(
        std::vector<at::Tensor>{},
        torch::optim::AdamOptions(lr).betas(std::make_tuple(beta1, beta2)).weight_decay(weight_decay));
  });
  return box;
}
void Optimizer_ZeroGrad(void* o) {
  guard_void("Optimizer.ZeroGrad", [&] { optimizer(o).zero_grad(); });
}
void Optimizer_Step(void* o) {
  guard_void("Optimizer.Step", [&] { optimizer(o).step(); });
}
void Optimizer_AddParameters(void* o, void** tensors, int64_t n) {
  guard_void("Optimizer.AddParameters",
             [&] { optimizer(o).add_param_group(torch::optim::OptimizerParamGroup(refs(tensors, n))); });
}
void Optimizer_SetLR(void* o, double lr) {
  guard_void("Optimizer.SetLR", [&] {
    for (auto& group : optimizer(o).param_groups()) group.options().set_lr(lr);
  });
}
void Optimizer_Close(void* o) {
  std::free(caught([&] { static_cast<OptimizerBox*>(o)->optimizer.reset(); }));
}

// Initializers write in place.
const char* Zeros_(void** a) {
  return guard([&] { torch::nn::init::zeros_(ref(*a)); });
}
const char* Ones_(void** a) {
  return guard([&] { torch::nn::init::ones_(ref(*a)); });
}
const char* Uniform_(void** a, double low, double high) {
  return guard([&] { torch::nn::init::uniform_(ref(*a), low, high); });
}
const char* Normal_(void** a, double mean, double std) {
  return guard([&] { torch::nn::init::normal_(ref(*a), mean, std); });
}
const char* KaimingUniform_(double a, const char* mode, const char* activation, void** t) {
  Given given_mode{const_cast<char*>(mode)}, given_activation{const_cast<char*>(activation)};
  return guard([&] {
    torch::nn::init::kaiming_uniform_(ref(*t), a, fan_mode(mode), nonlinearity(activation));
  });
}
const char* CalculateFanInAndFanOut(void* t, int64_t* fan_in, int64_t* fan_out) {
  return guard([&] { std::tie(*fan_in, *fan_out) = torch::nn::init::_calculate_fan_in_and_fan_out(ref(t)); });
}

// Arithmetic.
const char* MM(void* a, void* b, Out out) {
  return guard([&] { put(out, at::mm(ref(a), ref(b))); });
}
const char* Add(void* a, void* b, float alpha, Out out) {
  return guard([&] { put(out, at::add(ref(a), ref(b), alpha)); });
}
const char* Add_(void* a, void* b, float alpha, Out out) {
  return guard([&] { put(out, ref(a).add_(ref(b), alpha)); });
}
const char* Sub(void* a, void* b, float alpha, Out out) {
  return guard([&] { put(out, at::sub(ref(a), ref(b), alpha)); });
}
const char* Sub_(void* a, void* b, float alpha, Out out) {
  return guard([&] { put(out, ref(a).sub_(ref(b), alpha)); });
}
const char* Mul(void* a, void* b, Out out) {
  return guard([&] { put(out, at::mul(ref(a), ref(b))); });
}
const char* Mul_(void* a, void* b, Out out) {
  return guard([&] { put(out, ref(a).mul_(ref(b))); });
}
const char* Div(void* a, void* b, Out out) {
  return guard([&] { put(out, at::div(ref(a), ref(b))); });
}
const char* Div_(void* a, void* b, Out out) {
  return guard([&] { put(out, ref(a).div_(ref(b))); });
}
const char* Eq(void* a, void* b, Out out) {
  return guard([&] { put(out, at::eq(ref(a), ref(b))); });
}

// Reductions.
const char* Mean(void* a, Out out) {
  return guard([&] { put(out, ref(a).mean()); });
}
const char* Sum(void* a, Out out) {
  return guard([&] { put(out, ref(a).sum()); });
}
const char* SumByDim(void* a, int64_t dim, int8_t keep, Out out) {
  return guard([&] { put(out, ref(a).sum(dim, keep != 0)); });
}
const char* Argmin(void* a, int64_t* dim, int8_t keep, Out out) {
  return guard([&] { put(out, dim ? ref(a).argmin(*dim, keep != 0) : ref(a).argmin()); });
}
const char* Argmax(void* a, int64_t* dim, int8_t keep, Out out) {
  return guard([&] { put(out, dim ? ref(a).argmax(*dim, keep != 0) : ref(a).argmax()); });
}
const char* TopK(void* a, int64_t k, int64_t dim, int8_t largest, int8_t sorted, Out values, Out indices) {
  return guard([&] {
    auto [v, i] = at::topk(ref(a), k, dim, largest != 0, sorted != 0);
    put(values, v);
    put(indices, i);
  });
}

// Shape.
const char* Permute(void* a, int64_t* dims, int64_t n, Out out) {
  return guard([&] { put(out, ref(a).permute(ints(dims, n))); });
}
const char* Transpose(void* a, int64_t dim0, int64_t dim1, Out out) {
  return guard([&] { put(out, at::transpose(ref(a), dim0, dim1)); });
}
const char* Flatten(void* a, int64_t start, int64_t end, Out out) {
  return guard([&] { put(out, at::flatten(ref(a), start, end)); });
}
const char* View(void* a, Out out, int64_t* size, int64_t n) {
  return guard([&] { put(out, ref(a).view(ints(size, n))); });
}
const char* ExpandAs(void* a, void* other, Out out) {
  return guard([&] { put(out, ref(a).expand_as(ref(other))); });
}
const char* Squeeze(void* a, Out out) {
  return guard([&] { put(out, ref(a).squeeze()); });
}
const char* SqueezeWithDim(void* a, int64_t dim, Out out) {
  return guard([&] { put(out, ref(a).squeeze(dim)); });
}
const char* Stack(void** tensors, int64_t n, int64_t dim, Out out) {
  return guard([&] { put(out, at::stack(refs(tensors, n), dim)); });
}
const char* IndexSelect(void* a, int64_t dim, void* index, Out out) {
  return guard([&] { put(out, at::index_select(ref(a), dim, ref(index))); });
}
const char* Tensor_Index(void* a, int64_t* index, int64_t n, Out out) {
  return guard([&] {
    at::Tensor t = ref(a);
    for (int64_t i = 0; i < n; i++) t = t.select(0, index[i]);
    put(out, t);
  });
}

// Activations, layers and losses.
const char* Relu(void* a, Out out) {
  return guard([&] { put(out, ref(a).relu()); });
}
const char* LeakyRelu(void* a, double slope, Out out) {
  return guard([&] { put(out, at::leaky_relu(ref(a), slope)); });
}
const char* Tanh(void* a, Out out) {
  return guard([&] { put(out, ref(a).tanh()); });
}
const char* Sigmoid(void* a, Out out) {
  return guard([&] { put(out, ref(a).sigmoid()); });
}
const char* LogSoftmax(void* a, int64_t dim, Out out) {
  return guard([&] { put(out, ref(a).log_softmax(dim)); });
}
const char* FRelu(void* a, int8_t inplace, Out out) {
  return guard([&] { put(out, inplace ? ref(a).relu_() : ref(a).relu()); });
}
const char* FLeakyRelu(void* a, double slope, int8_t inplace, Out out) {
  return guard([&] { put(out, inplace ? at::leaky_relu_(ref(a), slope) : at::leaky_relu(ref(a), slope)); });
}
const char* Linear(void* a, void* weight, void* bias, Out out) {
  return guard([&] { put(out, at::linear(ref(a), ref(weight), opt(bias))); });
}
const char* Conv2d(void* a, void* weight, void* bias, int64_t* stride, int64_t nstride, int64_t* padding,
                   int64_t npadding, int64_t* dilation, int64_t ndilation, int64_t groups, Out out) {
  return guard([&] {
    put(out, at::conv2d(ref(a), ref(weight), opt(bias), ints(stride, nstride), ints(padding, npadding),
                        ints(dilation, ndilation), groups));
  });
}
const char* ConvTranspose2d(void* a, void* weight, void* bias, int64_t* stride, int64_t nstride, int64_t* padding,
                            int64_t npadding, int64_t* output_padding, int64_t noutput, int64_t groups,
                            int64_t* dilation, int64_t ndilation, Out out) {
  return guard([&] {
    put(out, at::conv_transpose2d(ref(a), ref(weight), opt(bias), ints(stride, nstride), ints(padding, npadding),
                                  ints(output_padding, noutput), groups, ints(dilation, ndilation)));
  });
}
const char* BatchNorm(void* a, void* weight, void* bias, void* mean, void* var, int8_t training, double momentum,
                      double eps, Out out) {
  return guard([&] {
    put(out, at::batch_norm(ref(a), opt(weight), opt(bias), opt(mean), opt(var), training != 0, momentum, eps,
                            at::globalContext().userEnabledCuDNN()));
  });
}
const char* MaxPool2d(void* a, int64_t* kernel, int64_t nkernel, int64_t* stride, int64_t nstride, int64_t* padding,
                      int64_t npadding, int64_t* dilation, int64_t ndilation, int8_t ceil_mode, Out out) {
  return guard([&] {
    put(out, at::max_pool2d(ref(a), ints(kernel, nkernel), ints(stride, nstride), ints(padding, npadding),
                            ints(dilation, ndilation), ceil_mode != 0));
  });
}
const char* AdaptiveAvgPool2d(void* a, int64_t* size, int64_t n, Out out) {
  return guard([&] { put(out, at::adaptive_avg_pool2d(ref(a), ints(size, n))); });
}
const char* BinaryCrossEntropy(void* a, void* target, void* weight, const char* reduce, Out out) {
  Given given{const_cast<char*>(reduce)};
  return guard([&] {
    put(out, at::binary_cross_entropy(ref(a), ref(target), opt(weight), reduction(reduce)));
  });
}
const char* CrossEntropy(void* a, void* target, void* weight, int64_t ignore, const char* reduce, Out out) {
  Given given{const_cast<char*>(reduce)};
  return guard([&] {
    put(out, at::cross_entropy_loss(ref(a), ref(target), opt(weight), reduction(reduce), ignore));
  });
}
const char* NllLoss(void* a, void* target, void* weight, int64_t ignore, const char* reduce, Out out) {
  Given given{const_cast<char*>(reduce)};
  return guard([&] {
    put(out, at::nll_loss_nd(ref(a), ref(target), opt(weight), reduction(reduce), ignore));
  });
}

}  // extern "C"
