//go:build !cgotorch_so

// All of hcunet's native code that uses libtorch; adam.cc, planar.cc and the files of Winograd
// have the rest. `go build` compiles them into the program; `make libcgotorch` compiles them
// into a library of its own, for programs built with the tag cgotorch_so.

#if !__has_include(<ATen/ATen.h>) || !__has_include(<torch/torch.h>)
#error hcunet needs libtorch: "sudo apt-get install libtorch-dev", or another way of README.md, section Install
#endif

#include "shim.h"

#include "adam.h"
#include "avx2.h"
#include "cgotorch.h"
#include "convolution.h"
#include "distributed.h"
#include "fused.h"
#include "fused_cpu.h"
#include "graph.h"
#include "memory.h"
#include "meta.h"
#include "reading.h"

#include <ATen/autocast_mode.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/version.h>

#include <limits>

namespace {

c10::Device device(int type, int index) {
  if (type == 0) return c10::Device(c10::kCPU);
  if (type == 2) return c10::Device(c10::kMeta);
  TORCH_CHECK(index >= 0 && index <= std::numeric_limits<c10::DeviceIndex>::max(), "CUDA device ", index, " cannot exist");
  return usable(c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(index)));
}

// The bytes of a dense tensor; checked, unlike libtorch's own product.
size_t bytes_of(at::IntArrayRef shape, at::ScalarType type) {
  uint64_t n = c10::elementSize(type);
  bool empty = false, overflow = false;
  for (int64_t extent : shape) {
    TORCH_CHECK(extent >= 0, "shape ", shape, " has a negative extent");
    empty |= extent == 0;
    overflow |= __builtin_mul_overflow(n, static_cast<uint64_t>(extent), &n);
  }
  TORCH_CHECK(empty || (!overflow && n <= std::numeric_limits<int64_t>::max()), "shape ", shape,
              " has more elements than memory can hold");
  return empty ? 0 : n;
}

c10::IValue value(const hcunet_arg& a, const int64_t* ints_, void* const* tensors) {
  switch (a.tag) {
    case hcunet_none:
      return c10::IValue();
    case hcunet_tensor:
      return ref(a.t);
    case hcunet_int:
      return a.i;
    case hcunet_double:
      return a.d;
    case hcunet_bool:
      return a.i != 0;
    case hcunet_ints:
      return c10::List<int64_t>(ints(ints_ + a.i, a.n));
    case hcunet_tensors:
      return c10::List<at::Tensor>(refs(tensors + a.i, a.n));
    case hcunet_device:
      return device(static_cast<int>(a.i), a.n);
  }
  TORCH_CHECK(false, "unknown argument tag ", a.tag);
}

// On CUDA libtorch rounds the operands of float32 convolutions to TF32, with 10 bits
// of fraction, unless told otherwise. Here float32 means float32.
[[maybe_unused]] const bool exact = (at::globalContext().setAllowTF32CuDNN(false), true);

}  // namespace

