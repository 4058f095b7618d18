//! Every question is answered by its scene, and every word is in the vocabulary.

use std::collections::{BTreeMap, HashSet};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Question, World,
    shapes::{Color, Grounding, Object, Scene, Shape, Size, Texture, caption, grounding::ABSENT, vocabulary},
};
use ressa_experiment::{Task, config::DataConfig};

fn world() -> World {
    World::new(&DataConfig::default()).expect("the default is the embedded world")
}

/// The objects a list of words can mean: each word restricts colour or shape.
fn meant<'a>(scene: &'a Scene, words: &[&str]) -> Vec<&'a Object> {
    scene
        .objects()
        .iter()
        .filter(|o| words.iter().all(|w| [o.color.word(), o.shape.word(), "object"].contains(w)))
        .collect()
}

fn only<'a>(scene: &'a Scene, words: &[&str]) -> &'a Object {
    let found = meant(scene, words);
    assert_eq!(found.len(), 1, "{words:?} in {scene:?}");
    found[0]
}

fn lies(a: &Object, relation: &str, b: &Object) -> bool {
    match relation {
        "left" => a.column < b.column,
        "right" => a.column > b.column,
        "above" => a.row < b.row,
        _ => a.row > b.row,
    }
}

/// Answers a question by reading it, with code of its own.
fn answer(world: &World, scene: &Scene, text: &str) -> String {
    let facts = world.facts();
    let words: Vec<&str> = text.split(' ').collect();
    let answer = match words.as_slice() {
        ["what", attribute @ ("color" | "shape"), "is", "the", "object", relation, rest @ ..] => {
            let reference = only(scene, &rest[rest.len() - 2..]);
            let found: Vec<&Object> = scene.objects().iter().filter(|o| lies(o, relation, reference)).collect();
            assert_eq!(found.len(), 1, "{text}");
            if *attribute == "color" { found[0].color.word() } else { found[0].shape.word() }
        }
        ["what", "color", "is", "the", rest @ ..] => only(scene, rest).color.word(),
        ["what", "shape", "is", "the", rest @ ..] => only(scene, rest).shape.word(),
        ["what", "size", "is", "the", rest @ ..] => only(scene, rest).size.word(),
        ["what", "texture", "is", "the", rest @ ..] => only(scene, rest).texture.word(),
        ["how", "many", "objects", ..] => return scene.objects().len().to_string(),
        ["how", "many", color, ..] => return meant(scene, &[color]).len().to_string(),
        ["is", "there", "a", rest @ ..] => {
            if meant(scene, rest).is_empty() {
                "no"
            } else {
                "yes"
            }
        }
        ["is", "the", c, s, relation, rest @ ..] => {
            let (a, b) = (only(scene, &[c, s]), only(scene, &rest[rest.len() - 2..]));
            if lies(a, relation, b) { "yes" } else { "no" }
        }
        ["where", "is", "the", c, s, "on", "top", ..] => ["top", "middle", "bottom"][only(scene, &[c, s]).row],
        ["where", "is", "the", c, s, "on", "left", ..] => ["left", "center", "right"][only(scene, &[c, s]).column],
        ["who", "makes", "the", rest @ ..] => facts.maker(only(scene, rest).shape),
        ["what", "does", "the", "color", "of", "the", s, "mean"] => facts.mood(only(scene, &[s]).color),
        ["what", "does", "the", c, "object", "eat"] => facts.food(only(scene, &[c]).shape),
        ["where", "does", "the", c, "object", "live"] => facts.home(only(scene, &[c]).shape),
        ["what", "is", "the", s, "called"] => facts.name(only(scene, &[s]).color, only(scene, &[s]).shape),
        _ => panic!("no such template: {text}"),
    };
    answer.to_owned()
}

