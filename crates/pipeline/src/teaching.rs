//! The teacher of a distillation, where it is another model than the dense one; and what a teacher says about training batches, kept for every
//! training that sees the same ones.

use std::collections::BTreeMap;

use ressa_data::{reads_otherwise, tokens_made, words_of};
use ressa_experiment::{ReadingKind, Stage, StageNode, config::DataSource, stage::AdaptTraining};
use ressa_restore::{Output, Teacher, TeacherOutputs, TeacherStore};
use ressa_store::{Cache, CacheKey};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::json;
use tch::{Device, Kind, Tensor};

use crate::{Executor, PipelineError, resident::load_on};

/// Types of the outputs.
const KINDS: [(Kind, Dtype); 4] =
    [(Kind::Float, Dtype::F32), (Kind::BFloat16, Dtype::BF16), (Kind::Half, Dtype::F16), (Kind::Int64, Dtype::I64)];

/// A cache seen by one training.
pub(crate) struct Kept {
    cache: Cache,
    training: CacheKey,
}

impl Executor {
    /// The model that a training learns from, where its settings name one. Its weights are read when they are needed.
    ///
    /// # Errors
    /// A folder that reads images or texts in another way than the student's: it is given the student's batches.
    pub(crate) fn teacher<'a>(
        &self,
        node: &StageNode,
        training: &'a AdaptTraining,
    ) -> Result<Option<Teacher<'a>>, PipelineError> {
        let Some(folder) = training.distill.as_ref().and_then(|distill| distill.teacher.as_deref()) else {
            return Ok(None);
        };
        let (student, _) = self.folder(node)?;
        if let Some(what) = reads_otherwise(&student, folder)? {
            return Err(PipelineError::Unsupported(format!(
                "the teacher `{}` reads otherwise than the model that it teaches: {what}; choose one with the same tokenizer and image \
                 preprocessing",
                folder.display()
            )));
        }
        let words = words_of(folder)?;
        let (device, compute) = (self.device, node.stage.compute());
        let teacher = Teacher::outside(words, move || load_on(device, folder, compute, true));
        // A tokenizer is read where its size decides something.
        Ok(Some(if words == words_of(&student)? { teacher } else { teacher.of_tokens(tokens_made(&student)?) }))
    }

    /// Where the teacher's outputs of a training are kept; nothing without a cache. Whole logits of a large vocabulary are more than a cache
    /// should hold: with published data they are kept only by their most probable tokens (`restore.distill.top-k`). Hidden states and attention are never kept.
    pub(crate) fn teacher_store(&self, node: &StageNode) -> Option<Kept> {
        let cache = self.loading.cache.as_ref()?;
        // Data by content: other captions in the same folder make other batches.
        let stage = node.stage.by_content(&node.readings);
        let (dense, Stage::Adapt { training, data, seed, compute, .. }) = (node.inputs.dense?, stage) else {
            return None;
        };
        let distill = training.distill.as_ref()?;
        if (data.source == DataSource::Folder && distill.top_k.is_none()) || distill.looks_inside() {
            return None;
        }
        // Batches that depend on how a training goes are no other training's.
        if training.loading.is_on() {
            return None;
        }
        // Everything that the batches follow from, and everything that the outputs depend on beside them.
        let mut said = json!({
            "dense": dense,
            "data": data,
            "seed": seed,
            "batch": training.batch,
            "questions": training.questions,
            "samples": training.samples,
            "steps": training.steps,
            "contrastive": training.contrastive > 0.0,
            "top-k": distill.top_k,
            "temperature": distill.top_k.map(|_| distill.temperature),
            "compute": compute,
            "arithmetic": self.arithmetic(),
            // How batches are drawn and asked is the stage's code.
            "version": node.stage.version(),
        });
        if distill.teacher.is_some() {
            // Without a digest nobody knows whether it is the same model another time.
            said["teacher"] = node.readings.of(ReadingKind::Teacher)?.content.clone()?.into();
        }
        Some(Kept { cache: cache.clone(), training: CacheKey::new("teacher").with(said.to_string()) })
    }
}

impl Kept {
    fn key(&self, step: u32) -> CacheKey {
        self.training.with(step.to_le_bytes())
    }
}

impl TeacherStore for Kept {
    fn get(&self, step: u32) -> Option<TeacherOutputs> {
        read(&self.cache.get(&self.key(step))?)
    }

    fn put(&self, step: u32, taught: &TeacherOutputs) {
        // A cache that cannot be written costs time only.
        if let Some(bytes) = written(taught) {
            self.cache.put(&self.key(step), &bytes);
        }
    }
}

fn written(taught: &TeacherOutputs) -> Option<Vec<u8>> {
    let mut parts = BTreeMap::new();
    for (name, output) in [("questions", &taught.questions), ("captions", &taught.captions)] {
        for (at, tensor) in output.iter().flat_map(Output::tensors).enumerate() {
            let tensor = tensor.to_device(Device::Cpu).contiguous();
            let (_, dtype) = KINDS.iter().find(|(kind, _)| *kind == tensor.kind())?;
            let mut data = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
            tensor.f_copy_data_u8(&mut data, tensor.numel()).ok()?;
            let shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
            parts.insert(format!("{name}.{at}"), (*dtype, shape, data));
        }
    }
    let views = parts
        .iter()
        .map(|(name, (dtype, shape, data))| Some((name, TensorView::new(*dtype, shape.clone(), data).ok()?)));
    safetensors::serialize(views.collect::<Option<Vec<_>>>()?, None).ok()
}

fn read(bytes: &[u8]) -> Option<TeacherOutputs> {
    let file = SafeTensors::deserialize(bytes).ok()?;
    let tensor = |name: String| {
        let view = file.tensor(&name).ok()?;
        let (kind, _) = KINDS.iter().find(|(_, dtype)| *dtype == view.dtype())?;
        let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
        Tensor::f_from_data_size(view.data(), &shape, *kind).ok()
    };
    let output = |name: &str| Output::from_tensors((0..).map_while(|at| tensor(format!("{name}.{at}"))).collect());
    Some(TeacherOutputs { questions: output("questions"), captions: output("captions"), ..TeacherOutputs::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let logits = (Tensor::arange(24, (Kind::Float, Device::Cpu)) * 0.3).sin().view([2, 3, 4]);
        let top =
            Output::Top { ids: logits.argsort(-1, true).narrow(2, 0, 2), log_probabilities: logits.narrow(2, 0, 2) };
        for taught in [
            TeacherOutputs {
                questions: Some(Output::Logits(logits.to_kind(Kind::BFloat16))),
                captions: Some(top),
                ..TeacherOutputs::default()
            },
            TeacherOutputs { captions: Some(Output::Logits(logits.shallow_clone())), ..TeacherOutputs::default() },
            TeacherOutputs::default(),
        ] {
            let again = read(&written(&taught).unwrap()).unwrap();
            for (one, other) in [(&taught.questions, &again.questions), (&taught.captions, &again.captions)] {
                let tensors = |output: &Option<Output>| -> Vec<Tensor> {
                    output.iter().flat_map(Output::tensors).map(Tensor::shallow_clone).collect()
                };
                let (one, other) = (tensors(one), tensors(other));
                assert_eq!(one.len(), other.len());
                assert!(one.iter().zip(&other).all(|(a, b)| a.kind() == b.kind() && a.equal(b)));
            }
        }
        assert!(read(b"something else").is_none());
    }
}
