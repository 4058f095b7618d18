//! What the rest of a plan takes on a card that is not here: from sizes, and from times where stages ran on such a card before.

use std::fs;

use ressa_experiment::StageKey;
use ressa_predict::{Card, Cards, Host, PredictError, Prediction, Predictor};
use ressa_store::Store;
use ressa_sweep::{Estimates, Graph, GraphStage, Inventory, detail};
use serde_json::{Value, json};

use crate::{
    arguments::PlanOptions,
    exit::{Exit, Failure},
    text::{columns, count, duration, say, size},
    workspace::Workspace,
};

/// File of the cards, below the experiments.
pub const CARDS: &str = "devices.yaml";

impl From<PredictError> for Failure {
    fn from(error: PredictError) -> Self {
        let exit = match &error {
            PredictError::UnknownCard { .. } => Exit::Usage,
            PredictError::Cards { .. } | PredictError::Model { .. } => Exit::Unusable,
            PredictError::UnknownModel { .. } => Exit::MissingInput,
        };
        Failure::new(exit, error.to_string())
    }
}

/// Stages of one sort that are still to be made.
struct Sort {
    kind: &'static str,
    detail: &'static str,
    stages: usize,
    /// Of these, how many have a time from such a card.
    timed: usize,
    seconds: f64,
    /// The stage that needs most memory; none where nothing can be predicted.
    worst: Option<Prediction>,
    fits: bool,
    with: Option<String>,
}

/// What one card makes of a plan.
pub struct Forecast {
    id: String,
    card: Card,
    cores: u32,
    sorts: Vec<Sort>,
}

/// The forecasts that `--device` asks for.
///
/// # Errors
/// A card that is not in the file; a checkpoint whose sizes are not known.
pub fn forecasts(
    options: &PlanOptions,
    workspace: &Workspace,
    graph: &Graph,
    inventory: &Inventory,
    store: &Store,
) -> Result<Vec<Forecast>, Failure> {
    if options.device.is_empty() {
        return Ok(Vec::new());
    }
    let path = workspace.experiments.join(CARDS);
    let text = fs::read_to_string(&path)
        .map_err(|e| Failure::new(Exit::MissingInput, format!("cannot read `{}`: {e}", workspace.show(&path))))?;
    let cards = Cards::parse(&text)?;
    let chosen = options.device.iter().map(|id| Ok((id, cards.get(id)?))).collect::<Result<Vec<_>, PredictError>>()?;
    let trained = |key: &StageKey| Some(store.entry(&key.0).ok()??.folder().join("model"));
    let nodes = graph.stages.iter().map(|stage| stage.node.as_ref());
    let predictor = Predictor::new(nodes, &workspace.root, trained)?;
    let host = Host { cores: options.cores, tf32: options.tf32 };
    let open = || graph.stages.iter().zip(&inventory.present).filter(|(_, present)| !**present).map(|(stage, _)| stage);
    let on = |(id, card): (&String, &Card)| {
        let estimates = Estimates::from_journal(store, |device| is_called(device, id));
        let mut sorts: Vec<Sort> = Vec::new();
        for stage in open() {
            add(&mut sorts, stage, predictor.stage(&stage.node, card, host), &estimates);
        }
        Forecast { id: id.clone(), card: card.clone(), cores: options.cores, sorts }
    };
    Ok(chosen.into_iter().map(on).collect())
}

/// Whether a driver's name of a GPU is that of a card: `NVIDIA A100-SXM4-80GB` is `a100-80`.
fn is_called(device: &str, id: &str) -> bool {
    let device = device.to_ascii_lowercase();
    let words: Vec<&str> = device.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    id.to_ascii_lowercase().split('-').all(|part| words.iter().any(|word| word.starts_with(part)))
}

fn add(sorts: &mut Vec<Sort>, stage: &GraphStage, prediction: Option<Prediction>, estimates: &Estimates) {
    let (kind, detail) = (stage.node.stage.kind(), detail(&stage.node.stage));
    let timed = estimates.timed(stage);
    let predicted = prediction.as_ref().map(|prediction| prediction.seconds);
    let position = sorts.iter().position(|sort| sort.kind == kind && sort.detail == detail).unwrap_or_else(|| {
        sorts.push(Sort { kind, detail, stages: 0, timed: 0, seconds: 0.0, worst: None, fits: true, with: None });
        sorts.len() - 1
    });
    let sort = &mut sorts[position];
    sort.stages += 1;
    sort.timed += usize::from(timed.is_some());
    sort.seconds += timed.or(predicted).unwrap_or_else(|| estimates.seconds(stage));
    if let Some(prediction) = prediction {
        sort.fits &= prediction.fits;
        sort.with = sort.with.take().or_else(|| prediction.with.clone());
        if sort.worst.as_ref().is_none_or(|worst| worst.peak_bytes < prediction.peak_bytes) {
            sort.worst = Some(prediction);
        }
    }
}

