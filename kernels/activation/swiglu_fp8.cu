// swiglu_fp8: 4 bytes read and 1 written an element of 16 bits. Rows as quantize_rows.cuh takes them, or the two calls.
#include "activation/glu.cuh"
#include "fla/validate.h"
#include "quantize/quantize_rows.cuh"

namespace fla {

using namespace detail;

namespace {

struct SwigluRows {
  template <class T>
  struct Held {
    Vector<T, 8> x, y;

    FLA_DEVICE void read(const QuantizeArgs& a, RowAt row, int vector) {
      x = load<T, 8>(static_cast<const T*>(a.x.data.data) + row.in(a.x) + vector * 8);
      y = load<T, 8>(static_cast<const T*>(a.second.data.data) + row.in(a.second) + vector * 8);
    }
    FLA_DEVICE Vector<T, 8> values() const {
      float in_x[8], in_y[8], out[8];
      unpack(x, in_x);
      unpack(y, in_y);
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) {
        const float in[2] = {in_x[e], in_y[e]};
        float z[1];
        Unit<SwishGate>{}(math::Forms<true>{}, in, z);
        out[e] = z[0];
      }
      return pack<T, 8>(out);
    }
  };
};

GluForward unit_of(const SwigluFp8Forward& a, const Tensor& z) {
  return {.kind = GatedUnit::swiglu, .x = a.x, .y = a.y, .z = z};
}

bool is_one_kernel(const SwigluFp8Forward& a) {
  const bool short_enough = a.scaling == Fp8Scaling::block || a.x.size[1] <= 8 * kMostQuantizedVectors;
  return size_of(a.x.dtype) == 2 && a.y.dtype == a.x.dtype && short_enough && codes_allow_vectors(a.q) &&
         all_rows_allow(8, a.x, a.y, a.z);
}

}  // namespace

Status check(const SwigluFp8Forward& a) {
  return first_error({check_row_strides({{"x", a.x}, {"y", a.y}, {"z", a.z}, {"q", a.q}, {"scale", a.scale}}),
                      check_fp8_rows("x", a.x, a.scaling)});
}

size_t workspace_bytes(const SwigluFp8Forward& a) {
  if (a.z || is_one_kernel(a)) return 0;
  return align_workspace(static_cast<size_t>(count(a.x) * size_of(a.x.dtype)));
}

Status run(const SwigluFp8Forward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const int64_t m = a.x.size[0], n = a.x.size[1];
  if (m == 0) return {};
  if (is_one_kernel(a))
    return launch_quantize_rows<SwigluRows>({.grid = {m, 1}, .x = row_operand(a.x), .second = row_operand(a.y),
                                             .values = row_operand(a.z), .out = fp8_rows(a.q, a.scale, a.scaling)},
                                            a.x.dtype, n / 8, stream);
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const Tensor z = a.z ? a.z : dense(workspace.data, a.x.dtype, {m, n});
  if (Status s = run(unit_of(a, z), {}, stream); !s.ok()) return s;
  return run(QuantizeFp8Forward{.x = z, .q = a.q, .scale = a.scale, .scaling = a.scaling}, {}, stream);
}

}  // namespace fla
