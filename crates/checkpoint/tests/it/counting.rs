//! Counts equal those of the plainest loop, and certificates notice every change.

use proptest::prelude::*;
use ressa_checkpoint::{Checkpoint, Claims, File, FolderCertificate, inspect, scan, verify};
use ressa_experiment::{Pattern, Tower};

use crate::making::{Piece, bf16s, f32s, file, put, values};

const QKV: &str = "vision_model.encoder.layers.0.self_attn.qkv.weight";
const WI: &str = "language_model.encoder.block.0.layer.1.DenseReluDense.wi_0.weight";

/// A folder with one vision matrix that is half zero and one 2:4 language matrix.
fn pruned(folder: &std::path::Path) {
    let half = values(6 * 8).enumerate().map(|(n, v)| if n % 5 < 2 { 0.0 } else { v });
    let two_of_four =
        values(16 * 32).enumerate().map(|(n, v)| if n % 4 == n / 4 % 4 || n % 4 == (n / 4 + 1) % 4 { v } else { 0.0 });
    let pieces = [
        f32s(QKV, &[6, 8], half),
        bf16s(WI, &[16, 32], two_of_four),
        bf16s("language_model.shared.weight", &[9, 4], values(36)),
        bf16s("language_model.encoder.embed_tokens.weight", &[9, 4], values(36)),
        Piece { name: "qformer.embeddings.position_ids", dtype: "I64", shape: vec![1, 2], bytes: vec![0; 16] },
    ];
    put(folder, "model.safetensors", file("", 0, &pieces));
    let config = r#"{"model_type": "instructblip", "text_config": {"model_type": "t5", "d_model": 4}}"#;
    put(folder, "config.json", config);
}

#[test]
fn an_inspection_counts_towers_and_names_leftovers() {
    let folder = tempfile::tempdir().unwrap();
    pruned(folder.path());
    let found = inspect(folder.path(), true).unwrap();
    let parts: Vec<_> = found
        .parts
        .iter()
        .map(|p| (p.part.name(), p.sums.parameters, p.sums.prunable, p.sums.zeros, p.sums.pattern, p.blocks.len()))
        .collect();
    let pattern = Some(Pattern::NOfM { keep: 2, of: 4 });
    assert_eq!(parts, [("vision", 48, 48, Some(20), None, 1), ("language", 16 * 32 + 36, 512, Some(256), pattern, 1)]);
    let leftovers: Vec<_> = found.leftovers.iter().map(|l| (l.name.as_str(), l.reason.as_str())).collect();
    assert_eq!(
        leftovers,
        [
            ("language_model.encoder.embed_tokens.weight", "a copy of `language_model.shared.weight`"),
            ("qformer.embeddings.position_ids", "a range that the network computes"),
        ]
    );
    let headers = inspect(folder.path(), false).unwrap();
    assert_eq!((headers.total.parameters, headers.total.zeros), (found.total.parameters, None));
}

#[test]
fn what_is_missing_is_a_problem_and_the_rest_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "config.json", r#"{"model_type": "blip-2"}"#);
    put(folder.path(), "pytorch_model.bin", "PK\x03\x04");
    let found = inspect(folder.path(), true).unwrap();
    assert_eq!(found.architecture.unwrap().model_type.as_deref(), Some("blip-2"));
    assert_eq!(found.problems.len(), 1);
    assert!(found.problems[0].contains("pickled"), "{:?}", found.problems);
    assert!(inspect(&folder.path().join("nowhere"), true).is_err());
}

