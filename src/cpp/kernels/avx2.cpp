// The kernels for x86-64 CPUs with AVX2 and PCLMULQDQ: the bodies of scalar.cpp compiled for wider vectors, and those
// that are written for them. Equal to scalar bit for bit. Only C headers, intrinsics and our .inl files are included,
// the latter in an anonymous namespace (style.md, "Kernels").
#include <immintrin.h>

#include "kernels/kernel_table.h"

namespace nadb {
namespace {

constexpr size_t kVectorBytes = 32;  // of the vectors that bodies ask for by width

#include "kernels/float_key.inl"
// clang-format off: the order matters
#include "kernels/keys.inl"
#include "kernels/transpose.inl"
#include "kernels/encode.inl"
#include "kernels/bits.inl"
#include "kernels/accumulate.inl"
#include "kernels/terms.inl"
#include "kernels/pixels.inl"
#include "kernels/columns.inl"
#include "kernels/crc32.inl"
#include "kernels/crc32_folded.inl"
// A box cuts few cells, often less than a vector of 32 bytes holds.
#ifndef __clang__
#pragma GCC push_options
#pragma GCC target("prefer-vector-width=128")
#endif
#include "kernels/cell_bounds.inl"
#ifndef __clang__
#pragma GCC pop_options
#endif
#include "kernels/table.inl"
#include "kernels/bits_avx2.inl"
// clang-format on

// Asked on every CPU, so it must itself do without. __builtin_cpu_supports also asks whether the system saves the
// registers.
__attribute__((target("no-avx,no-pclmul"))) bool has_avx2() noexcept {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("pclmul");
}

constexpr KernelTable make_avx2_table() {
  KernelTable t = make_table("avx2", "x86-64 with AVX2 and PCLMULQDQ", has_avx2);
  t.crc32 = crc32_folded;
  t.unpack[1] = unpack_avx2<1>;
  t.unpack[2] = unpack_avx2<2>;
  t.unpack[3] = unpack_avx2<3>;
  t.unpack[4] = unpack_avx2<4>;
  t.unpack[5] = unpack_avx2<5>;
  t.unpack[6] = unpack_avx2<6>;
  t.unpack[7] = unpack_avx2<7>;
  t.unpack[8] = unpack_avx2<8>;
  t.unpack[9] = unpack_avx2<9>;
  t.unpack[10] = unpack_avx2<10>;
  t.unpack[12] = unpack_avx2<12>;
  t.rank_code = rank_code_avx2;
  return t;
}

}  // namespace

extern const KernelTable kAvx2Kernels;
const KernelTable kAvx2Kernels = make_avx2_table();

}  // namespace nadb
