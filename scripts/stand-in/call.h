// One boxed call of an operator: its arguments on the stack, the tensors among them, and its results.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <optional>
#include <string>
#include <vector>

namespace stand_in {

class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack& stack)
      : op(op),
        schema(op.schema()),
        name(schema.name()),
        count(schema.arguments().size()),
        stack_(stack),
        begin_(stack.size() - count),
        originals_(count) {
    for (size_t i = 0; i < count; i++)
      if (argument(i).isTensor()) originals_[i] = argument(i).toTensor();
  }

  const c10::OperatorHandle& op;
  const c10::FunctionSchema& schema;
  const std::string name;
  const size_t count;  // of arguments

  c10::IValue& argument(size_t i) const { return stack_[begin_ + i]; }
  at::Tensor tensor(size_t i) const { return argument(i).toTensor(); }

  // The results, once the call was dispatched.
  size_t results() const { return schema.returns().size(); }
  c10::IValue& result(size_t r) const { return stack_[stack_.size() - results() + r]; }

  // Leaves these results in place of the arguments.
  bool answer(const std::vector<at::Tensor>& out) const {
    stack_.resize(begin_);
    for (const auto& tensor : out) stack_.push_back(c10::IValue(tensor));
    return true;
  }

  void redispatch(c10::DispatchKey key) const { op.redispatchBoxed(c10::DispatchKeySet(key), &stack_); }

  // Shows every defined tensor with the number of its argument.
  template <class F>
  void each(F see) const {
    for (size_t i = 0; i < count; i++) each_of(argument(i), [&](const at::Tensor& tensor) { see(tensor, i); });
  }
  template <class F>
  static void each_of(const c10::IValue& value, F see) {
    auto one = [&](const at::Tensor& tensor) {
      if (tensor.defined()) see(tensor);
    };
    if (value.isTensor())
      one(value.toTensor());
    else if (value.isTensorList())
      for (const auto& tensor : value.toTensorVector()) one(tensor);
    else if (value.isOptionalTensorList())
      for (const auto& tensor : value.toOptionalTensorVector())
        if (tensor) one(*tensor);
  }

  // Puts `other(tensor)` in the place of every tensor of a value.
  template <class F>
  static void replace(c10::IValue& value, F other) {
    if (value.isTensor()) {
      value = other(value.toTensor());
    } else if (value.isTensorList()) {
      std::vector<at::Tensor> list;
      for (const auto& tensor : value.toTensorVector()) list.push_back(other(tensor));
      value = c10::IValue(c10::List<at::Tensor>(list));
    } else if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> list;
      for (const auto& tensor : value.toOptionalTensorVector())
        list.push_back(tensor ? std::optional<at::Tensor>(other(*tensor)) : std::nullopt);
      value = c10::IValue(list);
    }
  }

  // Tensor arguments as the caller gave them; undefined where an argument is something else.
  const at::Tensor& original(size_t i) const { return originals_[i]; }

  // The argument that result `r` is, where the operator writes into one.
  std::optional<size_t> written(size_t r) const {
    const auto* alias = schema.returns()[r].alias_info();
    if (!alias || !alias->isWrite()) return std::nullopt;
    for (size_t i = 0; i < count; i++) {
      const auto* own = schema.arguments()[i].alias_info();
      if (own && own->isWrite() && *own == *alias && originals_[i].defined()) return i;
    }
    TORCH_CHECK(false, "stand-in: no written argument for ", name);
  }

  // Whether argument `i` is an `out=` that the operator may resize.
  bool is_out(size_t i) const {
    const auto& own = schema.arguments()[i];
    return own.kwarg_only() && own.alias_info() && own.alias_info()->isWrite() && originals_[i].defined();
  }

 private:
  torch::jit::Stack& stack_;
  const size_t begin_;
  std::vector<at::Tensor> originals_;
};

}  // namespace stand_in