impl Sort {
    fn name(&self) -> String {
        format!("{} {}", self.kind, self.detail).trim_end().to_owned()
    }

    fn peak(&self) -> u64 {
        self.worst.as_ref().map_or(0, |worst| worst.peak_bytes)
    }

    fn verdict(&self) -> String {
        match (&self.worst, self.fits, &self.with) {
            (None, ..) => "?".to_owned(),
            (_, false, _) => "no".to_owned(),
            (_, true, Some(setting)) => format!("with {setting}"),
            (_, true, None) => "yes".to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind, "detail": self.detail, "stages": self.stages, "timed": self.timed, "fits": self.fits,
            "with": self.with, "seconds": self.seconds, "worst": self.worst,
        })
    }
}

impl Forecast {
    fn seconds(&self) -> f64 {
        self.sorts.iter().map(|sort| sort.seconds).sum()
    }

    fn worst(&self) -> Option<&Sort> {
        self.sorts.iter().max_by_key(|sort| sort.peak())
    }

    /// For a machine.
    pub fn json(&self) -> Value {
        json!({
            "device": self.id, "name": self.card.name, "memory-bytes": self.card.memory(), "cores": self.cores,
            "fits": self.sorts.iter().all(|sort| sort.fits), "peak-bytes": self.worst().map_or(0, Sort::peak),
            "seconds": self.seconds(), "kinds": self.sorts.iter().map(Sort::json).collect::<Vec<_>>(),
        })
    }

    /// For people: a table, and a sentence.
    pub fn print(&self) {
        say(format_args!(
            "\n{}: {}, {} of memory, {}",
            self.id,
            self.card.name,
            size(self.card.memory()),
            count(self.cores as usize, "host core")
        ));
        let mut rows = vec![["stage", "to do", "fits", "peak", "each", "together", ""].map(str::to_owned).to_vec()];
        for sort in &self.sorts {
            let source = match sort.timed {
                0 => "",
                timed if timed == sort.stages => "timed",
                _ => "some timed",
            };
            rows.push(vec![
                sort.name(),
                sort.stages.to_string(),
                sort.verdict(),
                match (&sort.worst, sort.peak()) {
                    (None, _) => "?".to_owned(),
                    (_, 0) => String::new(),
                    (_, peak) => size(peak),
                },
                duration(sort.seconds / sort.stages as f64),
                duration(sort.seconds),
                source.to_owned(),
            ]);
        }
        say(columns(&rows).trim_end());
        say(self.sentence());
    }

    fn sentence(&self) -> String {
        let lacking: Vec<String> = self.sorts.iter().filter(|sort| !sort.fits).map(Sort::name).collect();
        let peak = self.worst().map(|sort| format!("at most {} ({})", size(sort.peak()), sort.name()));
        let peak = peak.unwrap_or_else(|| "nothing".to_owned());
        let time = duration(self.seconds());
        let name = &self.card.name;
        if lacking.is_empty() {
            return format!("fits: about {time} on one {name}, {peak} of its {}", size(self.card.memory()));
        }
        format!(
            "does not fit on one {name}: {} would not run; {peak} of {}",
            lacking.join(", "),
            size(self.card.memory())
        )
    }
}

#[cfg(test)]
mod tests {
    use super::is_called;

    #[test]
    fn drivers_names_are_cards() {
        let of = |device: &str| {
            let cards = ["h100", "h200", "a100-80", "rtx-4090"];
            cards.into_iter().filter(|id| is_called(device, id)).collect::<Vec<_>>()
        };
        assert_eq!(of("NVIDIA H100 80GB HBM3"), ["h100"]);
        assert_eq!(of("NVIDIA H200"), ["h200"]);
        assert_eq!(of("NVIDIA A100-SXM4-80GB"), ["a100-80"]);
        assert_eq!(of("NVIDIA A100-SXM4-40GB"), [""; 0]);
        assert_eq!(of("NVIDIA GeForce RTX 4090"), ["rtx-4090"]);
        assert_eq!(of("NVIDIA GH200 480GB"), [""; 0]);
        assert_eq!(of("cpu"), [""; 0]);
    }
}
