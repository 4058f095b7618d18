// Where tensors must be: all of a call's on one device, as CUDA demands. What CUDA takes from the host is taken: tensors without
// dimensions, and indices.
#pragma once

#include "call.h"
#include "device.h"

namespace stand_in {

[[noreturn]] inline void refuse(const Call& call, const std::string& found) {
  counts().violations++;
  {
    std::lock_guard<std::mutex> guard(counts().lock);
    counts().refused[call.name + ": " + found]++;
  }
  TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ", found,
              "! (when checking arguments for ", call.name, ")");
  std::abort();
}

// Whether argument `i` may stay on the host.
inline bool may_be_on_host(const Call& call, const at::Tensor& tensor, size_t i) {
  const bool indexes = call.name == "aten::index" || call.name == "aten::_unsafe_index" || call.name == "aten::index_put" ||
                       call.name == "aten::index_put_" || call.name == "aten::_index_put_impl_";
  return tensor.dim() == 0 || (indexes && i == 1);
}

// The device of a call: that of its tensors, or the one it names, or the current one. Throws where tensors are on several.
inline Device place(const Call& call) {
  std::optional<Device> device;
  call.each([&](const at::Tensor& tensor, size_t) {
    if (!tensor.is_cuda()) return;
    if (!device)
      device = tensor.device();
    else if (*device != tensor.device())
      refuse(call, device->str() + " and " + tensor.device().str());
  });
  if (device) {
    call.each([&](const at::Tensor& tensor, size_t i) {
      if (!tensor.is_cuda() && !may_be_on_host(call, tensor, i)) refuse(call, device->str() + " and " + tensor.device().str());
    });
    return *device;
  }
  for (size_t i = 0; i < call.count; i++)
    if (call.argument(i).isDevice() && call.argument(i).toDevice().is_cuda() && call.argument(i).toDevice().has_index())
      return call.argument(i).toDevice();
  return Device(DeviceType::CUDA, current);
}

}  // namespace stand_in
