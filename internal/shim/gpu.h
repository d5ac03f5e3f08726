// Runs the loops of kernels.h on CUDA devices.
//
// They are compiled at their first use by NVRTC, for the device at hand, so that the
// build needs neither nvcc nor CUDA's headers. The few functions of NVRTC and of the
// driver are declared here; both libraries come with libtorch's libcaffe2_nvrtc.so.
#pragma once

#include "kernels.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <dlfcn.h>

#include <array>
#include <map>
#include <mutex>
#include <string>

namespace hcunet {

namespace gpu {

// What goes before the loops: the elements of a type, and the kernels that call the loops.
constexpr const char* elements_of_bfloat16 = R"(
static __device__ void unpack(unsigned v, float* f) { f[0] = __uint_as_float(v << 16); f[1] = __uint_as_float(v & 0xffff0000u); }
static __device__ unsigned pack(float a, float b) { unsigned v; asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(b), "f"(a)); return v; }
)";
constexpr const char* elements_of_float16 = R"(
static __device__ void unpack(unsigned v, float* f) {
  asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h;}" : "=f"(f[0]), "=f"(f[1]) : "r"(v));
}
static __device__ unsigned pack(float a, float b) { unsigned v; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(v) : "f"(b), "f"(a)); return v; }
)";
constexpr const char* before = R"(
typedef unsigned short T;
#define HCUNET_LOOP static __device__
static __device__ float load1(const T* p) { float f[2]; unpack(*p, f); return f[0]; }
static __device__ void load2(const T* p, float* f) { unpack(*(const unsigned*)p, f); }
static __device__ void load8(const T* p, float* f) {
  uint4 v = *(const uint4*)p;
  unpack(v.x, f); unpack(v.y, f + 2); unpack(v.z, f + 4); unpack(v.w, f + 6);
}
static __device__ void store2(T* p, float a, float b) { *(unsigned*)p = pack(a, b); }
static __device__ void store8(T* p, const float* f) {
  *(uint4*)p = make_uint4(pack(f[0], f[1]), pack(f[2], f[3]), pack(f[4], f[5]), pack(f[6], f[7]));
}
)";
// The sums of a thread are of the same eight channels all the time: it goes on by a
// multiple of the number of groups of channels. The sums of a block meet in its shared memory.
constexpr const char* after = R"(
#define SUMMED(loop)                                                                     \
  extern __shared__ float block[];                                                       \
  unsigned t = blockIdx.x * blockDim.x + threadIdx.x, all = gridDim.x * blockDim.x / groups * groups; \
  for (unsigned c = threadIdx.x; c < groups * 8; c += blockDim.x) block[c] = 0.f;        \
  __syncthreads();                                                                       \
  if (t < all) {                                                                         \
    float sums[8] = {0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f, 0.f};                            \
    for (unsigned i = t; i < n; i += all) loop;                                          \
    for (int k = 0; k < 8; k++) atomicAdd(block + t % groups * 8 + k, sums[k]);          \
  }                                                                                      \
  __syncthreads();                                                                       \
  for (unsigned c = threadIdx.x; c < groups * 8; c += blockDim.x) atomicAdd(total + c, block[c]);
extern "C" __global__ void __launch_bounds__(256) join_kernel(unsigned n, const T* u, const T* s, T* y, Shape z) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) join(i, u, s, y, z);
}
extern "C" __global__ void __launch_bounds__(256) join_back_kernel(unsigned n, const T* g, const T* u, T* du, Shape z, unsigned groups, float* total) {
  SUMMED(join_back(i, g, u, du, z, sums))
}
extern "C" __global__ void __launch_bounds__(256) relu_back_kernel(unsigned n, const T* g, const T* y, T* to, unsigned groups, float* total) {
  SUMMED(relu_back(i, g, y, to, sums))
}
)";

// Functions of libnvrtc and of libcuda; a result of 0 is success.
struct Functions {
  int (*create)(void** program, const char* text, const char* name, int headers, const char* const*, const char* const*);
  int (*compile)(void* program, int options, const char* const*);
  int (*log_size)(void* program, size_t*);
  int (*log)(void* program, char*);
  int (*cubin_size)(void* program, size_t*);
  int (*cubin)(void* program, char*);
  int (*destroy)(void** program);
  int (*attribute)(int* value, int attribute, int device);
  int (*load)(void** module, const void* cubin);
  int (*function)(void** function, void* module, const char* name);
  int (*launch)(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                void* stream, void** arguments, void** extra);
};

