//! Planted channel scales: the same function with unequal channels, an emulation of the outlier channels that large models grow.
//!
//! A norm whose outputs only prunable linears read may have its gain multiplied by any number per channel, if the linears' columns are
//! divided by it. With powers of two nothing is rounded: every product and every sum of the forward pass is what it was, and so is the
//! importance of a weight that counts the norm of its input. The weight alone is another.

use std::{collections::BTreeMap, path::Path, rc::Rc};

use ressa_checkpoint::{Checkpoint, Dtype, Entry, ExportRequest, File, PROGRAM, export, scale};
use ressa_experiment::job::Container;
use ressa_runtime::{Device, normals};

use crate::{Architecture, LoadOptions, Model, ModelError, Shapes, config::GenerationConfig, folder::read_config};

/// A norm whose outputs are read by prunable linears and by nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Module path of the norm.
    pub norm: String,
    /// Whether the norm has a bias beside its gain.
    pub bias: bool,
    /// Module paths of the linears.
    pub readers: Vec<String>,
}

/// How unequal channels become.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// Standard deviation of the natural logarithm of the scales, before they are rounded to powers of two.
    pub deviation: f64,
    /// What they are drawn from.
    pub seed: u64,
}

/// What was rescaled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rescaled {
    /// Norms.
    pub norms: usize,
    /// Their channels.
    pub channels: usize,
    /// Standard deviation of the natural logarithm of the scales as they are.
    pub deviation: f64,
}

impl Spread {
    /// The powers of two of a norm's channels, of a stream of its own.
    fn powers(self, norm: &str, channels: usize) -> Vec<i32> {
        let power = |normal: f64| (self.deviation * normal / std::f64::consts::LN_2).round() as i32;
        normals(self.seed, &format!("channel-spread {norm}")).take(channels).map(power).collect()
    }
}

/// Powers of two along the last dimension of a tensor; `divides` where they are divided by.
struct Factors {
    powers: Rc<Vec<i32>>,
    divides: bool,
}

/// Writes the folder `output`, which must be absent or empty, with the function of `source` and other channel scales: the same files, the
/// same types, other values in norms and in the linears behind them. Compute in f16 apart, a forward pass gives the same bits.
///
/// # Errors
/// A source that is not a model folder, a number that leaves the range of its type when it is scaled, an output that cannot be written.
pub fn rescale_folder(
    source: &Path,
    output: &Path,
    spread: Spread,
    progress: &mut dyn FnMut(f64, &str),
) -> Result<Rescaled, ModelError> {
    let checkpoint = Checkpoint::open(source)?;
    let mut rescaled = Rescaled { norms: 0, channels: 0, deviation: 0.0 };
    let mut factors = BTreeMap::new();
    let (mut sum, mut squares) = (0.0, 0.0);
    for Feed { norm, bias, readers } in feeds(read_config(source)?.as_ref())? {
        let gain = format!("{norm}.weight");
        let channels = entry(&checkpoint, &gain)?.elements();
        let powers = Rc::new(spread.powers(&norm, channels));
        let names = bias.then(|| format!("{norm}.bias")).into_iter().chain([gain]).map(|name| (name, false));
        for (name, divides) in names.chain(readers.iter().map(|reader| (format!("{reader}.weight"), true))) {
            let found = entry(&checkpoint, &name)?;
            if found.shape.last() != Some(&channels) {
                let found = found.shape.iter().map(|&size| size as i64).collect();
                return Err(ModelError::Shape { name, found, wanted: vec![channels as i64] });
            }
            factors.insert(name, Factors { powers: Rc::clone(&powers), divides });
        }
        rescaled.norms += 1;
        rescaled.channels += channels;
        for logarithm in powers.iter().map(|&power| f64::from(power) * std::f64::consts::LN_2) {
            sum += logarithm;
            squares += logarithm * logarithm;
        }
    }
    let count = rescaled.channels.max(1) as f64;
    rescaled.deviation = (squares / count - (sum / count).powi(2)).max(0.0).sqrt();

    let mut change = |file: &File, entry: &Entry| match factors.get(&entry.name) {
        Some(factors) => scaled(file, entry, factors).map(Some),
        None => Ok(None),
    };
    let request = ExportRequest {
        source,
        output,
        max_shard_size: None,
        container: Container::Dense,
        patterns: &BTreeMap::new(),
        program: PROGRAM,
        run: None,
    };
    export::<ModelError>(&request, &mut change, None, progress)?;
    Ok(rescaled)
}

/// The feeds of a network of this configuration, without its weights.
pub fn feeds(config: &dyn Architecture) -> Result<Vec<Feed>, ModelError> {
    let special = config.special_tokens(&GenerationConfig::default());
    let network = Model::load(config, special, &mut Shapes::default(), &LoadOptions::on(Device::Cpu))?;
    Ok(network.feeds())
}

fn entry<'c>(checkpoint: &'c Checkpoint, name: &str) -> Result<&'c Entry, ModelError> {
    checkpoint.get(name).map(|(_, entry)| entry).ok_or_else(|| ModelError::Missing(name.to_owned()))
}

fn scaled(file: &File, entry: &Entry, factors: &Factors) -> Result<Vec<u8>, ModelError> {
    let Factors { powers, divides } = factors;
    let power = |index: usize| {
        let power = powers[index % powers.len()];
        if *divides { power.saturating_neg() } else { power }
    };
    scale(entry.dtype, &file.read(entry), power).ok_or_else(|| {
        let (name, dtype) = (&entry.name, entry.dtype);
        let wider = if dtype == Dtype::F16 { ", or a folder with weights in BF16 or F32" } else { "" };
        let reason = format!(
            "tensor `{name}` of type {dtype} cannot hold its values with these channel scales exactly; \
             choose a smaller `model.channel-spread`{wider}"
        );
        ModelError::file(file.path(), reason)
    })
}