extern "C" {

void hcunet_free(void* p) { std::free(p); }
const char* hcunet_torch_version(void) { return TORCH_VERSION; }
int64_t hcunet_live_handles(void) { return live_handles.load(); }
char* hcunet_pending(void) { return pending.take(); }

void hcunet_scope_begin(void) { scope_begin(); }
void hcunet_scope_keep(void* t) { scope_keep(static_cast<at::Tensor*>(t)); }
int64_t hcunet_scope_end(void) { return scope_end(); }

char* hcunet_find(const char* name, const char* overload, void** op, int* returns_list) {
  return caught([&] {
    auto found = c10::Dispatcher::singleton().findSchemaOrThrow(name, overload);
    *returns_list = 0;
    for (const auto& r : found.schema().returns()) *returns_list |= r.type()->kind() == c10::TypeKind::ListType;
    *op = new c10::OperatorHandle(found);
  });
}

char* hcunet_call(void* op, const hcunet_arg* args, int64_t nargs, const int64_t* ints_, void* const* tensors,
                  void** out, int64_t* results) {
  return guard([&] {
    auto& handle = *static_cast<c10::OperatorHandle*>(op);
    torch::jit::Stack stack;
    stack.reserve(handle.schema().arguments().size());
    for (int64_t i = 0; i < nargs; i++) stack.push_back(value(args[i], ints_, tensors));
    handle.schema().checkAndNormalizeInputs(stack);
    handle.callBoxed(stack);
    std::vector<at::Tensor> returned;
    for (auto& v : stack) {
      if (v.isTensor()) {
        returned.push_back(std::move(v).toTensor());
      } else if (v.isTensorList()) {
        for (const auto& t : v.toTensorVector()) returned.push_back(t);
      }
    }
    TORCH_CHECK(static_cast<int64_t>(returned.size()) <= *results, "returned ", returned.size(), " tensors, room is for ",
                *results);
    *results = 0;
    for (auto& t : returned) out[(*results)++] = make(std::move(t));
  });
}

char* hcunet_from_data(const void* data, size_t bytes, int dtype, const int64_t* shape, int64_t dims, int device_type,
                       int device_index, void** out) {
  return guard([&] {
    auto type = static_cast<at::ScalarType>(dtype);
    auto size = ints(shape, dims);
    auto needed = bytes_of(size, type);
    TORCH_CHECK(needed == bytes, "shape ", size, " of ", c10::toString(type), " needs ", needed, " bytes, the slice has ",
                bytes);
    auto target = device(device_type, device_index);
    not_recorded(target, "values were copied to a device");
    // From pinned memory a GPU copies while this thread goes on.
    auto t = at::empty(size, at::TensorOptions(type).pinned_memory(target.is_cuda()));
    if (bytes) std::memcpy(t.data_ptr(), data, bytes);
    put(out, t.to(target, type, /*non_blocking=*/true));
  });
}

char* hcunet_read_begin(void* tensor, int dtype, int later, void** reading, int64_t* n) {
  return guard([&] {
    *reading = new Reading(ref(tensor), static_cast<at::ScalarType>(dtype), later != 0);
    *n = ref(tensor).numel();
  });
}

char* hcunet_read_end(void* reading, void* data, int64_t n) {
  std::unique_ptr<Reading> r(static_cast<Reading*>(reading));
  return guard([&] { r->copy(data, n); });
}

char* hcunet_inspect(void* tensor, hcunet_info* info) {
  return guard([&] {
    auto& t = raw(tensor);
    *info = hcunet_info{};
    if (!t.defined()) return;
    TORCH_CHECK(t.dim() <= HCUNET_MAX_DIMS, "tensor has ", t.dim(), " dimensions, at most ", HCUNET_MAX_DIMS,
                " are supported");
    info->defined = 1;
    info->dtype = static_cast<int32_t>(t.scalar_type());
    info->dims = static_cast<int32_t>(t.dim());
    info->device_type = t.is_cuda() ? 1 : t.is_meta() ? 2 : 0;
    info->device_index = t.is_cuda() ? t.get_device() : 0;
    info->requires_grad = t.requires_grad();
    info->is_leaf = t.is_leaf();
    info->channels_last = t.dim() == 4 && t.is_contiguous(at::MemoryFormat::ChannelsLast);
    for (int64_t i = 0; i < t.dim(); i++) info->shape[i] = t.size(i);
  });
}

int hcunet_fast_convolutions(int on) {
  return fast_convolutions.exchange(on != 0 && avx2());
}

int hcunet_native_bfloat16(int on) { return native_bfloat16.exchange(on != 0); }

char* hcunet_conv2d(void* x, void* w, void* b, int64_t stride, int64_t padding, int64_t dilation, int64_t groups, void** out) {
  return guard([&] {
    std::array<int64_t, 2> strides{stride, stride}, paddings{padding, padding}, dilations{dilation, dilation};
    put(out, hcunet::conv2d(ref(x), ref(w), opt(b), strides, paddings, dilations, groups));
  });
}

char* hcunet_matmul(void* a, void* b, void** out) {
  return guard([&] { put(out, hcunet::matmul(ref(a), ref(b))); });
}

int hcunet_fused_layers(int on) { return fused::wanted.exchange(on != 0); }
char* hcunet_fused(void* x, int* yes) {
  return guard([&] { *yes = fused::type_on_cuda(ref(x)).has_value(); });
}
char* hcunet_conv_relu(void* x, void* w, void* b, int64_t channels, void** out) {
  return guard([&] { put(out, fused::ConvReLU::apply(ref(x), ref(w), fused::bias(b, ref(w)), fused::type_of(ref(x)), channels)); });
}
char* hcunet_upsample(void* x, void* w, void* b, void* skip, int64_t channels, int blur, void** out) {
  return guard([&] {
    put(out, fused::Upsample::apply(ref(x), ref(w), fused::bias(b, ref(w)), ref(skip), fused::type_of(ref(x)), channels, blur != 0));
  });
}
char* hcunet_fused_cpu(void* x, int* yes) {
  return guard([&] { *yes = fused_cpu::takes(ref(x)); });
}
char* hcunet_upsample_cpu(void* x, void* w, void* b, void* skip, int blur, void** out) {
  return guard([&] {
    const auto &kernel = ref(w), from = ref(x).to(fused_cpu::type_of(ref(x))), bias = fused::bias(b, kernel);
    auto joined = skip ? ref(skip) : at::empty({from.size(0), 0, 2 * from.size(2), 2 * from.size(3)}, from.options());
    put(out, fused_cpu::Upsample::apply(from, kernel, bias, joined, blur != 0, fused_cpu::needs_gradient({from, kernel, bias, joined})));
  });
}
char* hcunet_add_relu(void* x, void* y, void** out) {
  return guard([&] { put(out, fused_cpu::AddReLU::apply(ref(x), ref(y), fused_cpu::needs_gradient({ref(x), ref(y)}))); });
}
char* hcunet_resize_bilinear(void* x, int64_t height, int64_t width, void** out) {
  return guard([&] { put(out, fused::ResizeBilinear::apply(ref(x), height, width)); });
}

char* hcunet_set_requires_grad(void* tensor, int on) {
  return guard([&] { ref(tensor).requires_grad_(on != 0); });
}
char* hcunet_backward(void* tensor, int retain_graph) {
  return guard([&] { ref(tensor).backward({}, retain_graph != 0); });
}
char* hcunet_grad(void* tensor, void** out) {
  return guard([&] {
    auto g = ref(tensor).grad();
    *out = g.defined() ? make(g) : nullptr;
  });
}
char* hcunet_set_grad(void* tensor, void* grad) {
  return guard([&] {
    auto& t = ref(tensor);
    if (!grad) {
      t.mutable_grad().reset();
      return;
    }
    auto& g = ref(grad);
    TORCH_CHECK(g.sizes() == t.sizes() && g.scalar_type() == t.scalar_type() && g.device() == t.device(), "a tensor of ",
                t.scalar_type(), t.sizes(), " on ", t.device(), " cannot have a gradient of ", g.scalar_type(), g.sizes(),
                " on ", g.device());
    t.mutable_grad() = g;
  });
}
char* hcunet_set_data(void* tensor, void* data) {
  return guard([&] { ref(tensor).set_data(ref(data)); });
}
int hcunet_grad_mode(int on) {
  int before = at::GradMode::is_enabled();
  if (on >= 0) at::GradMode::set_enabled(on != 0);
  return before;
}

char* hcunet_adam(void* const* params, void* const* grads, void* const* means, void* const* squares, int64_t n, const float numbers[9],
                  int* done) {
  return guard([&] {
    std::vector<at::Tensor> lists[] = {refs(params, n), refs(grads, n), refs(means, n), refs(squares, n)};
    *done = 0;
    if (!avx2()) return;
    constexpr int64_t share = 1 << 16;  // elements that a thread takes at a time
    std::vector<std::pair<int64_t, int64_t>> shares;
    for (int64_t i = 0; i < n; i++) {
      auto &p = lists[0][i], &g = lists[1][i];
      if (g.sizes() == p.sizes() && g.strides() != p.strides()) g = at::empty_like(p).copy_(g);
      for (auto& list : lists) {
        auto& t = list[i];
        if (!t.device().is_cpu() || t.scalar_type() != at::kFloat || !t.is_non_overlapping_and_dense() || t.sizes() != p.sizes() ||
            t.strides() != p.strides())
          return;
      }
      for (int64_t begin = 0; begin < p.numel(); begin += share) shares.emplace_back(i, begin);
    }
    adam::Numbers step{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]};
    at::parallel_for(0, static_cast<int64_t>(shares.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t s = begin; s < end; s++) {
        auto [i, at] = shares[s];
        auto part = [&, i = i, at = at](int list) { return lists[list][i].data_ptr<float>() + at; };
        adam::step(step, std::min(share, lists[0][i].numel() - at), part(0), part(1), part(2), part(3));
      }
    });
    *done = 1;
  });
}

