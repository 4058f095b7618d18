// Shapes of the results of operators for which libtorch has no meta kernel in C++.
#pragma once

#include <ATen/ATen.h>
#include <ATen/ExpandUtils.h>

#include "call.h"
#include "clock.h"
#include "values.h"

namespace stand_in {

using Shape = std::vector<int64_t>;

inline at::Tensor shaped(const at::Tensor& like, at::IntArrayRef size) { return at::empty(size, like.options().requires_grad(false)); }
inline at::Tensor shaped(const at::Tensor& like, at::IntArrayRef size, at::ScalarType type) {
  return at::empty(size, like.options().requires_grad(false).dtype(type));
}

inline bool layer_norm(const Call& call) {
  const auto x = call.tensor(0);
  Shape reduced = x.sizes().vec();
  for (size_t i = 0; i < call.argument(1).toIntVector().size(); i++) reduced[reduced.size() - 1 - i] = 1;
  return call.answer({shaped(x, x.sizes()), shaped(x, reduced, at::kFloat), shaped(x, reduced, at::kFloat)});
}

inline bool layer_norm_backward(const Call& call) {
  const auto x = call.tensor(1);
  const auto normal = call.argument(2).toIntVector();
  const auto wanted = call.argument(7).toBoolList();
  return call.answer({wanted[0] ? shaped(x, x.sizes()) : at::Tensor(), wanted[1] ? shaped(x, normal) : at::Tensor(),
                      wanted[2] ? shaped(x, normal) : at::Tensor()});
}

inline bool rms_norm(const Call& call) {
  const auto x = call.tensor(0);
  Shape reduced = x.sizes().vec();
  for (size_t i = 0; i < call.argument(1).toIntVector().size(); i++) reduced[reduced.size() - 1 - i] = 1;
  return call.answer({shaped(x, x.sizes()), shaped(x, reduced, at::kFloat)});
}

inline bool rms_norm_backward(const Call& call) {
  const auto x = call.tensor(1);
  const auto wanted = call.argument(5).toBoolList();
  return call.answer(
      {wanted[0] ? shaped(x, x.sizes()) : at::Tensor(), wanted[1] ? shaped(x, call.argument(2).toIntVector()) : at::Tensor()});
}

// The memory-efficient kernel: [batch, heads, tokens, width], sums of logits padded to 32 tokens.
inline bool attention(const Call& call) {
  const auto q = call.tensor(0), k = call.tensor(1), v = call.tensor(2);
  const int64_t padded = call.argument(4).toBool() ? (q.size(2) + 31) / 32 * 32 : 0;
  const auto out = shaped(q, {q.size(0), q.size(2), q.size(1), v.size(3)}).transpose(1, 2);
  const auto seed = at::zeros({}, at::TensorOptions().dtype(at::kLong));
  return call.answer({out, shaped(q, {q.size(0), q.size(1), padded}, at::kFloat), seed, seed.clone()});
}

inline bool attention_backward(const Call& call) {
  const auto bias = call.tensor(4);
  const bool wanted = call.argument(10).toBoolList()[3] && bias.defined();
  return call.answer({at::empty_like(call.tensor(1)), at::empty_like(call.tensor(2)), at::empty_like(call.tensor(3)),
                      wanted ? shaped(bias, bias.sizes()) : at::Tensor()});
}

// Elementwise with a result to fill.
inline bool elementwise_out(const Call& call) {
  Shape size;
  for (size_t i = 0; i + 1 < call.count; i++)
    if (call.argument(i).isTensor() && call.tensor(i).defined()) size = at::infer_size(size, call.tensor(i).sizes());
  const auto out = call.tensor(call.count - 1);
  if (out.sizes() != at::IntArrayRef(size)) out.resize_(size);
  return call.answer({out});
}

// Answers a call by its shape; false where no rule is known.
inline bool answer_by_rule(const Call& call) {
  const auto& name = call.name;
  auto one_of = [&](std::initializer_list<const char*> names) { return std::find(names.begin(), names.end(), name) != names.end(); };
  if (name == "aten::native_layer_norm") return layer_norm(call);
  if (name == "aten::native_layer_norm_backward") return layer_norm_backward(call);
  if (name == "aten::_fused_rms_norm") return rms_norm(call);
  if (name == "aten::_fused_rms_norm_backward") return rms_norm_backward(call);
  if (name == "aten::_scaled_dot_product_efficient_attention") return attention(call);
  if (name == "aten::_scaled_dot_product_efficient_attention_backward") return attention_backward(call);
  if (name == "aten::where" && call.count == 3) {
    const auto condition = call.tensor(0), a = call.tensor(1), b = call.tensor(2);
    return call.answer({shaped(a.dim() ? a : b, at::infer_size(at::infer_size(condition.sizes(), a.sizes()), b.sizes()))});
  }
  if (name == "aten::index_select") {
    Shape size = call.tensor(0).sizes().vec();
    const int64_t d = call.argument(1).toInt();
    size[d < 0 ? d + size.size() : d] = call.tensor(2).numel();
    return call.answer({shaped(call.tensor(0), size)});
  }
  if (name == "aten::embedding_dense_backward") {
    const auto gradient = call.tensor(0);
    return call.answer({shaped(gradient, {call.argument(2).toInt(), gradient.size(-1)})});
  }
  if (name == "aten::kthvalue" && call.schema.overload_name().empty()) {
    const auto x = call.tensor(0);
    Shape size = x.sizes().vec();
    const int64_t d = call.argument(2).toInt(), place = d < 0 ? d + x.dim() : d;
    if (call.argument(3).toBool())
      size[place] = 1;
    else
      size.erase(size.begin() + place);
    return call.answer({shaped(x, size), shaped(x, size, at::kLong)});
  }
  if (name == "aten::linalg_cholesky_ex") {
    // Ones on its diagonal: who looks at the pivots finds a definite matrix.
    const auto x = call.tensor(0);
    const auto factor = shaped(x, x.sizes());
    host_view(factor).diagonal(0, -2, -1).fill_(1);
    return call.answer({factor, at::zeros(x.sizes().slice(0, x.dim() - 2), x.options().requires_grad(false).dtype(at::kInt))});
  }
  if (name == "aten::mm" && call.schema.overload_name() == "dtype")
    return call.answer({shaped(call.tensor(0), {call.tensor(0).size(0), call.tensor(1).size(1)}, call.argument(2).toScalarType())});
  if (name == "aten::linalg_solve_triangular" && call.count == 5) {
    // Batches of systems and right-hand sides of the same number.
    if (call.tensor(0).sizes().slice(0, call.tensor(0).dim() - 2) == call.tensor(1).sizes().slice(0, call.tensor(1).dim() - 2))
      return call.answer({shaped(call.tensor(1), call.tensor(1).sizes())});
  }
  if (name == "aten::count_nonzero") return call.answer({at::zeros({}, call.tensor(0).options().requires_grad(false).dtype(at::kLong))});
  if (one_of({"aten::_softmax_backward_data", "aten::_log_softmax_backward_data"}))
    return call.answer({shaped(call.tensor(0), call.tensor(0).sizes(), call.argument(3).toScalarType())});
  if (one_of({"aten::roll", "aten::flip", "aten::nan_to_num"})) return call.answer({shaped(call.tensor(0), call.tensor(0).sizes())});
  if (one_of({"aten::masked_fill_", "aten::fill_", "aten::zero_", "aten::index_add_", "aten::index_fill_", "aten::index_copy_",
              "aten::logical_not_", "aten::clamp_min_"}))
    return call.answer({call.tensor(0)});
  const auto& overload = call.schema.overload_name();
  const bool out = overload == "out" || overload.find("_out") != std::string::npos;
  if (out && one_of({"aten::logical_not", "aten::logical_and", "aten::logical_or", "aten::logical_xor", "aten::abs", "aten::angle"}))
    return elementwise_out(call);
  return false;
}

}  // namespace stand_in
