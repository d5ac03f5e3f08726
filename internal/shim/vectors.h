// Vectors of eight numbers of float32, which are read from and written to memory as float32 or
// bfloat16. Include it after #pragma GCC target("avx2").
#pragma once

#include "bfloat16.h"

#include <immintrin.h>

namespace hcunet {

using Vector = __m256;

inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }

inline Vector load(const BFloat16* p) {
  __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

// Rounds to the nearest number of bfloat16, to the even one between two. Adding one less than half
// of the last place that stays, and one more if that place is odd, does so; it could make an
// infinity of what is not a number.
inline __m128i rounded(Vector v) {
  __m256i bits = _mm256_castps_si256(v);
  __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  bits = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7fc0), nan);
  return _mm256_castsi256_si128(_mm256_permute4x64_epi64(_mm256_packus_epi32(bits, bits), 0x08));
}

inline void store(BFloat16* p, Vector v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), rounded(v)); }

}  // namespace hcunet