#[test]
fn answers_are_right_and_templates_are_all_asked() {
    let world = world();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut asked: BTreeMap<(Task, &str), usize> = BTreeMap::new();
    for _ in 0..4000 {
        let scene = world.training_scene(&mut rng, 1);
        for task in Task::QUESTIONS {
            let Some(question) = world.question(task, &scene, &mut rng) else { continue };
            assert_eq!(question.answer, answer(&world, &scene, &question.text), "{} in {scene:?}", question.text);
            *asked.entry((task, question.template)).or_default() += 1;
        }
    }
    let names: Vec<String> = asked.keys().map(|(task, template)| format!("{task}/{template}")).collect();
    insta::assert_snapshot!(names.join(" "), @"vqav2/color vqav2/count vqav2/count-color vqav2/exists vqav2/shape vqav2/size vqav2/texture gqa/object-color gqa/object-shape gqa/relation gqa/where-column gqa/where-row okvqa/food okvqa/home okvqa/maker okvqa/mood okvqa/name");
    assert!(asked.values().all(|count| *count > 150), "{asked:?}");
}

#[test]
fn yes_and_no_are_about_as_frequent() {
    let world = world();
    let mut rng = ChaCha8Rng::seed_from_u64(8);
    let mut yes = BTreeMap::new();
    for _ in 0..4000 {
        let scene = world.training_scene(&mut rng, 2);
        for task in [Task::Vqav2, Task::Gqa] {
            let Some(question) = world.question(task, &scene, &mut rng) else { continue };
            if ["yes", "no"].contains(&question.answer.as_str()) {
                yes.entry(question.template).or_insert_with(Vec::new).push(question.answer == "yes");
            }
        }
    }
    for (template, answers) in yes {
        let share = answers.iter().filter(|yes| **yes).count() as f64 / answers.len() as f64;
        assert!((share - 0.5).abs() < 0.06, "{template}: {share}");
    }
}

#[test]
fn every_word_is_in_the_vocabulary_once() {
    let words = vocabulary::words();
    let known: HashSet<&str> = words.iter().copied().collect();
    assert_eq!(known.len(), words.len(), "a word occurs twice");
    let world = world();
    let mut rng = ChaCha8Rng::seed_from_u64(9);
    let mut used = HashSet::new();
    for draw in 0..4000 {
        let scene = if draw % 2 == 0 { Scene::draw_held_out(&mut rng) } else { world.training_scene(&mut rng, 1) };
        let mut texts = vec![caption::draw(&scene, &mut rng), caption::canonical(&scene), caption::positional(&scene)];
        for task in Task::QUESTIONS {
            texts.extend(world.question(task, &scene, &mut rng).into_iter().flat_map(|q| [q.text, q.answer]));
        }
        let fact = world.fact(&mut rng);
        texts.extend([fact.text, fact.answer, caption::DESCRIBE.to_owned(), caption::DESCRIBE_WHERE.to_owned()]);
        for text in &texts {
            assert!(text.split(' ').count() <= 29, "longer than the longest caption: {text}");
            used.extend(text.split(' ').map(str::to_owned));
        }
    }
    let unknown: Vec<&String> = used.iter().filter(|word| !known.contains(word.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?}");
    let unused: Vec<&&str> = words.iter().filter(|word| !used.contains(**word)).collect();
    assert!(unused.is_empty(), "{unused:?}");
}

fn object(color: Color, shape: Shape, row: usize, column: usize) -> Object {
    Object { color, shape, size: Size::Small, texture: Texture::Plain, row, column }
}

#[test]
fn questions_are_grounded_in_cells() {
    let scene = Scene::new(vec![
        object(Color::Red, Shape::Circle, 0, 2),
        object(Color::Blue, Shape::Bar, 1, 0),
        object(Color::Blue, Shape::Ring, 2, 0),
    ])
    .expect("three cells");
    let ground = |text: &str, template| Grounding::of(&Question::new(text, "", template), &scene);

    let relation = ground("is the red circle above the blue bar", "relation");
    assert_eq!(relation.phrases, [(3, 2), (7, 3)]);
    assert_eq!((relation.target, relation.comparison), (Some(2), Some([2, 0])));

    let asked = ground("what color is the object below the blue bar", "object-color");
    assert_eq!((asked.phrases, asked.target), (vec![(8, 3)], Some(6)));

    assert_eq!(ground("is there a green circle", "exists").phrases, [(4, ABSENT)]);
    assert_eq!(ground("what shape is the red object", "shape").phrases, [(5, 2)]);
    assert_eq!(ground("how many blue objects are there", "count-color").phrases, []);
    assert_eq!(ground("who makes the blue object", "maker").phrases, [], "two objects are blue");
}
