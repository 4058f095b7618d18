//! The tensors being trained: names, initial values, and the leaf views that each shard differentiates.

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};
use tch::{Device, Tensor};

/// Named parameters. All views of a parameter share its storage, so an update in place is seen by every shard.
#[derive(Debug)]
pub struct Parameters {
    tensors: BTreeMap<String, Tensor>,
}

/// Parameters by name, as the model constructors take them.
pub type TensorMap = BTreeMap<String, Tensor>;

impl Parameters {
    /// Draws every parameter from a stream of its own, keyed by its name: adding a tensor changes no other.
    pub fn draw(shapes: &[(String, Vec<i64>)], initial: impl Fn(&str, &[i64]) -> Initial, seed: u64) -> Self {
        let tensors =
            shapes.iter().map(|(name, shape)| (name.clone(), initial(name, shape).tensor(name, shape, seed))).collect();
        Self { tensors }
    }

    /// Leaf tensors that require gradients and share the storage of the parameters.
    pub fn leaves(&self) -> TensorMap {
        self.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.detach().set_requires_grad(true))).collect()
    }

    /// The parameters themselves.
    pub fn tensors(&self) -> &TensorMap {
        &self.tensors
    }

    /// The parameters, given away.
    pub fn into_tensors(self) -> TensorMap {
        self.tensors
    }

    /// Overwrites every parameter with the values of `saved`, which has the same names and shapes.
    pub fn restore(&mut self, saved: &TensorMap) -> Result<(), String> {
        let _no_grad = tch::no_grad_guard();
        for (name, tensor) in &mut self.tensors {
            let value = saved.get(name).ok_or_else(|| format!("the training checkpoint has no tensor `{name}`"))?;
            if value.size() != tensor.size() {
                return Err(format!("tensor `{name}` of the training checkpoint has another shape"));
            }
            tensor.copy_(value);
        }
        Ok(())
    }
}

/// How a parameter starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Initial {
    /// All the same value.
    Constant(f32),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Given values, in row-major order.
    Values(Vec<f32>),
}

impl Initial {
    fn tensor(self, name: &str, shape: &[i64], seed: u64) -> Tensor {
        let count: i64 = shape.iter().product();
        let values = match self {
            Initial::Constant(value) => vec![value; count as usize],
            Initial::Values(values) => values,
            Initial::Normal(deviation) => {
                let mut rng = stream(seed, &format!("initial/{name}"), 0);
                let normal = Normal::new(0.0, deviation).expect("a positive deviation");
                (0..count).map(|_| normal.sample(&mut rng) as f32).collect()
            }
        };
        Tensor::from_slice(&values).view(shape).to_device(Device::Cpu)
    }
}

/// An independent stream of random numbers for a purpose and a position in it (a step, a shard). Nothing to save on resume.
pub fn stream(seed: u64, purpose: &str, position: u64) -> ChaCha8Rng {
    // FNV-1a over the purpose: stable across platforms and releases, which the standard hasher does not promise.
    let hash =
        purpose.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let mut key = [0_u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key[16..24].copy_from_slice(&position.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}

/// Initial values of a model's tensor, told by its name in the checkpoint. `language` has embeddings at 0.5 because both language
/// families here read them without scaling; position tables of the image are sine waves, which a table of small noise never becomes.
///
/// `head_width` is that of T5's attention, which has no scale of its own and carries it in the query's initial values.
pub fn initial(name: &str, shape: &[i64], head_width: Option<i64>) -> Initial {
    let last = *shape.last().unwrap_or(&1) as f64;
    if name == "vision_model.embeddings.position_embedding" {
        return Initial::Values(sine_table(shape[1] as usize - 1, shape[2] as usize, 0.5));
    }
    if name.ends_with("class_embedding") {
        return Initial::Constant(0.0);
    }
    if name == "query_tokens" {
        return Initial::Normal(0.5);
    }
    if name.ends_with("relative_attention_bias.weight") || name.ends_with("position_embeddings.weight") {
        return Initial::Normal(0.1);
    }
    if name.ends_with("word_embeddings.weight")
        || name.ends_with("shared.weight")
        || name.ends_with("embed_tokens.weight")
    {
        return Initial::Normal(0.5);
    }
    if let Some(head_width) = head_width
        && name.ends_with("Attention.q.weight")
    {
        return Initial::Normal((last * head_width as f64).powf(-0.5));
    }
    if shape.len() == 1 {
        return Initial::Constant(if name.ends_with("bias") { 0.0 } else { 1.0 });
    }
    if name.ends_with("patch_embedding.weight") {
        let fan_in: i64 = shape[1..].iter().product();
        return Initial::Normal((fan_in as f64).powf(-0.5));
    }
    Initial::Normal(last.powf(-0.5))
}

/// A class token of zeros, then sine and cosine waves over columns and rows of a square grid of `patches`.
fn sine_table(patches: usize, width: usize, amplitude: f32) -> Vec<f32> {
    let side = patches.isqrt();
    let quarter = width / 4;
    let mut table = vec![0.0; (patches + 1) * width];
    for patch in 0..patches {
        let (row, column) = (patch / side, patch % side);
        let out = &mut table[(patch + 1) * width..(patch + 2) * width];
        for wave in 0..quarter {
            let frequency = (-(wave as f32) / quarter as f32 * 30_f32.ln()).exp();
            let (x, y) = (column as f32 * frequency, row as f32 * frequency);
            out[wave] = amplitude * x.sin();
            out[quarter + wave] = amplitude * x.cos();
            out[2 * quarter + wave] = amplitude * y.sin();
            out[3 * quarter + wave] = amplitude * y.cos();
        }
    }
    table
}
