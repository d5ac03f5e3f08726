// Process groups: libtorch's c10d with Gloo on the CPU and NCCL on CUDA.
//
// A backend is compiled in where its headers are: NCCL where scripts/libtorch finds all of
// them and defines HCUNET_NCCL. Where they are not, its functions stay and say what to
// install, so that a program that never asks for several processes builds and links without
// them.
#pragma once

#include "guard.h"

#include <string>

#if __has_include(<torch/csrc/distributed/c10d/TCPStore.hpp>) && __has_include(<gloo/algorithm.h>)
#define HCUNET_C10D 1
#define USE_C10D_GLOO
#ifdef HCUNET_NCCL
#define USE_C10D_NCCL
#endif
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#ifdef USE_C10D_NCCL
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/version.h>
#endif

namespace hcunet {

#ifdef HCUNET_C10D

#ifdef USE_C10D_NCCL
inline constexpr const char* no_nccl = nullptr;
#else
inline constexpr const char* no_nccl =
    "this program was built without NCCL: run scripts/libtorch with a libtorch for CUDA, which says what headers are missing, and "
    "build with go build -a";
#endif

using Milliseconds = std::chrono::milliseconds;

struct Store {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

struct Group {
  c10::intrusive_ptr<c10d::ProcessGroup> group;
};

inline c10::intrusive_ptr<c10d::ProcessGroup> gloo_group(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                   Milliseconds timeout, const std::string& interface) {
  auto options = c10d::ProcessGroupGloo::Options::create(timeout);
  options->devices.push_back(interface.empty() ? c10d::ProcessGroupGloo::createDefaultDevice()
                                               : c10d::ProcessGroupGloo::createDeviceForInterface(interface));
  options->threads = 2;
  auto backend = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank, size, options);
#if TORCH_VERSION_MAJOR >= 2
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
  group->setBackend(c10::kCPU, c10d::ProcessGroup::BackendType::GLOO, backend);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::GLOO);
  return group;
#else
  return backend;
#endif
}

inline c10::intrusive_ptr<c10d::ProcessGroup> nccl_group(const c10::intrusive_ptr<c10d::Store>& store, int rank, int size,
                                                   Milliseconds timeout) {
#ifdef USE_C10D_NCCL
  auto options = c10d::ProcessGroupNCCL::Options::create();
  options->timeout = timeout;
  auto backend = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, rank, size, options);
#if TORCH_VERSION_MAJOR >= 2
  auto group = c10::make_intrusive<c10d::ProcessGroup>(store, rank, size);
  group->setBackend(c10::kCUDA, c10d::ProcessGroup::BackendType::NCCL, backend);
  group->setDefaultBackend(c10d::ProcessGroup::BackendType::NCCL);
  return group;
#else
  return backend;
#endif
#else
  TORCH_CHECK(false, no_nccl);
#endif
}

// Replaces each tensor by its sum over all ranks.
inline void sum(c10d::ProcessGroup& group, std::vector<at::Tensor> tensors) {
  std::vector<c10::intrusive_ptr<c10d::Work>> works;
  for (auto& t : tensors) {
    std::vector<at::Tensor> one{t};
    works.push_back(group.allreduce(one));
  }
  for (auto& w : works) w->wait();
}

// The sum of a tensor over all ranks, with gradients: what any rank computes from
// the sum depends on every rank's summand, so the gradients are summed, too.
struct AllSum : torch::autograd::Function<AllSum> {
  using Shared = c10::intrusive_ptr<c10d::ProcessGroup>;
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, at::Tensor x, Shared group) {
    ctx->saved_data["group"] = c10::IValue::make_capsule(group);
    auto y = x.contiguous().clone();
    sum(*group, {y});
    return y;
  }
  static torch::autograd::tensor_list backward(torch::autograd::AutogradContext* ctx,
                                               torch::autograd::tensor_list grads) {
    auto group = c10::static_intrusive_pointer_cast<c10d::ProcessGroup>(ctx->saved_data["group"].toCapsule());
    auto g = grads[0].contiguous().clone();
    sum(*group, {g});
    return {g, at::Tensor()};
  }
};

