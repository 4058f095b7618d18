// Operations computed by their CPU kernels on views of the same bytes.
#pragma once

#include <ATen/ATen.h>

#include "placement.h"

namespace stand_in {

// A CPU tensor over the bytes of a device tensor; any other tensor is itself.
inline at::Tensor host_view(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.is_cuda()) return tensor;
  auto keep = tensor;
  return at::from_blob(
      const_cast<void*>(tensor.storage().data()), tensor.sizes(), tensor.strides(), tensor.storage_offset(), [keep](void*) {},
      tensor.options().device(at::kCPU).requires_grad(false), at::kCPU);
}

// A copy on a device of what a CPU kernel made there.
inline at::Tensor on_device(const at::Tensor& tensor, Device device) {
  if (!tensor.defined() || tensor.is_cuda()) return tensor;
  c10::DeviceGuard guard(device);
  auto out = at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(device));
  if (tensor.numel() > 0) host_view(out).copy_(tensor);
  return out;
}

inline void compute(Call& call, Device device) {
  std::vector<at::Tensor> fresh(call.count);
  for (size_t i = 0; i < call.count; i++) {
    auto& value = call.argument(i);
    if (call.is_out(i)) {
      // Computed into a fresh host tensor, taken over below.
      fresh[i] = at::empty({0}, call.original(i).options().device(at::kCPU).requires_grad(false));
      value = fresh[i];
    } else if (value.isDevice() && value.toDevice().is_cuda()) {
      value = c10::IValue(Device(at::kCPU));
    } else if (value.isGenerator()) {
      value = c10::IValue();
    } else {
      Call::replace(value, host_view);
    }
  }
  if (call.name == "aten::mm" && call.schema.overload_name() == "dtype") {
    // Half precision in, f32 out: only cards have a kernel.
    const auto type = call.argument(2).toScalarType();
    call.answer({on_device(at::mm(call.tensor(0).to(type), call.tensor(1).to(type)), device)});
    return;
  }
  call.redispatch(c10::DispatchKey::CPU);
  for (size_t i = 0; i < call.count; i++) {
    if (!fresh[i].defined()) continue;
    const auto& out = call.original(i);
    if (out.sizes() != fresh[i].sizes()) out.resize_(fresh[i].sizes());
    if (fresh[i].numel() > 0) host_view(out).copy_(fresh[i]);
  }
  for (size_t r = 0; r < call.results(); r++) {
    if (auto written = call.written(r)) {
      call.result(r) = call.original(*written);
      continue;
    }
    TORCH_CHECK(!call.schema.returns()[r].alias_info(), "stand-in: the view operator ", call.name, " needs a kernel of its own");
    Call::replace(call.result(r), [&](const at::Tensor& tensor) { return on_device(tensor, device); });
  }
}

}  // namespace stand_in
