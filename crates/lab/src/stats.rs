//! Input statistics of every prunable linear, over samples that run one at a time.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use ressa_experiment::job::{AnsweredRequest, Stats};
use ressa_models::{ForwardInputs, Observer, VisionLanguage, config::TextConfig};
use ressa_runtime::Device;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::{LabError, Progress, loaded::Loaded, tensors::save};

/// Label of a position that does not count.
const IGNORED: i64 = -100;

/// Runs the samples and writes `<name>.sqsum`, `.sum` (f64 `[in]`) and `.rows` (i64, a scalar) of the inputs of each prunable linear.
pub(crate) fn run(job: &Stats, device: Device, progress: Progress<'_>) -> Result<Value, LabError> {
    progress(0.0, "loading");
    let loaded = Loaded::open(&job.model, device)?;
    let mut moments = Vec::new();
    for (id, linear) in loaded.model.linears() {
        let observer = Arc::new(Mutex::new(Moments::new(linear.shape().1, device)));
        let guard = linear.tap(Arc::clone(&observer) as Arc<Mutex<dyn Observer>>);
        moments.push((id.name.clone(), observer, guard));
    }
    for (index, request) in job.requests.iter().enumerate() {
        progress(index as f64 / job.requests.len() as f64, "collecting");
        loaded.model.forward(&sample(&loaded, request)?)?;
    }
    let linears = moments.len();
    let mut tensors = BTreeMap::new();
    for (name, observer, guard) in moments {
        drop(guard);
        let seen = observer.lock().unwrap_or_else(PoisonError::into_inner);
        tensors.insert(format!("{name}.sqsum"), seen.squares.shallow_clone());
        tensors.insert(format!("{name}.sum"), seen.sum.shallow_clone());
        tensors.insert(format!("{name}.rows"), Tensor::from(seen.rows));
    }
    save(&job.output, &tensors)?;
    Ok(json!({
        "output": job.output,
        "linears": linears,
        "samples": job.requests.len(),
        "peak_memory_bytes": ressa_runtime::peak_memory_bytes(),
    }))
}

/// A prompt and its answer, teacher-forced: what the processor and the reference's training make of one sample.
fn sample(loaded: &Loaded, request: &AnsweredRequest) -> Result<ForwardInputs, LabError> {
    let config = loaded.model.config();
    let image_tokens = config.image_token().map_or(0, |_| config.num_query_tokens as usize);
    let mut ids = vec![config.image_token().unwrap_or_default(); image_tokens];
    ids.extend(loaded.processor.encode_prompt(&request.prompt)?.into_iter().map(i64::from));
    let mut answer: Vec<i64> = loaded.processor.encode_answer(&request.answer)?.into_iter().map(i64::from).collect();
    answer.extend(loaded.model.special_tokens().eos.first());
    let labels = match config.text_config {
        TextConfig::T5(_) => answer,
        // A decoder-only model reads prompt and answer as one sequence.
        _ => {
            let labels = vec![IGNORED; ids.len()].into_iter().chain(answer.iter().copied()).collect();
            ids.extend(answer);
            labels
        }
    };
    let row = |ids: &[i64]| Tensor::from_slice(ids).unsqueeze(0).to_device(loaded.device);
    let qformer = loaded.qformer(&[&request.prompt])?;
    let reads = qformer.mask.any().int64_value(&[]) != 0;
    Ok(ForwardInputs {
        pixel_values: loaded.pixels(&request.image)?,
        attention_mask: row(&ids).ones_like(),
        input_ids: row(&ids),
        labels: Some(row(&labels)),
        qformer_attention_mask: reads.then(|| qformer.mask.to_kind(Kind::Int64)),
        qformer_input_ids: reads.then_some(qformer.ids),
    })
}

/// Sums over rows, in f64: a sum of many squares in f32 would lose its last ones.
struct Moments {
    squares: Tensor,
    sum: Tensor,
    rows: i64,
}

impl Moments {
    fn new(columns: i64, device: Device) -> Self {
        let zeros = || Tensor::zeros([columns], (Kind::Double, device));
        Self { squares: zeros(), sum: zeros(), rows: 0 }
    }
}

impl Observer for Moments {
    fn observe(&mut self, input: &Tensor) {
        let rows = input.reshape([-1, self.sum.size()[0]]).to_kind(Kind::Double);
        self.rows += rows.size()[0];
        let over_rows = |x: &Tensor| x.sum_dim_intlist([0i64].as_slice(), false, Kind::Double);
        self.squares += over_rows(&rows.square());
        self.sum += over_rows(&rows);
    }
}