// Sums gradients over all ranks in buckets, each as soon as its gradients are
// there, while the backward pass goes on with the others.
//
// Source: S. Li et al. 2020, https://arxiv.org/abs/2006.15704. libtorch's own
// Reducer needs a header that Debian's package lacks.
class Reducer : public std::enable_shared_from_this<Reducer> {
 public:
  Reducer(c10::intrusive_ptr<c10d::ProcessGroup> group, std::vector<at::Tensor> params, size_t bucket_bytes)
      : group_(std::move(group)), params_(std::move(params)), bucket_of_(params_.size()) {
    // The last parameters have their gradients first.
    size_t bytes = 0;
    for (size_t i = params_.size(); i-- > 0;) {
      TORCH_CHECK(params_[i].is_leaf() && params_[i].requires_grad(), "parameter ", i, " is not trained");
      auto same = !buckets_.empty() && params_[i].options().type_equal(params_[buckets_.back().members[0]].options());
      if (buckets_.empty() || bytes >= bucket_bytes || !same) {
        buckets_.emplace_back();
        bytes = 0;
      }
      buckets_.back().members.push_back(i);
      bucket_of_[i] = buckets_.size() - 1;
      bytes += params_[i].nbytes();
    }
  }

  // Watches the gradients; apart from the constructor, as it needs weak_from_this.
  void watch() {
    for (size_t i = 0; i < params_.size(); i++) {
      auto node = torch::autograd::impl::grad_accumulator(params_[i]);
      node->add_post_hook(std::make_unique<Hook>(weak_from_this(), i));
      accumulators_.push_back(std::move(node));  // with its hook, as long as the reducer
    }
  }

  // The next backward pass is the one whose gradients count.
  void prepare() {
    std::lock_guard<std::mutex> lock(mutex_);
    for (auto& b : buckets_) b.missing = b.members.size();
    sent_ = 0;
    armed_ = true;
  }

  // Waits until every gradient is the sum over the ranks.
  void finish() {
    std::lock_guard<std::mutex> lock(mutex_);
    TORCH_CHECK(armed_, "the reducer was not prepared before the backward pass");
    armed_ = false;
    for (auto& b : buckets_)
      for (size_t i : b.members) TORCH_CHECK(params_[i].grad().defined(), "parameter ", i, " of ", params_[i].sizes(), " has no gradient");
    while (sent_ < buckets_.size()) send();
    at::NoGradGuard no_grad;
    for (auto& b : buckets_) {
      b.work->wait();
      int64_t at = 0;
      for (size_t i : b.members) {
        auto& grad = params_[i].mutable_grad();
        grad.copy_(b.flat.narrow(0, at, grad.numel()).view_as(grad));
        at += grad.numel();
      }
      b.flat.reset();
      b.work.reset();
    }
  }

 private:
  struct Hook : torch::autograd::FunctionPostHook {
    std::weak_ptr<Reducer> reducer;
    size_t param;
    Hook(std::weak_ptr<Reducer> r, size_t i) : reducer(std::move(r)), param(i) {}
    torch::autograd::variable_list operator()(const torch::autograd::variable_list& outputs,
                                              const torch::autograd::variable_list&) override {
      if (auto r = reducer.lock()) r->ready(param);
      return outputs;
    }
  };
  struct Bucket {
    std::vector<size_t> members;
    size_t missing = 0;
    at::Tensor flat;
    c10::intrusive_ptr<c10d::Work> work;
  };

  void ready(size_t i) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!armed_) return;
    buckets_[bucket_of_[i]].missing--;
    // In the buckets' order, which is the same on every rank.
    while (sent_ < buckets_.size() && buckets_[sent_].missing == 0) send();
  }

  void send() {
    at::NoGradGuard no_grad;
    auto& b = buckets_[sent_++];
    std::vector<at::Tensor> grads;
    for (size_t i : b.members) grads.push_back(params_[i].grad().reshape(-1));
    b.flat = at::cat(grads);
    std::vector<at::Tensor> one{b.flat};
    b.work = group_->allreduce(one);
  }

  c10::intrusive_ptr<c10d::ProcessGroup> group_;
  std::vector<at::Tensor> params_;
  std::vector<size_t> bucket_of_;
  std::vector<Bucket> buckets_;
  // A shared pointer to a node; which kind depends on libtorch's version.
  std::vector<decltype(torch::autograd::impl::grad_accumulator(at::Tensor()))> accumulators_;
  std::mutex mutex_;
  size_t sent_ = 0;
  bool armed_ = false;
};

#endif

}  // namespace hcunet
