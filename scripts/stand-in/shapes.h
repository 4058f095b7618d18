// Operations that are priced, not computed: shapes from libtorch's meta kernels or from our rules, memory that nobody touches, and time.
#pragma once

#include "cost.h"
#include "shape_rules.h"
#include "values.h"

namespace stand_in {

// Whether an operation is too large to compute. Kernels that only cards have are never computed.
inline bool is_large(const Call& call) {
  int64_t elements = 0;
  for (size_t i = 0; i < call.count; i++) elements += elements_of(call.argument(i));
  const bool of_cards = call.name.rfind("aten::_scaled_dot_product", 0) == 0 || call.name.rfind("aten::_fused_rms_norm", 0) == 0;
  if (elements > SMALL || of_cards) return true;
  if (elements > 0) return false;
  for (size_t i = 0; i < call.count; i++) {  // a factory of something large
    if (!call.argument(i).isIntList()) continue;
    double product = 1;
    for (auto size : call.argument(i).toIntVector()) product *= double(size);
    if (product > SMALL) return true;
  }
  return false;
}

// The size of whose result depends on values.
inline bool needs_values(const Call& call) {
  return call.name == "aten::nonzero" || call.name == "aten::equal" || call.name == "aten::masked_select";
}

// Runs the meta kernel; results have memory on the device.
inline void answer_by_meta(Call& call, Device device) {
  auto meta = [](const at::Tensor& tensor) {
    return tensor.defined() ? at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kMeta).requires_grad(false))
                            : tensor;
  };
  for (size_t i = 0; i < call.count; i++) {
    if (call.argument(i).isDevice())
      call.argument(i) = c10::IValue(Device(at::kMeta));
    else
      Call::replace(call.argument(i), meta);
  }
  call.redispatch(c10::DispatchKey::Meta);
  for (size_t r = 0; r < call.results(); r++) {
    auto& value = call.result(r);
    if (auto written = call.written(r)) {
      const auto& out = call.original(*written);
      if (value.isTensor() && out.sizes() != value.toTensor().sizes()) out.resize_(value.toTensor().sizes());
      value = out;
      continue;
    }
    Call::replace(value, [&](const at::Tensor& tensor) {
      return tensor.defined() ? at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(device)) : tensor;
    });
  }
}

inline double attention_flops(const Call& call) {
  const bool backward = call.name == "aten::_scaled_dot_product_efficient_attention_backward";
  if (!backward && call.name != "aten::_scaled_dot_product_efficient_attention") return 0;
  const auto q = call.tensor(backward ? 1 : 0), k = call.tensor(backward ? 2 : 1);
  // Two products forwards; five backwards, which forms the weights again.
  return (backward ? 10.0 : 4.0) * double(q.numel()) * double(k.size(2));
}

inline void price(Call& call, Device device) {
  c10::DeviceGuard guard(device);
  const double flops = flops_of(call) + attention_flops(call);
  double bytes = 0;
  std::optional<at::ScalarType> type;
  for (size_t i = 0; i < call.count; i++) bytes += bytes_of(call.argument(i));
  call.each([&](const at::Tensor& tensor, size_t) {
    if (!type && tensor.is_floating_point()) type = tensor.scalar_type();
  });
  if (!answer_by_rule(call)) {
    if (call.op.hasKernelForDispatchKey(c10::DispatchKey::Meta)) {
      answer_by_meta(call, device);
    } else {
      {
        std::lock_guard<std::mutex> lock(counts().lock);
        counts().computed[call.name]++;
      }
      compute(call, device);
    }
  }
  for (size_t r = 0; r < call.results(); r++) bytes += bytes_of(call.result(r));
  clocks().launch(call.name, flops, bytes, type.value_or(at::kFloat));
}

}  // namespace stand_in
