//! What a name of a filter stands for in an experiment, and the values that a cell has there.

use crate::{
    Cell, Experiment, Stage,
    address::Address,
    error::{ErrorKind, ExperimentError},
    output::Label,
    settings::SETTINGS,
    spelling,
    stage::StageNode,
    suggest,
};

use super::syntax::Word;

/// Names that every experiment has, besides its axes and settings.
pub(super) const OWN: [&str; 6] = ["seed", "run", "experiment", "point", "kind", "task"];

/// What is compared.
#[derive(Clone, Debug)]
pub(super) enum Subject {
    Seed,
    Run,
    Experiment,
    /// Name of an `include` point.
    Point,
    /// Kind of a stage.
    Kind,
    /// Task of an evaluation.
    Task,
    /// Position among the coordinates, and the setting that the axis varies, where it is one.
    Axis(usize, Option<Address>),
    Setting(Address),
}

/// What a name can mean.
enum Meaning {
    None,
    One(Subject),
    Many(Vec<String>),
}

/// What a name stands for in each experiment; `None` where it stands for nothing.
pub(super) fn resolve(name: &Word, experiments: &[Experiment]) -> Result<Vec<Option<Subject>>, ExperimentError> {
    let mut found = Vec::with_capacity(experiments.len());
    for experiment in experiments {
        match meaning(&name.text, experiment) {
            Meaning::None => found.push(None),
            Meaning::One(subject) => found.push(Some(subject)),
            Meaning::Many(names) => {
                let names = suggest::list(names.iter().map(String::as_str));
                return Err(name
                    .at
                    .error(ErrorKind::UnknownName, format!("`{}` can mean several settings", name.text))
                    .label("not unique")
                    .help(format!("write one in full: {names}")));
            }
        }
    }
    if found.iter().all(Option::is_none) {
        let axes = experiments.iter().flat_map(|experiment| &experiment.axes).map(|axis| axis.name.as_str());
        let known = axes.clone().chain(OWN).chain(SETTINGS.iter().map(|setting| setting.path));
        let error = name.at.error(ErrorKind::UnknownName, format!("no axis or setting is named `{}`", name.text));
        let mut names: Vec<&str> = axes.chain(OWN).collect();
        names.dedup();
        return Err(error.label("unknown name").help(match suggest::nearest(&name.text, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("names: {}, and every setting", suggest::list(names)),
        }));
    }
    Ok(found)
}

/// What a name can mean, in today's spelling or an earlier one.
fn meaning(name: &str, experiment: &Experiment) -> Meaning {
    match (exact_meaning(name, experiment), spelling::end_of_setting(name)) {
        (Meaning::None, Some(today)) => exact_meaning(&today, experiment),
        (found, _) => found,
    }
}

/// An axis of that name comes first, then what every experiment has, a setting's path, and the end of one path.
fn exact_meaning(name: &str, experiment: &Experiment) -> Meaning {
    let steps = &experiment.document.steps;
    let axis = |at: usize| Subject::Axis(at, Address::find(&experiment.axes[at].name, steps));
    if let Some(at) = experiment.axes.iter().position(|axis| axis.name == name) {
        return Meaning::One(axis(at));
    }
    let own = [Subject::Seed, Subject::Run, Subject::Experiment, Subject::Point, Subject::Kind, Subject::Task];
    if let Some(at) = OWN.iter().position(|own| *own == name) {
        return Meaning::One(own[at].clone());
    }
    if let Some(address) = Address::find(name, steps) {
        return Meaning::One(Subject::Setting(address));
    }
    let ends = |path: &str| path.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
    let axes: Vec<usize> = (0..experiment.axes.len()).filter(|&at| ends(&experiment.axes[at].name)).collect();
    let paths: Vec<_> = SETTINGS.iter().filter(|setting| ends(setting.path)).collect();
    match (axes.as_slice(), paths.as_slice()) {
        ([], []) => Meaning::None,
        ([one], _) => Meaning::One(axis(*one)),
        ([], [one]) => Meaning::One(Subject::Setting((*one).into())),
        ([], many) => Meaning::Many(many.iter().map(|setting| setting.path.to_owned()).collect()),
        (many, _) => Meaning::Many(many.iter().map(|&at| experiment.axes[at].name.clone()).collect()),
    }
}

impl Subject {
    /// Whether it tells stages of one run apart.
    pub fn is_of_stages(&self) -> bool {
        matches!(self, Subject::Kind | Subject::Task)
    }

    /// The setting behind it.
    pub fn setting(&self) -> Option<&Address> {
        match self {
            Subject::Axis(_, address) => address.as_ref(),
            Subject::Setting(address) => Some(address),
            _ => None,
        }
    }

    /// Every value that there is, where they are few and known.
    pub fn labels(&self, experiment: &Experiment) -> Option<Vec<String>> {
        match self {
            Subject::Seed => Some(experiment.seeds.iter().map(u64::to_string).collect()),
            Subject::Experiment => Some(vec![experiment.name.clone()]),
            Subject::Kind => Some(Stage::VERSIONS.map(|(kind, _)| kind.to_owned()).to_vec()),
            Subject::Task => Some(crate::Task::NAMES.map(str::to_owned).to_vec()),
            Subject::Point | Subject::Axis(..) => {
                let mut labels = match self {
                    Subject::Axis(at, _) => experiment.axes[*at].labels.clone(),
                    _ => Vec::new(),
                };
                for point in experiment.cells.iter().filter_map(|cell| cell.point.as_ref()) {
                    if !labels.contains(point) {
                        labels.push(point.clone());
                    }
                }
                Some(labels)
            }
            Subject::Run | Subject::Setting(_) => None,
        }
    }

    /// Whether `test` holds for a value of a cell and one of its stages; it is given `None` where there is no value.
    pub fn any(
        &self,
        experiment: &str,
        cell: &Cell,
        stage: Option<&StageNode>,
        test: &dyn Fn(Option<&str>) -> bool,
    ) -> bool {
        let of = |address: &Address| test(Label::of(&address.get(&cell.run)).as_ref().map(|label| label.0.as_str()));
        match self {
            Subject::Seed => test(Some(&cell.seed.to_string())),
            Subject::Run => test(Some(&cell.run_id)),
            Subject::Experiment => test(Some(experiment)),
            Subject::Point => test(cell.point.as_deref()),
            Subject::Kind => test(stage.map(|node| node.stage.kind())),
            Subject::Task => test(stage.and_then(|node| match &*node.stage {
                Stage::Evaluate { task, .. } => Some(task.name()),
                _ => None,
            })),
            Subject::Setting(address) => of(address),
            Subject::Axis(at, address) => {
                let label = cell.coordinates.get(*at).map(|(_, label)| label.as_str());
                // An `include` point has its own name where it says no label; its setting is a value too.
                let is_unstated = cell.point.is_some() && cell.point.as_deref() == label;
                test(label) || address.as_ref().filter(|_| is_unstated).is_some_and(of)
            }
        }
    }
}
