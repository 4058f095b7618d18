// What an operation costs: the bytes that it reads and writes once, and the arithmetic of matrix products.
#pragma once

#include "call.h"

namespace stand_in {

inline int64_t elements_of(const c10::IValue& value) {
  int64_t sum = 0;
  Call::each_of(value, [&](const at::Tensor& tensor) { sum += tensor.numel(); });
  return sum;
}

inline double bytes_of(const c10::IValue& value) {
  double sum = 0;
  Call::each_of(value, [&](const at::Tensor& tensor) { sum += double(tensor.numel()) * double(tensor.element_size()); });
  return sum;
}

// Multiplications and additions of a matrix product; 0 for what is bound by memory.
inline double flops_of(const Call& call) {
  auto size = [&](size_t i, int64_t d) { return double(call.tensor(i).size(d)); };
  const auto& name = call.name;
  if (name == "aten::mm") return 2 * size(0, 0) * size(0, 1) * size(1, 1);
  if (name == "aten::addmm") return 2 * size(1, 0) * size(1, 1) * size(2, 1);
  if (name == "aten::bmm") return 2 * size(0, 0) * size(0, 1) * size(0, 2) * size(1, 2);
  if (name == "aten::baddbmm") return 2 * size(1, 0) * size(1, 1) * size(1, 2) * size(2, 2);
  // A third of a product of the same size; the others in proportion.
  if (name == "aten::linalg_cholesky_ex" || name == "aten::cholesky") return size(0, -1) * size(0, -1) * size(0, -1) / 3;
  if (name == "aten::cholesky_inverse" || name == "aten::linalg_inv_ex") return 2 * size(0, -1) * size(0, -1) * size(0, -1);
  if (name == "aten::linalg_solve_triangular") return size(0, -1) * double(call.tensor(1).numel());
  if (name == "aten::triangular_solve") return size(1, -1) * size(1, -1) * size(0, -1);
  if (name == "aten::convolution" || name == "aten::_convolution" || name == "aten::convolution_overrideable") {
    double per_output = 2;
    for (int64_t d = 1; d < call.tensor(1).dim(); d++) per_output *= size(1, d);
    double outputs = size(0, 0) * size(1, 0);
    const auto stride = call.argument(3).toIntVector();
    for (int64_t d = 2; d < call.tensor(0).dim(); d++) outputs *= size(0, d) / double(stride[d - 2]);
    return per_output * outputs;
  }
  return 0;
}

}  // namespace stand_in