char* hcunet_autocast(int device_type, int on, int dtype, int* previous_on, int* previous_dtype) {
  return caught([&] {
    auto type = static_cast<at::ScalarType>(dtype);
#if TORCH_VERSION_MAJOR * 100 + TORCH_VERSION_MINOR >= 204
    auto d = device_type == 0 ? at::kCPU : at::kCUDA;
    *previous_on = at::autocast::is_autocast_enabled(d);
    *previous_dtype = static_cast<int>(at::autocast::get_autocast_dtype(d));
    at::autocast::set_autocast_enabled(d, on != 0);
    at::autocast::set_autocast_dtype(d, type);
#else
    if (device_type == 0) {
      *previous_on = at::autocast::is_cpu_enabled();
      *previous_dtype = static_cast<int>(at::autocast::get_autocast_cpu_dtype());
      at::autocast::set_cpu_enabled(on != 0);
      at::autocast::set_autocast_cpu_dtype(type);
    } else {
      *previous_on = at::autocast::is_enabled();
      *previous_dtype = static_cast<int>(at::autocast::get_autocast_gpu_dtype());
      at::autocast::set_enabled(on != 0);
      at::autocast::set_autocast_gpu_dtype(type);
    }
#endif
    if (!on) at::autocast::clear_cache();
  });
}

