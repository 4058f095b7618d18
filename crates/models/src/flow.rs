//! Activations between two blocks.

use ressa_runtime::Device;
use tch::Tensor;

/// Activations between two blocks of a tower, for a sample, a batch or several samples of one shape, with what the tower's later blocks also need
/// (position bias, encoder output, rotary tables).
#[derive(Debug)]
pub struct Flow {
    /// Hidden states `[rows, tokens, width]`.
    pub hidden: Tensor,
    /// Tower-specific companions, in an order only the model knows.
    pub(crate) context: Vec<Tensor>,
    /// The companion that depends on earlier towers or blocks, and so can have a gradient.
    pub(crate) carried: Option<usize>,
}

impl Flow {
    /// A flow of what [`Flow::companions`] and `hidden` gave.
    pub fn from_parts(hidden: Tensor, companions: Vec<Tensor>) -> Self {
        Self { hidden, context: companions, carried: None }
    }

    /// What goes along with the hidden states: most blocks hand it on as it is.
    pub fn companions(&self) -> &[Tensor] {
        &self.context
    }

    /// The same activations on a device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let companions = self.context.iter().map(|tensor| tensor.to_device(device)).collect();
        Self { hidden: self.hidden.to_device(device), context: companions, carried: self.carried }
    }

    /// Whether two flows can be rows of one.
    fn is_like(&self, other: &Self) -> bool {
        let alike = |a: &Tensor, b: &Tensor| a.kind() == b.kind() && a.size() == b.size();
        let companions = || self.context.iter().zip(&other.context).all(|(a, b)| alike(a, b));
        alike(&self.hidden, &other.hidden) && self.context.len() == other.context.len() && companions()
    }

    /// Flows of one shape as the rows of one. Companions from `shared` on are the same for all and taken once.
    pub(crate) fn stack(flows: &[Self], shared: usize) -> Option<Self> {
        let first = flows.first()?;
        if !flows.iter().all(|flow| flow.is_like(first)) {
            return None;
        }
        let rows = |of: &dyn Fn(&Self) -> Tensor| Tensor::cat(&flows.iter().map(of).collect::<Vec<_>>(), 0);
        let context = (0..first.context.len()).map(|at| match at < shared {
            true => rows(&|flow| flow.context[at].shallow_clone()),
            false => first.context[at].shallow_clone(),
        });
        let hidden = rows(&|flow| flow.hidden.shallow_clone());
        Some(Self { hidden, context: context.collect(), carried: first.carried })
    }

    /// A second handle on the same activations.
    pub fn shallow_clone(&self) -> Self {
        let companions = self.context.iter().map(Tensor::shallow_clone).collect();
        Self { hidden: self.hidden.shallow_clone(), context: companions, carried: self.carried }
    }

    /// The same companions with other hidden states.
    pub(crate) fn with_hidden(&self, hidden: Tensor) -> Self {
        Self { hidden, ..self.shallow_clone() }
    }

    /// The companion that depends on earlier towers or blocks.
    pub fn carried(&self) -> Option<&Tensor> {
        self.carried.and_then(|at| self.context.get(at))
    }

    /// The companion that depends on earlier towers or blocks, where it is not the one that `before` had.
    pub fn made_since(&self, before: &Self) -> Option<&Tensor> {
        self.carried().filter(|_| !is_same(before.carried(), self.carried()))
    }

    /// The same values without their autograd graph.
    pub fn detached(&self) -> Self {
        let context = self.context.iter().map(Tensor::detach).collect();
        Self { hidden: self.hidden.detach(), context, carried: self.carried }
    }

    /// The same values as leaves: hidden states and the carried companion require gradients as `wanted` says.
    pub(crate) fn leaf(&self, wanted: (bool, bool)) -> Self {
        let mut leaf = self.detached();
        leaf.hidden = leaf.hidden.set_requires_grad(wanted.0);
        if let Some(carried) = leaf.carried.and_then(|at| leaf.context.get_mut(at)) {
            *carried = carried.set_requires_grad(wanted.1);
        }
        leaf
    }

    /// Of hidden states and carried companion, those that require gradients, in this order.
    pub fn wanting(&self) -> impl Iterator<Item = &Tensor> {
        std::iter::once(&self.hidden).chain(self.carried()).filter(|tensor| tensor.requires_grad())
    }
}

/// Whether two companions are one and the same.
pub(crate) fn is_same(left: Option<&Tensor>, right: Option<&Tensor>) -> bool {
    matches!((left, right), (Some(left), Some(right)) if left.data_ptr() == right.data_ptr() && left.size() == right.size())
}
