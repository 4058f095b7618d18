//! The world is the same everywhere and its sides never meet.

use std::collections::HashSet;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use ressa_data::{
    Content, World,
    shapes::{Color, Object, Scene, Shape, Side, Size, Texture, scene::NOTHING},
};
use ressa_experiment::{Task, config::DataConfig};

fn world() -> World {
    World::new(&DataConfig::default()).expect("the default is the embedded world")
}

/// FNV-1a over every pixel: enough to notice that one moved.
fn checksum(world: &World, images: usize) -> u64 {
    (0..images)
        .flat_map(|i| world.training_image(i).image.planes().to_vec())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

fn describe(scene: &Scene) -> String {
    let describe = |o: &Object| {
        format!(
            "{} {} {} {} at {},{}",
            o.size.word(),
            o.texture.word(),
            o.color.word(),
            o.shape.word(),
            o.row,
            o.column
        )
    };
    scene.objects().iter().map(describe).collect::<Vec<_>>().join("; ")
}

#[test]
fn no_scene_or_pixel_moves_unnoticed() {
    let world = world();
    let scenes: Vec<String> = (0..4).map(|i| describe(&world.training_image(i).scene)).collect();
    insta::assert_snapshot!(scenes.join("\n"), @r"
    small plain red circle at 1,1
    large striped orange arch at 0,0
    large plain white triangle at 0,0; large plain blue bar at 1,0; small striped yellow cross at 1,1
    small plain pink cross at 1,0; small striped blue triangle at 2,1
    ");
    insta::assert_snapshot!(format!("{:016x}", checksum(&world, 16)), @"9802589334733f83");
}

#[test]
fn images_do_not_depend_on_threads_or_on_each_other() {
    let world = world();
    let together = world.training_images(23, 1);
    assert_eq!(together, world.training_images(23, 4));
    assert_eq!(together[17], world.training_image(17));
    let other = World::new(&DataConfig { seed: 5, ..DataConfig::default() }).expect("shapes");
    assert_ne!(together[17], other.training_image(17));
}

#[test]
fn test_scenes_never_occur_in_training() {
    let world = world();
    let training: HashSet<Scene> = world.training_images(3000, 2).into_iter().map(|i| i.scene).collect();
    assert!(training.iter().all(|scene| scene.side() == Side::Train && !scene.has_held_out_pair()));
    for index in 0..300 {
        for task in [Task::Vqav2, Task::Gqa] {
            assert!(!training.contains(&world.question_image(task, index).scene));
        }
        assert!(!training.contains(&world.caption_image(false, index).scene));
        assert!(world.caption_image(true, index).scene.has_held_out_pair());
    }
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    assert!((0..300).all(|_| world.training_scene(&mut rng, 2).objects().len() >= 2));
}

#[test]
fn retrieval_texts_are_distinct_and_smaller_benchmarks_are_prefixes() {
    let world = world();
    let captions = |items| -> Vec<String> {
        world
            .benchmark(Task::Flickr30k, items)
            .items()
            .iter()
            .filter_map(|item| match &item.content {
                Content::Retrieval { caption } => Some(caption.clone()),
                _ => None,
            })
            .collect()
    };
    let all = captions(300);
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 300);
    assert_eq!(all[..40], captions(40));
    for task in Task::QUESTIONS {
        let large = world.benchmark(task, 101);
        assert_eq!((large.items().len(), large.images().len()), (101, 51));
        assert_eq!(large.items()[..30], world.benchmark(task, 30).items()[..]);
    }
}

#[test]
fn labels_follow_from_places() {
    let object = Object {
        color: Color::Green,
        shape: Shape::Bar,
        size: Size::Large,
        texture: Texture::Striped,
        row: 2,
        column: 1,
    };
    let scene = Scene::new(vec![object]).expect("one object");
    let cells = scene.cell_labels();
    assert_eq!(cells[7], [6, 1, 1, 1]);
    assert_eq!(cells.iter().filter(|labels| **labels == NOTHING).count(), 8);
    let patches = scene.patch_labels();
    let covered: Vec<usize> = (0..36).filter(|patch| patches[*patch] != NOTHING).collect();
    assert_eq!(covered, [26, 27, 32, 33]);
    assert_eq!(Scene::new(vec![object, object]), None, "two objects cannot share a cell");
}

#[test]
fn objects_are_painted_in_their_cells() {
    let world = world();
    for index in 0..200 {
        let labelled = world.training_image(index);
        for (cell, labels) in labelled.scene.cell_labels().iter().enumerate() {
            let centre = ((cell % 3) as u32 * 16 + 5, (cell / 3) as u32 * 16 + 5);
            let brightest = (0..36)
                .flat_map(|i| labelled.image.pixel(centre.0 + i % 6, centre.1 + i / 6))
                .max()
                .expect("36 pixels");
            // Background is at most .25 grey with noise; every object has a channel above .7 somewhere near the centre (rings
            // only around it).
            if *labels == NOTHING {
                assert!(brightest < 140, "image {index}, cell {cell}: {brightest}");
            } else if labels[0] != Shape::Ring.index() as i64 {
                assert!(brightest > 140, "image {index}, cell {cell}: {brightest}");
            }
        }
    }
}