#[test]
fn claims_hold_or_name_what_does_not() {
    let folder = tempfile::tempdir().unwrap();
    pruned(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let claim = |pattern: &str, sparsity, towers: &[Tower]| {
        let claims = Claims { pattern: pattern.parse().ok(), sparsity, towers: towers.to_vec() };
        let found = verify(&checkpoint, None, &claims);
        let of_tensors = found.tensors.iter().flat_map(|t| t.violations.clone());
        of_tensors.chain(found.violations.clone()).collect::<Vec<_>>()
    };
    assert!(claim("2:4", Some(0.5), &[Tower::Language]).is_empty());
    assert!(claim("4:8", Some(0.4), &[Tower::Language]).is_empty());
    assert_eq!(claim("1:4", None, &[Tower::Language]), ["128 groups hold more than 1:4 allows"]);
    // No group of five divides 32 inputs: every group of every row is wrong.
    assert_eq!(claim("2:5", None, &[Tower::Language]), [format!("{} groups hold more than 2:5 allows", 16 * 7)]);
    assert_eq!(claim("2:4", None, &[]).len(), 1);
    assert_eq!(
        claim("", Some(0.6), &[]),
        [
            "tower `vision`: 20 of 48 weights are zero, fewer than a share of 0.6",
            "tower `language`: 256 of 512 weights are zero, fewer than a share of 0.6"
        ]
    );
    assert_eq!(claim("", None, &[Tower::Connector]), ["there is no tower `connector`"]);
}

#[test]
fn a_certificate_notices_every_changed_byte() {
    let folder = tempfile::tempdir().unwrap();
    pruned(folder.path());
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let own = FolderCertificate::count(&checkpoint, &Default::default(), "a test".into()).unwrap();
    put(folder.path(), "ressa_certificate.json", own.text());
    assert_eq!(FolderCertificate::read(folder.path()).unwrap().unwrap(), own);
    assert!(verify(&checkpoint, Some(&own), &Claims::default()).holds());

    let sound = std::fs::read(folder.path().join("model.safetensors")).unwrap();
    let (place, ..) = checkpoint.get(WI).map(|(_, entry)| (entry.range.clone(), ())).unwrap();
    let zero = (place.start..place.end).step_by(2).find(|&at| sound[at..at + 2] == [0, 0]).unwrap();
    let look = |at: usize, byte: u8| {
        let mut bytes = sound.clone();
        bytes[at] = byte;
        let other = tempfile::tempdir().unwrap();
        put(other.path(), "model.safetensors", bytes);
        let found = verify(&Checkpoint::open(other.path()).unwrap(), Some(&own), &Claims::default());
        assert!(!found.holds());
        found.tensors.iter().flat_map(|t| t.violations.clone()).chain(found.violations).collect::<Vec<_>>()
    };
    assert_eq!(
        look(zero, 1),
        [
            "255 values are zero, the certificate says 256",
            "its bytes are not those of the certificate",
            "1 groups hold more than 2:4 allows",
            "tower `language`: 255 of 512 weights are zero, the certificate says 256 of 512"
        ]
    );
    // A sign of a zero keeps every count and is noticed all the same.
    assert_eq!(look(zero + 1, 0x80), ["its bytes are not those of the certificate"]);
    let not_finite = look(place.start + 1, 0x7f);
    assert!(not_finite.iter().any(|v| v.contains("bytes")), "{not_finite:?}");
}

/// Counts and peaks by the plainest loops.
fn plain(bits: &[u32], sign: u32, exponent: u32) -> (u64, u64) {
    let zeros = bits.iter().filter(|&&b| b & !sign == 0).count();
    let odd = bits.iter().filter(|&&b| b & exponent == exponent).count();
    (zeros as u64, odd as u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn counts_equal_those_of_the_plainest_loop(
        seed: u64, rows in 1usize..40, columns in 1usize..700, zeros in 0u64..=10, padding in 0usize..8, half: bool,
    ) {
        let mut state = seed | 1;
        let mut next = || { state ^= state << 13; state ^= state >> 7; state ^= state << 17; state };
        let bits: Vec<u32> = (0..rows * columns)
            .map(|_| match next() % 11 < zeros { true => (next() as u32 & 1) << 31, false => next() as u32 })
            .collect();
        let (dtype, bytes, expected): (_, Vec<u8>, _) = if half {
            let halves: Vec<u32> = bits.iter().map(|b| b >> 16).collect();
            (if seed % 2 == 0 { "F16" } else { "BF16" },
             halves.iter().flat_map(|&b| (b as u16).to_le_bytes()).collect(),
             plain(&halves, 0x8000, if seed % 2 == 0 { 0x7c00 } else { 0x7f80 }))
        } else {
            ("F32", bits.iter().flat_map(|b| b.to_le_bytes()).collect(), plain(&bits, 1 << 31, 0x7f80_0000))
        };
        let size = if half { 2 } else { 4 };
        let folder = tempfile::tempdir().unwrap();
        // The first tensor and the padding put the second at any address.
        let pieces = [
            Piece { name: "a", dtype: "U8", shape: vec![padding], bytes: vec![1; padding] },
            Piece { name: QKV, dtype, shape: vec![rows, columns], bytes: bytes.clone() },
        ];
        put(folder.path(), "x.safetensors", file("", padding, &pieces));
        let opened = File::open(&folder.path().join("x.safetensors")).unwrap();
        let tensors: Vec<_> = opened.entries().iter().map(|entry| (entry, opened.bytes(entry))).collect();
        let counts = scan::scan(&tensors, 2);
        prop_assert_eq!(counts[0], None);
        let found = counts[1].unwrap();
        prop_assert_eq!((found.zeros, found.non_finite), expected);
        // The pattern that is found is one that no group violates, and none with the same density has smaller groups.
        let kept = |of: usize| {
            let is_value = |b: &[u8]| b.iter().enumerate().any(|(at, &byte)| byte & if at == size - 1 { 0x7f } else { 0xff } != 0);
            bytes.chunks(of * size).map(|g| g.chunks(size).filter(|b| is_value(b)).count()).max().unwrap_or(0)
        };
        let expected = [2usize, 4, 8, 16].into_iter().filter(|of| columns % of == 0).find_map(|of| {
            let keep = kept(of);
            let filled = (found.elements - found.zeros) as f64 >= 0.9 * found.elements as f64 * keep as f64 / of as f64;
            ((1..of).contains(&keep) && filled).then_some(Pattern::NOfM { keep: keep as u32, of: of as u32 })
        });
        prop_assert_eq!(found.pattern(columns), expected);
    }
}
