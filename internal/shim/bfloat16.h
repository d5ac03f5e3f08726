// Numbers in bfloat16, for code that knows nothing of libtorch.
#pragma once

#include <cstdint>

namespace hcunet {

// The upper half of a float32.
struct BFloat16 {
  uint16_t bits;
};

}  // namespace hcunet
