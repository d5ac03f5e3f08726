// Values of a tensor in this process's memory, which may be on their way from a device.
#pragma once

#include "graph.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <cstring>
#include <optional>
#include <thread>

namespace hcunet {

class Reading {
 public:
  // Asks for the values of t, converted to type, as they are after the operations that its
  // device was given so far. With later set, t may change before they are used.
  Reading(const at::Tensor& t, at::ScalarType type, bool later) {
    not_recorded(t.device(), "values were read from a device");
    auto from = t.detach().to(type);
    if (from.is_cuda()) {
      values_ = at::empty(from.sizes(), at::TensorOptions(type).pinned_memory(true));  // the driver needs no buffer of its own
      values_.copy_(from, /*non_blocking=*/true);
      copied_.emplace(from.device().type());
      copied_->record(c10::impl::VirtualGuardImpl(from.device().type()).getStream(from.device()));
    } else {
      values_ = from.cpu().contiguous();
      if (later && values_.is_alias_of(t)) values_ = values_.clone();
    }
  }

  // Waits for the n values, and for no later operation.
  void copy(void* to, int64_t n) const {
    TORCH_CHECK(n == values_.numel(), "a tensor of shape ", values_.sizes(), ", the slice has ", n, " elements");
    while (copied_ && !copied_->query()) std::this_thread::yield();
    if (n) std::memcpy(to, values_.data_ptr(), values_.nbytes());
  }

 private:
  at::Tensor values_;  // contiguous, on the CPU
  std::optional<c10::Event> copied_;
};

}  // namespace hcunet
