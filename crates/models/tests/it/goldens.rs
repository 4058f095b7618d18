//! Closed forms of what the architectures rest on.

use ressa_models::{
    Model, Surgery,
    presets::{shapes_flant5, shapes_vicuna},
    t5::bucket,
};

#[test]
fn relative_position_buckets_are_exact_up_close_and_logarithmic_beyond() {
    // 32 buckets up to distance 128, decoder: 0 to 15 exact, then 16 + floor(16 ln(d / 16) / ln 8).
    let decoder: Vec<i64> =
        [0i64, 1, 15, 16, 17, 19, 31, 32, 63, 64, 127, 128, 5000].iter().map(|d| bucket(-d, false, 32, 128)).collect();
    assert_eq!(decoder, [0, 1, 15, 16, 16, 17, 21, 21, 26, 26, 31, 31, 31]);
    assert_eq!(bucket(3, false, 32, 128), 0, "a decoder sees nothing after the query");
    // Encoder: 16 buckets for each side, 8 of them exact; keys after the query come second.
    let before: Vec<i64> = [0i64, 1, 7, 8, 11, 12, 90, 91, 128].iter().map(|d| bucket(-d, true, 32, 128)).collect();
    assert_eq!(before, [0, 1, 7, 8, 8, 9, 14, 15, 15]);
    for distance in 1..200 {
        assert_eq!(bucket(distance, true, 32, 128), 16 + bucket(-distance, true, 32, 128));
    }
}

#[test]
fn presets_are_as_large_as_they_say() {
    for (config, language) in [(shapes_flant5(140), 2.64), (shapes_vicuna(140), 2.16)] {
        let shapes = Model::tensor_shapes(&config).unwrap();
        let total: i64 = shapes.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
        assert!((1_150_000..1_350_000).contains(&total), "{total} parameters");
        let model = ressa_models::presets::random(&config, 0).unwrap();
        let prunable = |tower| -> f64 {
            model
                .linears()
                .iter()
                .filter(|(id, _)| id.tower == tower)
                .map(|(_, l)| (l.shape().0 * l.shape().1) as f64)
                .sum()
        };
        let ratio = prunable(ressa_models::Tower::Language) / prunable(ressa_models::Tower::Vision);
        assert!((ratio - language).abs() < 0.01, "language is {ratio} times vision");
    }
}
