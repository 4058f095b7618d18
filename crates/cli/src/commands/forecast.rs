//! What the rest of a plan takes on a card that is not here: from sizes, and from times where stages ran on such a card before.

use std::fs;

use ressa_experiment::StageKey;
use ressa_predict::{Card, Cards, Host, PredictError, Prediction, Predictor, Shared};
use ressa_runlog::Index;
use ressa_store::Store;
use ressa_sweep::{Estimates, Graph, GraphStage, Inventory, detail};
use serde_json::{Value, json};

use crate::{
    arguments::{PlanOptions, loading::DEFAULT_CACHE},
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

/// Stages of one kind that are still to be made.
struct StageGroup {
    kind: &'static str,
    detail: &'static str,
    stages: usize,
    /// Of these, how many have a time from such a card.
    timed: usize,
    seconds: f64,
    /// The stage that needs most memory; none where nothing can be predicted.
    worst: Option<Prediction>,
    fits: bool,
    /// How a training changes its layout by itself where it does not fit as it is.
    fallback: Option<String>,
}

/// What one card makes of a plan.
pub struct Forecast {
    id: String,
    card: Card,
    cores: u32,
    groups: Vec<StageGroup>,
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
    (store, index): (&Store, &Index),
) -> Result<Vec<Forecast>, Failure> {
    if options.device.is_empty() {
        return Ok(Vec::new());
    }
    let cards = cards(workspace)?;
    let chosen = options.device.iter().map(|id| Ok((id, cards.get(id)?))).collect::<Result<Vec<_>, PredictError>>()?;
    let predictor = predictor(workspace, graph, store)?;
    let host = Host { cores: options.cores, tf32: options.tf32 };
    let on = |(id, card): (&String, &Card)| {
        let estimates = Estimates::of(index, |device| is_called(device, id));
        let mut groups: Vec<StageGroup> = Vec::new();
        let mut shared = Shared::new(DEFAULT_CACHE);
        for stage in open(graph, inventory) {
            add(&mut groups, stage, predictor.stage(&stage.node, card, host, &mut shared), &estimates);
        }
        Forecast { id: id.clone(), card: card.clone(), cores: options.cores, groups }
    };
    Ok(chosen.into_iter().map(on).collect())
}

fn cards(workspace: &Workspace) -> Result<Cards, Failure> {
    let path = workspace.experiments.join(CARDS);
    let text = fs::read_to_string(&path)
        .map_err(|e| Failure::new(Exit::MissingInput, format!("cannot read `{}`: {e}", workspace.show(&path))))?;
    Ok(Cards::parse(&text)?)
}

fn predictor<'a>(workspace: &'a Workspace, graph: &'a Graph, store: &Store) -> Result<Predictor<'a>, PredictError> {
    let trained = |key: &StageKey| Some(store.entry(&key.hex()).ok()??.folder().join("model"));
    let nodes = graph.stages.iter().map(|stage| stage.node.as_ref());
    Predictor::new(nodes, &workspace.root, trained)
}

fn open<'g>(graph: &'g Graph, inventory: &'g Inventory) -> impl Iterator<Item = &'g GraphStage> {
    graph.stages.iter().zip(&inventory.present).filter(|(_, present)| !**present).map(|(stage, _)| stage)
}

/// Workers of a sweep that the memory of a GPU holds at once, each with the stage that needs most; none where the card or its models are not
/// known.
pub fn workers_on(
    device: &str,
    workspace: &Workspace,
    graph: &Graph,
    inventory: &Inventory,
    (store, host): (&Store, Host),
) -> Option<usize> {
    let cards = cards(workspace).ok()?;
    let card = cards.iter().find(|(id, _)| is_called(device, id))?.1;
    let predictor = predictor(workspace, graph, store).ok()?;
    let mut shared = Shared::new(DEFAULT_CACHE);
    let needs = open(graph, inventory).filter_map(|stage| predictor.stage(&stage.node, card, host, &mut shared));
    let peak = needs.map(|need| need.peak_bytes).max().filter(|&peak| peak > 0)?;
    Some(usize::try_from(card.memory() / peak).unwrap_or(usize::MAX).max(1))
}

/// Whether a driver's name of a GPU is that of a card: `NVIDIA A100-SXM4-80GB` is `a100-80`.
fn is_called(device: &str, id: &str) -> bool {
    let device = device.to_ascii_lowercase();
    let words: Vec<&str> = device.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    id.to_ascii_lowercase().split('-').all(|part| words.iter().any(|word| word.starts_with(part)))
}

fn add(groups: &mut Vec<StageGroup>, stage: &GraphStage, prediction: Option<Prediction>, estimates: &Estimates) {
    let (kind, detail) = (stage.node.stage.kind(), detail(&stage.node.stage));
    let timed = estimates.timed(stage);
    let predicted = prediction.as_ref().map(|prediction| prediction.seconds);
    let position = groups.iter().position(|group| group.kind == kind && group.detail == detail).unwrap_or_else(|| {
        groups.push(StageGroup {
            kind,
            detail,
            stages: 0,
            timed: 0,
            seconds: 0.0,
            worst: None,
            fits: true,
            fallback: None,
        });
        groups.len() - 1
    });
    let group = &mut groups[position];
    group.stages += 1;
    group.timed += usize::from(timed.is_some());
    group.seconds += timed.or(predicted).unwrap_or_else(|| estimates.seconds(stage));
    if let Some(prediction) = prediction {
        group.fits &= prediction.fits;
        group.fallback = group.fallback.take().or_else(|| prediction.fallback.clone());
        if group.worst.as_ref().is_none_or(|worst| worst.peak_bytes < prediction.peak_bytes) {
            group.worst = Some(prediction);
        }
    }
}

impl StageGroup {
    fn name(&self) -> String {
        format!("{} {}", self.kind, self.detail).trim_end().to_owned()
    }

    fn peak(&self) -> u64 {
        self.worst.as_ref().map_or(0, |worst| worst.peak_bytes)
    }

    fn verdict(&self) -> String {
        match (&self.worst, self.fits, &self.fallback) {
            (None, ..) => "?".to_owned(),
            (_, false, _) => "no".to_owned(),
            (_, true, Some(fallback)) => format!("yes, {fallback}"),
            (_, true, None) => "yes".to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({
            "kind": self.kind, "detail": self.detail, "stages": self.stages, "timed": self.timed, "fits": self.fits,
            "fallback": self.fallback, "seconds": self.seconds, "worst": self.worst,
        })
    }
}

impl Forecast {
    fn seconds(&self) -> f64 {
        self.groups.iter().map(|group| group.seconds).sum()
    }

    fn worst(&self) -> Option<&StageGroup> {
        self.groups.iter().max_by_key(|group| group.peak())
    }

    /// For a machine.
    pub fn json(&self) -> Value {
        json!({
            "device": self.id, "name": self.card.name, "memory-bytes": self.card.memory(), "cores": self.cores,
            "fits": self.groups.iter().all(|group| group.fits), "peak-bytes": self.worst().map_or(0, StageGroup::peak),
            "seconds": self.seconds(), "kinds": self.groups.iter().map(StageGroup::json).collect::<Vec<_>>(),
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
        for group in &self.groups {
            let source = match group.timed {
                0 => "",
                timed if timed == group.stages => "timed",
                _ => "some timed",
            };
            rows.push(vec![
                group.name(),
                group.stages.to_string(),
                group.verdict(),
                match (&group.worst, group.peak()) {
                    (None, _) => "?".to_owned(),
                    (_, 0) => String::new(),
                    (_, peak) => size(peak),
                },
                duration(group.seconds / group.stages as f64),
                duration(group.seconds),
                source.to_owned(),
            ]);
        }
        say(columns(&rows).trim_end());
        say(self.sentence());
    }

    fn sentence(&self) -> String {
        let lacking: Vec<String> = self.groups.iter().filter(|group| !group.fits).map(StageGroup::name).collect();
        let peak = self.worst().map(|group| format!("at most {} ({})", size(group.peak()), group.name()));
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
