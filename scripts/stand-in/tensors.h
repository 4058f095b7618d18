// Operators that make, move and view device tensors.
#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>

#include "values.h"

namespace stand_in::tensors {

using Dtype = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using Where = std::optional<Device>;
using Flag = std::optional<bool>;

constexpr c10::DispatchKeySet KEYS(c10::DispatchKey::CUDA);

inline at::Tensor empty(c10::SymIntArrayRef size, Dtype dtype, Layout, Where device, Flag, std::optional<at::MemoryFormat> format) {
  c10::DeviceGuard guard(device.value_or(Device(DeviceType::CUDA, current)));
  return at::detail::empty_generic(C10_AS_INTARRAYREF_SLOW(size), &device_allocator(), KEYS, dtype.value_or(at::kFloat), format);
}

inline at::Tensor empty_strided(c10::SymIntArrayRef size, c10::SymIntArrayRef stride, Dtype dtype, Layout, Where device, Flag) {
  c10::DeviceGuard guard(device.value_or(Device(DeviceType::CUDA, current)));
  return at::detail::empty_strided_generic(C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), &device_allocator(), KEYS,
                                           dtype.value_or(at::kFloat));
}

inline at::Tensor& copy_(at::Tensor& self, const at::Tensor& from, bool non_blocking) {
  const long bytes = static_cast<long>(from.nbytes());
  if (self.is_cuda() && from.is_cuda()) {
    counts().across_bytes += bytes;
    count_launch("aten::copy_");
    clocks().launch("aten::copy_", 0, double(bytes) + double(self.nbytes()), at::kFloat);
  } else {
    const bool down = from.is_cuda();
    const bool asynchronous = non_blocking && PinnedAllocator::holds(down ? self.data_ptr() : from.data_ptr());
    (down ? counts().down_bytes : counts().up_bytes) += bytes;
    (down ? counts().down_calls : counts().up_calls)++;
    if (down && !asynchronous) counts().syncs++;
    clocks().transfer(double(bytes), down, asynchronous);
  }
  if (shapes_only() && self.numel() > SMALL) return self;
  auto to = host_view(self);
  to.copy_(host_view(from));
  return self;
}

inline at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  auto self = to;
  copy_(self, from, non_blocking);
  return to;
}

inline at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  at::symint::resize_<int64_t>(to, from.sizes());
  return copy_from(from, to, false);
}

inline at::Scalar local_scalar(const at::Tensor& self) {
  counts().syncs++;
  clocks().wait();
  return host_view(self).item();
}

inline at::Tensor as_strided(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride,
                             std::optional<c10::SymInt> offset) {
  std::optional<int64_t> start;
  if (offset) start = offset->guard_int(__FILE__, __LINE__);
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride), start);
}

inline at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) { return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size)); }

inline at::Tensor reshape_alias(const at::Tensor& self, c10::SymIntArrayRef size, c10::SymIntArrayRef stride) {
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

inline at::Tensor unfold(const at::Tensor& self, int64_t d, int64_t size, int64_t step) { return at::native::unfold(self, d, size, step); }

inline at::Tensor view_dtype(const at::Tensor& self, at::ScalarType dtype) { return at::native::view_dtype(self, dtype); }

inline const at::Tensor& resize_(const at::Tensor& self, c10::SymIntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(C10_AS_INTARRAYREF_SLOW(size));
  const size_t bytes = (impl->storage_offset() + impl->numel()) * self.dtype().itemsize();
  auto storage = self.storage();
  if (bytes > storage.nbytes()) {
    c10::DeviceGuard guard(self.device());
    auto fresh = device_allocator().allocate(bytes);
    if (storage.data()) std::memcpy(fresh.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(bytes);
  }
  return self;
}

inline void record_stream(at::Tensor&, c10::Stream) {}

}  // namespace stand_in::tensors
