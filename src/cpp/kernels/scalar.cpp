// The kernels for the lowest CPU of the platform: always compiled, and the specification that every other target must
// equal bit for bit. Only C headers and our .inl files are included, all in an anonymous namespace (style.md,
// "Kernels").
#include "kernels/kernel_table.h"

namespace nadb {
namespace {

constexpr size_t kVectorBytes = 16;  // of the vectors that bodies ask for by width

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
#include "kernels/cell_bounds.inl"
#include "kernels/table.inl"
// clang-format on

bool always() noexcept { return true; }

}  // namespace

extern const KernelTable kScalarKernels;
const KernelTable kScalarKernels = make_table("scalar", "baseline of the platform", always);

}  // namespace nadb
