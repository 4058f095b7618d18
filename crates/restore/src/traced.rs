//! Running a model while looking at what is inside: hidden states behind blocks of the language model, and what blocks of any tower attend to.

use std::collections::BTreeMap;

use ressa_experiment::config::HiddenConfig;
use ressa_models::{Attended, Entry, Flow, Forced, Targets, TokenKind, Tower, VisionLanguage};
use tch::{Kind, Tensor};

use crate::{
    attention::Maps,
    batch::{are_features, features},
    micro::Exchange,
    states::States,
};

/// What of student and teacher is compared inside of the networks.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    pub states: States,
    pub maps: Maps,
    /// The columns of logits that student and teacher have in common, the first so many; `None` where both have the same.
    pub words: Option<i64>,
}

/// What of one model is looked at.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    /// Blocks of the language model whose outputs are.
    states: Vec<usize>,
    /// Blocks whose attention is, by tower.
    maps: BTreeMap<Tower, Vec<usize>>,
}

/// What a teacher has inside in an exchange, for every compared block in the order of the student's.
#[derive(Debug, Default)]
pub struct Inside {
    /// Hidden states `[rows, tokens, width]`.
    pub states: Vec<Tensor>,
    /// Attentions of connector and language model.
    pub maps: Vec<Vec<Attended>>,
}

impl Compared {
    /// Whether nothing inside is compared.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty() && self.maps.is_empty()
    }

    /// Logits `[..., words]` without the columns that only one of student and teacher has.
    pub fn in_common(&self, logits: Tensor) -> Tensor {
        match self.words {
            Some(words) => logits.narrow(-1, 0, words),
            None => logits,
        }
    }

    /// What of the student is looked at.
    pub fn of_student(&self) -> Watched {
        let maps = Tower::ALL.map(|tower| (tower, self.maps.blocks(tower)));
        Watched { states: self.states.blocks(), maps: maps.into() }
    }

    fn of_teacher(&self) -> Watched {
        let maps = Tower::ALL.map(|tower| (tower, self.maps.of_teacher(tower)));
        Watched { states: self.states.of_teacher(), maps: maps.into() }
    }

    /// Image features of what a batch shows, as the teacher has them, with its image encoder's attentions that are compared.
    pub fn ask_images(&self, teacher: &dyn VisionLanguage, shown: &Tensor) -> (Tensor, Vec<Vec<Attended>>) {
        let (features, maps) = images_traced(teacher, shown, &self.of_teacher());
        let of_block =
            |block: usize| maps[&(Tower::Vision, block)].iter().map(Attended::shallow_clone).collect::<Vec<_>>();
        (features, self.maps.of_teacher(Tower::Vision).into_iter().filter(|_| !maps.is_empty()).map(of_block).collect())
    }

    /// What a teacher says of an exchange, and what it has inside.
    pub fn ask(
        &self,
        teacher: &dyn VisionLanguage,
        features: &Tensor,
        exchange: &Exchange,
    ) -> Option<(Forced, Inside)> {
        let Traced { forced, states, maps, .. } = forced_traced(teacher, features, exchange, &self.of_teacher())?;
        let of_block = |tower: Tower| {
            let maps = &maps;
            let of_block = move |block| maps[&(tower, block)].iter().map(Attended::shallow_clone).collect::<Vec<_>>();
            self.maps.of_teacher(tower).into_iter().map(of_block)
        };
        Some((
            forced,
            Inside {
                states: self.states.of_teacher().iter().map(|block| states[block].shallow_clone()).collect(),
                maps: of_block(Tower::Connector).chain(of_block(Tower::Language)).collect(),
            },
        ))
    }
}

impl Watched {
    fn of(&self, tower: Tower) -> &[usize] {
        self.maps.get(&tower).map(Vec::as_slice).unwrap_or_default()
    }
}

/// Attentions by tower and block.
pub(crate) type Attentions = BTreeMap<(Tower, usize), Vec<Attended>>;

/// Teacher-forced outputs with what was looked at.
pub(crate) struct Traced {
    pub forced: Forced,
    /// What left some of the language model's blocks.
    pub states: BTreeMap<usize, Tensor>,
    /// Attentions of connector and language model.
    pub maps: Attentions,
    /// What entered the language model's first block.
    pub entry: Flow,
}

/// Image features of what a batch shows, and attentions of the image encoder, where it runs.
pub(crate) fn images_traced(model: &dyn VisionLanguage, shown: &Tensor, watched: &Watched) -> (Tensor, Attentions) {
    if are_features(shown) || watched.of(Tower::Vision).is_empty() {
        return (features(model, shown), Attentions::new());
    }
    let mut maps = Attentions::new();
    let entry = model.enter_from(Entry::Pixels(shown));
    let last = run(model, Tower::Vision, entry, watched.of(Tower::Vision), &mut maps, &mut |_, _| {});
    (model.leave(Tower::Vision, &last), maps)
}

