// Values on their way from a device, which this process waits for later.
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
  // Asks for the values of t as they are after the operations that its device was given so far.
  explicit Reading(const at::Tensor& t) {
    not_recorded(t.device(), "values were read from a device");
    auto from = t.detach().to(at::kDouble);
    if (!t.is_cuda()) {
      values_ = from.cpu().contiguous().clone();
      return;
    }
    values_ = at::empty(from.sizes(), at::TensorOptions(at::kDouble).pinned_memory(true));
    values_.copy_(from, /*non_blocking=*/true);
    copied_.emplace(t.device().type());
    copied_->record(c10::impl::VirtualGuardImpl(t.device().type()).getStream(t.device()));
  }

  int64_t size() const { return values_.numel(); }

  // Waits for the values, and for no later operation.
  void read(double* to) const {
    while (copied_ && !copied_->query()) std::this_thread::yield();
    if (size()) std::memcpy(to, values_.data_ptr(), values_.nbytes());
  }

 private:
  at::Tensor values_;  // in this process's memory
  std::optional<c10::Event> copied_;
};

}  // namespace hcunet