inline const Functions& functions() {
  static const Functions f = [] {
    void* library = dlopen("libcaffe2_nvrtc.so", RTLD_NOW);
    TORCH_CHECK(library, "no libcaffe2_nvrtc.so: ", dlerror());
    auto find = [&](const char* name, auto& to) {
      to = reinterpret_cast<std::remove_reference_t<decltype(to)>>(dlsym(library, name));
      TORCH_CHECK(to, "no ", name, ": ", dlerror());
    };
    Functions f;
    find("nvrtcCreateProgram", f.create), find("nvrtcCompileProgram", f.compile), find("nvrtcDestroyProgram", f.destroy);
    find("nvrtcGetProgramLogSize", f.log_size), find("nvrtcGetProgramLog", f.log);
    find("nvrtcGetCUBINSize", f.cubin_size), find("nvrtcGetCUBIN", f.cubin);
    find("cuDeviceGetAttribute", f.attribute), find("cuModuleLoadData", f.load), find("cuModuleGetFunction", f.function);
    find("cuLaunchKernel", f.launch);
    return f;
  }();
  return f;
}

// The compiled kernels of one device and element type.
class Module {
 public:
  enum Kernel { join, join_back, relu_back };

  Module(int device, at::ScalarType type) {
    auto& f = functions();
    int major = 0, minor = 0;
    constexpr int multiprocessors = 16, capability_major = 75, capability_minor = 76;  // CUdevice_attribute
    check(f.attribute(&major, capability_major, device), "cuDeviceGetAttribute");
    check(f.attribute(&minor, capability_minor, device), "cuDeviceGetAttribute");
    check(f.attribute(&multiprocessors_, multiprocessors, device), "cuDeviceGetAttribute");
    TORCH_CHECK(major >= 8, "the device has compute capability ", major, ".", minor, ", wanted 8.0 or newer");
    std::string text = type == at::kHalf ? elements_of_float16 : elements_of_bfloat16;
    text = text + before + kernels_text + after;
    void* program = nullptr;
    check(f.create(&program, text.c_str(), "hcunet.cu", 0, nullptr, nullptr), "nvrtcCreateProgram");
    std::string architecture = "--gpu-architecture=sm_" + std::to_string(major * 10 + minor);
    std::array<const char*, 2> options{architecture.c_str(), "--std=c++17"};
    int failed = f.compile(program, options.size(), options.data());
    size_t size = 0;
    if (failed) {
      check(f.log_size(program, &size), "nvrtcGetProgramLogSize");
      std::string log(size, ' ');
      check(f.log(program, log.data()), "nvrtcGetProgramLog");
      f.destroy(&program);
      TORCH_CHECK(false, "compiling hcunet's kernels: ", log);
    }
    check(f.cubin_size(program, &size), "nvrtcGetCUBINSize");
    std::string cubin(size, 0);
    check(f.cubin(program, cubin.data()), "nvrtcGetCUBIN");
    f.destroy(&program);
    void* module = nullptr;
    check(f.load(&module, cubin.data()), "cuModuleLoadData");
    for (auto [kernel, name] : {std::pair(join, "join_kernel"), {join_back, "join_back_kernel"}, {relu_back, "relu_back_kernel"}})
      check(f.function(&kernels_[kernel], module, name), "cuModuleGetFunction");
  }

  // Runs n threads, or as many as the device holds at a time, which then do several's work.
  template <class... Arguments>
  void run(Kernel kernel, const c10::Device& device, unsigned n, unsigned shared, Arguments... arguments) const {
    constexpr unsigned block = 256, blocks_of_a_multiprocessor = 8;
    unsigned grid = std::min((n + block - 1) / block, multiprocessors_ * blocks_of_a_multiprocessor);
    void* list[] = {&n, &arguments...};
    c10::DeviceGuard current(device);
    c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    check(functions().launch(kernels_[kernel], grid, 1, 1, block, 1, 1, shared, stream(guard, device), list, nullptr), "cuLaunchKernel");
  }

 private:
  static void check(int result, const char* what) { TORCH_CHECK(result == 0, what, ": error ", result); }

  // Older versions of libtorch cannot tell CUDA's name of a stream.
  template <class Guard>
  static void* stream(const Guard& guard, const c10::Device& device) {
    if constexpr (requires { guard.getStreamNativeHandle(guard.getStream(device)); })
      return guard.getStreamNativeHandle(guard.getStream(device));
    else
      TORCH_CHECK(false, "this libtorch is too old for hcunet's kernels");
  }

  std::array<void*, 3> kernels_{};
  int multiprocessors_ = 0;
};

inline const Module& module(const c10::Device& device, at::ScalarType type) {
  static std::mutex mutex;
  static std::map<std::pair<int, at::ScalarType>, std::unique_ptr<Module>> modules;
  std::lock_guard<std::mutex> lock(mutex);
  auto& m = modules[{device.index(), type}];
  c10::DeviceGuard current(device);  // a module belongs to the current device
  if (!m) m = std::make_unique<Module>(device.index(), type);
  return *m;
}

}  // namespace gpu

}  // namespace hcunet