#ifdef HCUNET_C10D

char* hcunet_no_processes(int cuda) { return cuda && no_nccl ? text(no_nccl) : nullptr; }
char* hcunet_store_open(const char* host, int port, int serve, int64_t timeout, void** store) {
  return guard([&] {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port);
    options.isServer = serve != 0;
    options.waitWorkers = false;
    options.timeout = Milliseconds(timeout);
    *store = new Store{c10::make_intrusive<c10d::TCPStore>(host, options)};
  });
}
char* hcunet_store_set(void* store, const char* key, const char* value) {
  return guard([&] {
    static_cast<Store*>(store)->store->set(key, std::vector<uint8_t>(value, value + std::strlen(value)));
  });
}
char* hcunet_store_get(void* store, const char* key, int64_t timeout, char** value) {
  return guard([&] {
    auto& s = *static_cast<Store*>(store)->store;
    *value = nullptr;
    if (timeout > 0) {
      s.wait({key}, Milliseconds(timeout));
    } else if (!s.check({key})) {
      return;
    }
    auto v = s.get(key);
    *value = strndup(reinterpret_cast<const char*>(v.data()), v.size());
  });
}
void hcunet_store_close(void* store) { delete static_cast<Store*>(store); }

char* hcunet_group_open(void* store, const char* backend, const char* name, int rank, int size, int64_t timeout,
                        const char* interface, void** group) {
  return guard([&] {
    auto scoped = c10::make_intrusive<c10d::PrefixStore>(name, static_cast<Store*>(store)->store);
    *group = new Group{std::string(backend) == "nccl" ? nccl_group(scoped, rank, size, Milliseconds(timeout))
                                                      : gloo_group(scoped, rank, size, Milliseconds(timeout), interface)};
  });
}
void hcunet_group_close(void* group) { delete static_cast<Group*>(group); }
char* hcunet_group_sum(void* group, void* const* tensors, int64_t n) {
  return guard([&] { sum(*static_cast<Group*>(group)->group, refs(tensors, n)); });
}
char* hcunet_group_broadcast(void* group, void* const* tensors, int64_t n, int from) {
  return guard([&] {
    for (auto& t : refs(tensors, n)) {
      std::vector<at::Tensor> one{t};
      c10d::BroadcastOptions options;
      options.rootRank = from;
      static_cast<Group*>(group)->group->broadcast(one, options)->wait();
    }
  });
}
char* hcunet_group_gather(void* group, void* tensor, void** out, int64_t n) {
  return guard([&] {
    std::vector<at::Tensor> in{ref(tensor).detach().contiguous()};
    std::vector<std::vector<at::Tensor>> all(1);
    for (int64_t i = 0; i < n; i++) all[0].push_back(at::empty_like(in[0]));
    static_cast<Group*>(group)->group->allgather(all, in)->wait();
    for (int64_t i = 0; i < n; i++) out[i] = make(all[0][i]);
  });
}
char* hcunet_group_barrier(void* group) {
  return guard([&] { static_cast<Group*>(group)->group->barrier()->wait(); });
}
char* hcunet_group_sum_with_gradient(void* group, void* tensor, void** out) {
  return guard([&] { put(out, AllSum::apply(ref(tensor), static_cast<Group*>(group)->group)); });
}
char* hcunet_reducer_open(void* group, void* const* params, int64_t n, int64_t bucket_bytes, void** out) {
  return guard([&] {
    auto r = std::make_shared<Reducer>(static_cast<Group*>(group)->group, refs(params, n), static_cast<size_t>(bucket_bytes));
    r->watch();
    *out = new std::shared_ptr<Reducer>(std::move(r));
  });
}
char* hcunet_reducer_prepare(void* reducer) {
  return guard([&] { (*static_cast<std::shared_ptr<Reducer>*>(reducer))->prepare(); });
}
char* hcunet_reducer_finish(void* reducer) {
  return guard([&] { (*static_cast<std::shared_ptr<Reducer>*>(reducer))->finish(); });
}
void hcunet_reducer_close(void* reducer) { delete static_cast<std::shared_ptr<Reducer>*>(reducer); }

