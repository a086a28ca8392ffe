#include "common/copy.h"

#include "common/elementwise.cuh"

namespace fla::detail {
namespace {

struct Identity {
  template <class Forms>
  FLA_DEVICE void operator()(Forms, const float (&in)[1], float (&out)[1]) const {
    out[0] = in[0];
  }
};

}  // namespace

Status copy_rows(const Tensor& from, const Tensor& to, Stream stream) {
  return elementwise(Identity{}, {&from}, {&to}, stream);
}

}  // namespace fla::detail
