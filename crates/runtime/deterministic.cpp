// The one switch that libtorch's C interface of tch lacks: algorithms that repeat their results to the bit.
#include <ATen/Context.h>

extern "C" void ressa_deterministic(bool on) {
  auto& context = at::globalContext();
  // An operation without such an algorithm is an error, never a silent exception.
  context.setDeterministicAlgorithms(on, /*warn_only=*/false);
  // Memory that nobody reads before it is written need not be filled.
  context.setDeterministicFillUninitializedMemory(false);
}
