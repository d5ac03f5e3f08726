// Kernels on the meta device for the operators of which libtorch has none (1.13:
// convolutions, norms, lists of tensors, ...). They run on the CPU on zeros of the
// operands' shapes, and the results become shapes. Views and what returns a number
// have none here.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

namespace hcunet {

inline at::Tensor zeros_of(const c10::OperatorHandle& op, const at::Tensor& t) {
  if (!t.defined()) return t;
  TORCH_CHECK(t.is_meta(), op.schema().name(), ": expected all tensors to be on the same device, meta, but one is on ", t.device());
  return at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kCPU)).zero_();
}

inline at::Tensor shape_of(const c10::OperatorHandle&, const at::Tensor& t) {
  return t.defined() ? at::empty_strided(t.sizes(), t.strides(), t.options().device(at::kMeta)) : t;
}

// Replaces the last n values of the stack, where they are or hold tensors.
template <class F>
void replace(const c10::OperatorHandle& op, torch::jit::Stack* stack, size_t n, F f) {
  for (auto v = stack->end() - n; v != stack->end(); ++v) {
    if (v->isTensor()) {
      *v = f(op, v->toTensor());
    } else if (v->isTensorList()) {
      c10::List<at::Tensor> list;
      for (const at::Tensor& t : v->toTensorVector()) list.push_back(f(op, t));
      *v = list;
    }
  }
}

// The operand that a result is written into, or nullptr.
inline const c10::IValue* written(const c10::FunctionSchema& schema, const c10::Argument& result, const std::vector<c10::IValue>& operands) {
  if (!result.alias_info()) return nullptr;
  for (size_t i = 0; i < operands.size(); ++i) {
    const c10::AliasInfo* a = schema.arguments()[i].alias_info();
    if (a && a->isWrite() && a->beforeSets() == result.alias_info()->beforeSets()) return &operands[i];
  }
  return nullptr;
}

inline void on_zeros(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const c10::FunctionSchema& schema = op.schema();
  const std::vector<c10::IValue> operands(stack->end() - schema.arguments().size(), stack->end());
  replace(op, stack, operands.size(), zeros_of);
  op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  replace(op, stack, schema.returns().size(), shape_of);
  auto result = stack->end() - schema.returns().size();
  for (const c10::Argument& r : schema.returns()) {
    if (const c10::IValue* o = written(schema, r, operands)) {
      o->toTensor().resize_(result->toTensor().sizes());
      *result = *o;
    }
    ++result;
  }
}

inline bool returns_tensors(const c10::FunctionSchema& schema) {
  for (const c10::Argument& r : schema.returns())
    if ((r.alias_info() && !r.alias_info()->isWrite()) ||
        !(r.type()->isSubtypeOf(*c10::TensorType::get()) || r.type()->isSubtypeOf(*c10::ListType::ofTensors())))
      return false;
  return true;
}

}  // namespace hcunet

// libtorch has registered its own kernels before this runs.
TORCH_LIBRARY_IMPL(aten, Meta, m) {
  c10::Dispatcher& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    auto op = dispatcher.findSchema(name);
    // Convolutions choose their backend by device themselves, and find none for meta.
    bool convolution = name.name == "aten::convolution" || name.name == "aten::convolution_backward";
    if (op && name.name.rfind("aten::", 0) == 0 && !op->hasKernelForDispatchKey(c10::DispatchKey::Meta) &&
        (convolution || op->hasKernelForDispatchKey(c10::DispatchKey::CPU)) && hcunet::returns_tensors(op->schema()))
      m.impl(c10::toString(name).c_str(), torch::CppFunction::makeFromBoxedFunction<&hcunet::on_zeros>());
  }
}
