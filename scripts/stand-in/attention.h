// Fused attention. With values, the device has the kernel that the CPU has, so that results are equal to the bit; without, a card's
// memory-efficient kernel (see shapes.h).
#pragma once

#include <ATen/native/transformers/attention.h>
#include <ATen/ops/_fused_sdp_choice_native.h>

#include "shapes.h"

namespace stand_in {

constexpr int64_t FORMULA = 0, EFFICIENT = 2;  // at::SDPBackend
using Optional = std::optional<at::Tensor>;

// STAND_IN_ATTENTION=formula: products and a softmax instead, whose rounding differs as that of another kernel does.
inline bool fused() {
  static const bool fused = text_of("STAND_IN_ATTENTION") != "formula";
  return fused;
}

inline Optional host_view(const Optional& tensor) { return tensor && tensor->defined() ? Optional(host_view(*tensor)) : std::nullopt; }

// Which way libtorch goes for `scaled_dot_product_attention` on the device.
inline int64_t choose_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Optional& bias, double dropout,
                                bool causal, std::optional<double> scale, bool grouped) {
  if (!fused()) return FORMULA;
  if (shapes_only()) return EFFICIENT;
  auto with_gradient = [](const at::Tensor& tensor) { return host_view(tensor).set_requires_grad(tensor.requires_grad()); };
  const auto on_cpu =
      at::native::_fused_sdp_choice_cpp(with_gradient(q), with_gradient(k), with_gradient(v),
                                        bias ? Optional(with_gradient(*bias)) : std::nullopt, dropout, causal, scale, grouped);
  return on_cpu == FORMULA ? FORMULA : EFFICIENT;
}

// Computes a call of the memory-efficient kernel, forwards or backwards, by the CPU's fused one; false for any other call.
inline bool attend(const Call& call, Device device) {
  auto view = [&](size_t i) { return host_view(call.tensor(i)); };
  auto bias = [&](size_t i) { return call.argument(i).isTensor() ? host_view(Optional(call.tensor(i))) : std::nullopt; };
  auto scale = [&](size_t i) { return call.argument(i).toOptional<double>(); };
  auto there = [&](const at::Tensor& tensor) { return on_device(tensor, device); };
  if (call.name == "aten::_scaled_dot_product_efficient_attention") {
    const auto [out, sums] = at::_scaled_dot_product_flash_attention_for_cpu(view(0), view(1), view(2), call.argument(5).toDouble(),
                                                                             call.argument(6).toBool(), bias(3), scale(7));
    const auto seed = at::zeros({}, at::TensorOptions().dtype(at::kLong));
    return call.answer({there(out), there(sums), seed, seed.clone()});
  }
  if (call.name == "aten::_scaled_dot_product_efficient_attention_backward") {
    const auto [q, k, v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        view(0), view(1), view(2), view(3), view(5), view(6), call.argument(9).toDouble(), call.argument(11).toBool(), bias(4), scale(12));
    return call.answer({there(q), there(k), there(v), at::Tensor()});
  }
  return false;
}

}  // namespace stand_in
