//! Local reconstruction: least squares as the limit of single matrices, and what must hold for every window and regime.

use std::{collections::BTreeMap, path::Path, sync::Arc, sync::Mutex};

use ressa_experiment::{
    Pattern, Tower,
    reconstruct::{Trained, Window, WindowInputs, WindowTargets, WindowTraining},
};
use ressa_models::{Cuts, Full, InBlocks, MaskSet, Model, Observer, Surgery, Update, Weight};
use ressa_prune::reconstruct::{ReconstructRequest, TowerReconstruction, certify_reconstructed, reconstruct_tower};
use tch::{Kind, Tensor};

use crate::tower::{prune, request, samples, t5, vicuna};

const WINDOWS: [Window; 4] = [Window::MATRIX, Window::ATTENTION_MLP, Window::BLOCK, Window::Blocks(2)];

const REGIMES: [(WindowInputs, WindowTargets); 3] = [
    (WindowInputs::Dense, WindowTargets::Dense),
    (WindowInputs::Changed, WindowTargets::Window),
    (WindowInputs::Changed, WindowTargets::Dense),
];

fn training(window: Window, (inputs, targets): (WindowInputs, WindowTargets)) -> WindowTraining {
    WindowTraining {
        train: Trained::All,
        window,
        inputs,
        targets,
        rank: None,
        scale: None,
        batch: 2,
        passes: 3,
        learning_rate: 1e-3,
        warmup: 0.1,
        cosine: 0.0,
    }
}

/// Every element of every weight.
fn everything(weight: &Weight) -> Option<Box<dyn Update>> {
    Some(Box::new(Full { delta: weight.base().zeros_like().to_kind(Kind::Float) }))
}

fn reconstruct(
    student: &mut Model,
    dense: &Model,
    tower: Tower,
    training: &WindowTraining,
    scratch: Option<&Path>,
) -> TowerReconstruction {
    let request = ReconstructRequest { tower, training, starts: &everything, seed: 5, scratch };
    reconstruct_tower(student, dense, &request, &samples(), &mut |_, _| {}).expect("reconstructs")
}

/// A model of which half of a tower is gone.
fn halved(mut model: Model, tower: Tower) -> (Model, MaskSet) {
    let masks = prune(&mut model, &request(tower, Pattern::Unstructured, 0.5));
    (model, masks)
}

#[test]
fn every_window_of_every_tower_comes_closer_and_keeps_its_mask() {
    for family in [t5, vicuna] {
        let dense = family();
        for tower in Tower::ALL {
            let (_, masks) = halved(family(), tower);
            for (window, regime) in WINDOWS.into_iter().flat_map(|window| REGIMES.map(|regime| (window, regime))) {
                let mut student = family();
                masks.apply(&mut student).expect("takes masks");
                let found = reconstruct(&mut student, &dense, tower, &training(window, regime), None);
                assert!(!found.errors.is_empty() && found.steps > 0, "{tower} {window}");
                let better = found.errors.values().filter(|error| error.after < error.before).count();
                assert!(2 * better > found.errors.len(), "{tower} {window} {regime:?}: {:?}", found.errors);
                let certificate = certify_reconstructed(
                    &student,
                    (tower, &BTreeMap::new()),
                    (&masks, &masks),
                    &found.errors,
                    &Cuts::default(),
                );
                assert!(certificate.holds(), "{:?}", certificate.violations);
                // What is answered is what the student carries, and nothing else of it has changed.
                for (mine, theirs) in student.weights().into_iter().zip(dense.weights()) {
                    match found.weights.get(mine.key()) {
                        Some(changed) => assert!(mine.base().equal(changed), "`{}`", mine.key()),
                        None => assert!(mine.base().equal(theirs.base()), "`{}`", mine.key()),
                    }
                    if let Some(keep) = masks.get(mine.key()) {
                        assert!(mine.keep().is_some_and(|own| own.equal(keep)));
                        let gone = mine.exact().masked_select(&keep.remove());
                        assert_eq!(gone.ne(0.0).any().int64_value(&[]), 0, "`{}`", mine.key());
                    }
                }
            }
        }
    }
}

/// Norms train in windows that read them, and those beside the blocks do not.
#[test]
fn a_window_trains_what_it_reads() {
    let regime = REGIMES[0];
    let (dense, changed) = (vicuna(), |window: Window| {
        let (mut student, _) = halved(vicuna(), Tower::Language);
        let found = reconstruct(&mut student, &vicuna(), Tower::Language, &training(window, regime), None);
        found.weights.iter().map(|(key, _)| key.to_owned()).collect::<Vec<_>>()
    });
    let in_blocks: Vec<String> = (0..dense.blocks(Tower::Language))
        .flat_map(|block| dense.block_weights(Tower::Language, block))
        .map(|weight| weight.key().to_owned())
        .collect();
    for window in [Window::ATTENTION_MLP, Window::BLOCK, Window::Blocks(2)] {
        let mut found = changed(window);
        assert!(found.iter().any(|key| key.contains("norm")), "{window}: {found:?}");
        found.retain(|key| !in_blocks.contains(key));
        assert_eq!(found, Vec::<String>::new(), "{window}");
    }
    assert!(changed(Window::MATRIX).iter().all(|key| !key.contains("norm")));
}

/// Several blocks never reach over the end of T5's encoder, whose output is what its last block is compared by.
#[test]
fn windows_end_where_an_encoder_ends() {
    let (mut student, _) = halved(t5(), Tower::Language);
    let found = reconstruct(&mut student, &t5(), Tower::Language, &training(Window::Blocks(3), REGIMES[0]), None);
    let names: Vec<&str> = found.errors.keys().map(String::as_str).collect();
    assert_eq!(names, ["language.0-1", "language.2-3"]);
    assert!(found.errors.values().all(|error| error.before > 0.0));
}