#else

char* hcunet_no_processes(int) {
  return text("this program was built without process groups: install Gloo's headers, which no libtorch brings (libgloo-dev of "
              "Debian and Ubuntu), and build again with go build -a");
}
char* hcunet_store_open(const char*, int, int, int64_t, void**) { return hcunet_no_processes(0); }
char* hcunet_store_set(void*, const char*, const char*) { return hcunet_no_processes(0); }
char* hcunet_store_get(void*, const char*, int64_t, char**) { return hcunet_no_processes(0); }
void hcunet_store_close(void*) {}
char* hcunet_group_open(void*, const char*, const char*, int, int, int64_t, const char*, void**) { return hcunet_no_processes(0); }
void hcunet_group_close(void*) {}
char* hcunet_group_sum(void*, void* const*, int64_t) { return hcunet_no_processes(0); }
char* hcunet_group_broadcast(void*, void* const*, int64_t, int) { return hcunet_no_processes(0); }
char* hcunet_group_gather(void*, void*, void**, int64_t) { return hcunet_no_processes(0); }
char* hcunet_group_barrier(void*) { return hcunet_no_processes(0); }
char* hcunet_group_sum_with_gradient(void*, void*, void**) { return hcunet_no_processes(0); }
char* hcunet_reducer_open(void*, void* const*, int64_t, int64_t, void**) { return hcunet_no_processes(0); }
char* hcunet_reducer_prepare(void*) { return hcunet_no_processes(0); }
char* hcunet_reducer_finish(void*) { return hcunet_no_processes(0); }
void hcunet_reducer_close(void*) {}

#endif

int64_t hcunet_release_memory(void) { return static_cast<int64_t>(release_memory()); }
char* hcunet_seed(uint64_t seed) {
  return guard([&] { at::manual_seed(seed); });
}
void hcunet_set_threads(int n) { SetNumThreads(n); }
int hcunet_threads(void) {
  take_threads();
  return at::get_num_threads();
}
int hcunet_blas_threads(void) { return blas_threads(); }
int hcunet_cuda_devices(void) { return torch::cuda::is_available() ? static_cast<int>(torch::cuda::device_count()) : 0; }
char* hcunet_cuda_synchronize(int index) {
  return guard([&] { torch::cuda::synchronize(device(1, index).index()); });
}
char* hcunet_no_graphs(void) { return no_graphs ? text(no_graphs) : nullptr; }
char* hcunet_graph_begin(int index, void** graph) {
  return guard([&] { *graph = new Graph(device(1, index).index()); });
}
char* hcunet_graph_end(void* graph) {
  return guard([&] { static_cast<Graph*>(graph)->end(); });
}
char* hcunet_graph_replay(void* graph) {
  return guard([&] { static_cast<Graph*>(graph)->replay(); });
}
void hcunet_graph_free(void* graph) { delete static_cast<Graph*>(graph); }
void hcunet_search_convolutions(int on) { at::globalContext().setBenchmarkCuDNN(on != 0); }

}  // extern "C"
