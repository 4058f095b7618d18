// A stand-in for libtorch's CUDA half on machines without a GPU, loaded as `libtorch_cuda.so`. See README.md.
#include <torch/library.h>

#include "attention.h"
#include "report.h"
#include "tensors.h"

namespace stand_in {
namespace {

// The host must know a result before it can go on.
bool reads_back(const std::string& name) {
  for (const char* known : {"aten::nonzero", "aten::masked_select", "aten::equal", "aten::_unique2", "aten::is_nonzero", "aten::bincount",
                            "aten::repeat_interleave"})
    if (name == known) return true;
  return false;
}

// Every operator that has no kernel of its own below.
void any_operator(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  Call call(op, *stack);
  count_launch(call.name);
  if (reads_back(call.name)) {
    counts().syncs++;
    clocks().wait();
  }
  const Device device = place(call);
  if (shapes_only() && is_large(call) && !needs_values(call)) return price(call, device);
  double bytes = 0;
  for (size_t i = 0; i < call.count; i++) bytes += bytes_of(call.argument(i));
  clocks().launch(call.name, 0, bytes, at::kFloat);
  if (!attend(call, device)) compute(call, device);
}

// Operators of aten with a kernel of the CPU's and a general one, that do not give a view and have none of ours.
std::vector<std::string> has_own_kernel() {
  std::vector<std::string> found;
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const auto& name : dispatcher.getAllOpNames()) {
    if (name.name.rfind("aten::", 0) != 0) continue;
    auto op = dispatcher.findOp(name);
    if (!op || !op->hasSchema() || !op->hasKernelForDispatchKey(c10::DispatchKey::CPU) ||
        op->hasKernelForDispatchKey(c10::DispatchKey::CUDA))
      continue;
    bool general = false, view = false;
    for (auto key : {c10::DispatchKey::CompositeImplicitAutograd, c10::DispatchKey::CompositeExplicitAutograd,
                     c10::DispatchKey::CompositeExplicitAutogradNonFunctional})
      general |= op->hasKernelForDispatchKey(key);
    for (const auto& result : op->schema().returns()) view |= result.alias_info() && !result.alias_info()->isWrite();
    const std::string overload = name.overload_name.empty() ? "" : "." + name.overload_name;
    if (general && !view) found.push_back(name.name.substr(6) + overload);
  }
  return found;
}

struct Start {
  Start() {
    c10::SetAllocator(DeviceType::CUDA, &device_allocator());
    static Guard guard;
    c10::impl::registerDeviceGuard(DeviceType::CUDA, &guard);
    at::native::_fused_sdp_choice_stub.set_cuda_dispatch_ptr(&choose_attention);
    clocks();  // a card file that cannot be read is an error now
    std::atexit(report);
  }
} start;

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&any_operator>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", tensors::empty);
  m.impl("empty_strided", tensors::empty_strided);
  m.impl("copy_", tensors::copy_);
  m.impl("_copy_from", tensors::copy_from);
  m.impl("_copy_from_and_resize", tensors::copy_from_and_resize);
  m.impl("_local_scalar_dense", tensors::local_scalar);
  m.impl("as_strided", tensors::as_strided);
  m.impl("view", tensors::view);
  m.impl("view.dtype", tensors::view_dtype);
  m.impl("_reshape_alias", tensors::reshape_alias);
  m.impl("unfold", tensors::unfold);
  m.impl("resize_", tensors::resize_);
  m.impl("record_stream", tensors::record_stream);
  // Those that only a card has.
  for (const char* name : {"_scaled_dot_product_efficient_attention", "_scaled_dot_product_efficient_attention_backward"})
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&any_operator>());
  // Composed of other operators where they are computed.
  if (shapes_only())
    for (const char* name : {"_fused_rms_norm", "_fused_rms_norm_backward"})
      m.impl(name, torch::CppFunction::makeFromBoxedFunction<&any_operator>());
  // Where libtorch has a kernel for the CPU beside a general way of doing without one, it would go that way on an unknown device.
  for (const auto& name : has_own_kernel()) m.impl(name.c_str(), torch::CppFunction::makeFromBoxedFunction<&any_operator>());
}

}  // namespace
}  // namespace stand_in

namespace at {
using StandInHooks = stand_in::Hooks;
C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, StandInHooks)
}  // namespace at