/// Teacher-forced outputs of an exchange with what is looked at; `None` where there is none.
pub(crate) fn forced_traced(
    model: &dyn VisionLanguage,
    features: &Tensor,
    exchange: &Exchange,
    watched: &Watched,
) -> Option<Traced> {
    if exchange.answers.is_empty() {
        return None;
    }
    let (prompts, answers) = (&exchange.prompts, exchange.answers());
    let mut maps = Attentions::new();
    let prefix = if watched.of(Tower::Connector).is_empty() {
        model.visual_prefix(features, prompts)
    } else {
        let entry = model.enter_from(Entry::Features { features, prompts });
        let last = run(model, Tower::Connector, entry, watched.of(Tower::Connector), &mut maps, &mut |_, _| {});
        model.place_images(model.leave(Tower::Connector, &last), &prompts.language)
    };
    let entry = model.enter_from(Entry::Prefix { prefix: &prefix, prompt: &prompts.language, answers });
    let mut states = BTreeMap::new();
    let flow = entry.shallow_clone();
    let flow = run(model, Tower::Language, flow, watched.of(Tower::Language), &mut maps, &mut |block, flow| {
        if watched.states.contains(&block) {
            states.insert(block, after(model, block, flow).shallow_clone());
        }
    });
    let Targets { ids, mask } = model.targets(&exchange.answers());
    let logits = model.leave(Tower::Language, &flow);
    Some(Traced { forced: Forced { logits, targets: ids, mask }, states, maps, entry })
}

/// Runs the blocks of a tower. `left` sees what leaves each.
fn run(
    model: &dyn VisionLanguage,
    tower: Tower,
    mut flow: Flow,
    watched: &[usize],
    maps: &mut Attentions,
    left: &mut dyn FnMut(usize, &Flow),
) -> Flow {
    for block in 0..model.blocks(tower) {
        if watched.contains(&block) {
            maps.insert((tower, block), model.attended(tower, block, &flow));
        }
        flow = model.run_block(tower, block, &flow);
        left(block, &flow);
    }
    flow
}

/// What left a block: what enters the next one, or, of an encoder's last, its output.
pub(crate) fn after<'f>(model: &dyn VisionLanguage, block: usize, next: &'f Flow) -> &'f Tensor {
    match model.answers_from() {
        Some(first) if block + 1 == first => next.carried().unwrap_or(&next.hidden),
        _ => &next.hidden,
    }
}

/// Which of the queries that a compared attention of a block has are no padding, `[rows, queries]`; nothing where all are. `entry` is what entered the
/// language model.
pub(crate) fn real_queries(
    model: &dyn VisionLanguage,
    (tower, block): (Tower, usize),
    entry: Option<&Flow>,
    exchange: &Exchange,
    queries: i64,
) -> Option<Tensor> {
    match tower {
        Tower::Vision => None,
        Tower::Connector => {
            // Learned queries, and behind them, where the connector reads it, the instruction.
            let learned = model.queries().map_or(queries, |learned| learned.base().size()[1]);
            let mask = &exchange.prompts.qformer.mask;
            let learned = Tensor::ones([mask.size()[0], learned], (Kind::Bool, mask.device()));
            (queries > learned.size()[1]).then(|| Tensor::cat(&[&learned, mask], 1))
        }
        Tower::Language => {
            let all = HiddenConfig::default();
            Some(token_weights(model, block, entry?, exchange, &all, queries))
        }
    }
}

/// The weight of each token of what leaves a block, `[rows, tokens]`; 0 where it is padding. `entry` is what entered the language model.
pub(crate) fn token_weights(
    model: &dyn VisionLanguage,
    block: usize,
    entry: &Flow,
    exchange: &Exchange,
    hidden: &HiddenConfig,
    tokens: i64,
) -> Tensor {
    let device = entry.hidden.device();
    let places = |many: i64| Tensor::arange(many, (Kind::Int64, device)).unsqueeze(0);
    let column = |numbers: Vec<i64>| Tensor::from_slice(&numbers).to_device(device).unsqueeze(1);
    let lengths = |more: usize| column(exchange.answers.iter().map(|answer| (answer.len() + more) as i64).collect());
    let number = |truth: Tensor, weight: f64| truth.to_kind(Kind::Float) * weight;
    if model.answers_from().is_some_and(|first| block >= first) {
        // A start token stands before the answer, whose last token predicts the end.
        return number(places(tokens).less_tensor(&lengths(1)), hidden.answer);
    }
    let prompt = &exchange.prompts.language;
    let own = prompt.mask.sum_dim_intlist([1i64].as_slice(), true, Kind::Int64);
    let before = entry.hidden.size()[1] - behind(model, exchange);
    let kinds = model.token_kinds(Tower::Language, 0, entry);
    let first: Vec<f32> = kinds[..before as usize]
        .iter()
        .map(|kind| if *kind == TokenKind::Visual { hidden.image as f32 } else { hidden.text as f32 })
        .collect();
    let first = Tensor::from_slice(&first).to_device(device).unsqueeze(0).expand([own.size()[0], before], false);
    let place = places(tokens - before);
    let is_prompt = place.less_tensor(&own);
    let mut rest = number(is_prompt.shallow_clone(), hidden.text);
    if model.answers_from().is_none() {
        let is_answer = place.less_tensor(&(&own + lengths(0))).logical_and(&is_prompt.logical_not());
        rest += number(is_answer, hidden.answer);
    }
    Tensor::cat(&[first, rest], 1)
}

/// Tokens of a row's own text in what enters the language model, padding included.
fn behind(model: &dyn VisionLanguage, exchange: &Exchange) -> i64 {
    let prompt = &exchange.prompts.language;
    if model.answers_from().is_some() {
        return prompt.ids.size()[1];
    }
    let own = Vec::<i64>::try_from(prompt.mask.sum_dim_intlist([1i64].as_slice(), false, Kind::Int64));
    let rows = own.unwrap_or_default();
    let longest = rows.iter().zip(&exchange.answers).map(|(own, answer)| own + answer.len() as i64).max();
    longest.unwrap_or_default().max(1)
}
