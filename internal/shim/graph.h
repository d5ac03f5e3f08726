// CUDA graphs: operations of a device that are recorded once and repeated by one call.
//
// This is compiled in where scripts/libtorch finds CUDA's headers and defines HCUNET_CUDA.
// Where it does not, begin says so.
#pragma once

#include "guard.h"

#ifdef HCUNET_CUDA
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/cuda.h>
#endif

namespace hcunet {

// Whether this thread records. Meanwhile it must not exchange values with a device: a
// repetition would read memory that has other values by then.
inline thread_local bool recording = false;

inline void not_recorded(const c10::Device& d, const char* what) {
  TORCH_CHECK(!d.is_cuda() || !recording, what, " while operations are recorded");
}

#ifdef HCUNET_CUDA

inline constexpr const char* no_graphs = nullptr;

// A graph keeps the memory of the tensors that were made while it was recorded.
class Graph {
 public:
  // Records what this thread and its backward passes do on the device until end.
  explicit Graph(int device) : before_(c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device))) {
    torch::cuda::synchronize(device);
    c10::cuda::CUDACachingAllocator::emptyCache();  // the recording takes memory of its own
    c10::cuda::setCurrentCUDAStream(c10::cuda::getStreamFromPool(false, static_cast<c10::DeviceIndex>(device)));
    try {
      begin(graph_);
    } catch (...) {
      c10::cuda::setCurrentCUDAStream(before_);
      throw;
    }
    recording = true;
  }
  void end() {
    recording_ = recording = false;
    try {
      graph_.capture_end();
    } catch (...) {
      c10::cuda::setCurrentCUDAStream(before_);
      throw;
    }
    c10::cuda::setCurrentCUDAStream(before_);
  }
  void replay() {
    TORCH_CHECK(!recording_, "a graph that is being recorded cannot be repeated");
    c10::cuda::CUDAGuard guard(before_.device());
    graph_.replay();
  }

 private:
  // Other threads may use the device meanwhile, which older versions of libtorch forbid.
  template <class CUDAGraph>
  static void begin(CUDAGraph& graph) {
    if constexpr (requires { graph.capture_begin(c10::MempoolId_t{}, cudaStreamCaptureModeThreadLocal); })
      graph.capture_begin(c10::MempoolId_t{}, cudaStreamCaptureModeThreadLocal);
    else
      graph.capture_begin();
  }

  c10::cuda::CUDAStream before_;
  at::cuda::CUDAGraph graph_;
  bool recording_ = true;
};

#else

inline constexpr const char* no_graphs =
    "this program was built without CUDA's headers, which graphs need: install them (nvidia-cuda-runtime and nvidia-cuda-crt by "
    "pip, or the CUDA toolkit), run scripts/libtorch again, and build with go build -a";

struct Graph {
  explicit Graph(int) { TORCH_CHECK(false, no_graphs); }
  void end() {}
  void replay() {}
};

#endif

}  // namespace hcunet
