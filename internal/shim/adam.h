// A step of Adam in one pass over the memory, for float32 on a CPU with AVX2. libtorch's
// operators make 20 passes.
#pragma once

#include <cstdint>

namespace hcunet::adam {

// The numbers of a step. The first moments, the second moments and the parameters become
//
//	m = beta1 m + rest1 g,  v = beta2 v + rest2 g g,
//	p = keep p - size m / (sqrt(v) / root + eps)
//
// where rest1 is 1 - beta1, rest2 is 1 - beta2, and g is the gradient plus l2 times the
// parameter before the step.
struct Numbers {
  float beta1, rest1, beta2, rest2, size, root, eps, keep, l2;
};

// Only for a processor for which avx2() is true.
void step(const Numbers& numbers, int64_t n, float* p, const float* g, float* m, float* v);

}  // namespace hcunet::adam