/// What the linears of a block of the dense model read.
#[derive(Default)]
struct Seen(Vec<Tensor>);

impl Observer for Seen {
    fn observe(&mut self, input: &Tensor) {
        let width = input.size().last().copied().unwrap();
        self.0.push(input.reshape([-1, width]).to_kind(Kind::Double));
    }
}

/// The smallest relative error that a linear can have under its mask, with a bias that moves freely where it has one.
fn least_squares(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, keep: &Tensor) -> f64 {
    let dense = x.matmul(&weight.to_kind(Kind::Double).transpose(0, 1));
    let y = match bias {
        Some(bias) => dense + bias.to_kind(Kind::Double),
        None => dense,
    };
    let mut lost = 0.0;
    for row in 0..weight.size()[0] {
        let mut kept = x.index_select(1, &keep.get(row).nonzero().view([-1]));
        if bias.is_some() {
            kept = Tensor::cat(&[&kept, &x.narrow(1, 0, 1).ones_like()], 1);
        }
        let wanted = y.select(1, row).unsqueeze(1);
        let best = kept.pinverse(1e-12).matmul(&wanted);
        lost += (kept.matmul(&best) - &wanted).square().sum(Kind::Double).double_value(&[]);
    }
    lost / y.square().sum(Kind::Double).double_value(&[])
}

#[test]
fn single_matrices_approach_least_squares_on_their_masks() {
    let (dense, tower) = (t5(), Tower::Vision);
    let (mut student, masks) = halved(t5(), tower);
    let (mut layers, mut taps) = (BTreeMap::new(), Vec::new());
    let linears = dense.linears().into_iter().filter(|(id, _)| id.tower == tower && id.block == 0);
    for (id, linear) in linears {
        let seen = Arc::new(Mutex::new(Seen::default()));
        taps.push(linear.tap(Arc::<Mutex<Seen>>::clone(&seen)));
        layers.insert(id.name.clone(), (linear, seen));
    }
    for sample in samples().iter().step_by(2) {
        dense.run_block(tower, 0, &dense.enter(tower, sample));
    }
    drop(taps);
    let long = WindowTraining { passes: 1500, batch: 3, learning_rate: 1e-2, ..training(Window::MATRIX, REGIMES[0]) };
    let found = reconstruct(&mut student, &dense, tower, &long, None);
    assert_eq!(layers.len(), 4);
    for (layer, (linear, seen)) in layers {
        let x = Tensor::cat(&seen.lock().unwrap().0, 0);
        let best = least_squares(&x, linear.weight(), linear.bias(), &masks.get(&layer).unwrap().keep());
        let error = found.errors[&layer];
        assert!(error.after >= best * 0.999 - 1e-9, "`{layer}`: {} is below the least of {best}", error.after);
        let gained = (error.before - error.after) / (error.before - best);
        assert!(gained > 0.95, "`{layer}`: {error:?}, at best {best}");
    }
}

/// A rate at which nothing is learned: every window is as it was, and says so.
#[test]
fn a_window_that_gets_worse_is_left_as_it_was() {
    let dense = vicuna();
    let (mut student, masks) = halved(vicuna(), Tower::Language);
    let wild = WindowTraining { learning_rate: 1e3, warmup: 0.0, ..training(Window::BLOCK, REGIMES[2]) };
    let found = reconstruct(&mut student, &dense, Tower::Language, &wild, None);
    assert!(found.weights.is_empty());
    assert!(found.errors.values().all(|error| error.before == error.after && error.before > 0.0));
    for (mine, theirs) in student.weights().into_iter().zip(dense.weights()) {
        assert!(mine.base().equal(theirs.base()));
    }
    assert!(masks.iter().all(|(layer, mask)| MaskSet::of(&student).get(layer).unwrap().equal(mask)));
}

/// Finished windows are found again, whatever comes behind; a damaged one is made again; the bits are those of one that was never interrupted.
#[test]
fn an_interrupted_reconstruction_ends_with_the_same_bits() {
    let dense = t5();
    for (window, regime) in
        [(Window::BLOCK, REGIMES[0]), (Window::MATRIX, REGIMES[1]), (Window::ATTENTION_MLP, REGIMES[2])]
    {
        let training = training(window, regime);
        let (whole, part) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (mut student, masks) = halved(t5(), Tower::Language);
        let once = reconstruct(&mut student, &dense, Tower::Language, &training, Some(whole.path()));
        let mut kept: Vec<_> = std::fs::read_dir(whole.path()).unwrap().map(|file| file.unwrap().path()).collect();
        kept.sort();
        assert_eq!(kept.len(), once.errors.len());
        let (last, first) = kept[..kept.len() / 2].split_last().unwrap();
        for file in first {
            std::fs::copy(file, part.path().join(file.file_name().unwrap())).unwrap();
        }
        std::fs::write(part.path().join(last.file_name().unwrap()), b"damaged").unwrap();
        let mut student = t5();
        masks.apply(&mut student).unwrap();
        let again = reconstruct(&mut student, &dense, Tower::Language, &training, Some(part.path()));
        assert_eq!((&once.errors, once.steps), (&again.errors, again.steps));
        assert!(once.weights.iter().zip(again.weights.iter()).all(|((a, x), (b, y))| a == b && x.equal(y)));
    }
}
