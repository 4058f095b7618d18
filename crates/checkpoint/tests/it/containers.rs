//! Linears stored without their zeros: what is where, that the same bits are read back, and what of a damaged one is said.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
};

use ressa_checkpoint::{
    Checkpoint, CheckpointError, Claims, ExportRequest, Exported, File, FolderCertificate, Making, card, export,
    inspect, quantized, verify,
};
use ressa_experiment::{Pattern, job::Container};
use serde_json::{Value, json};

use crate::making::{Piece, bf16s, f32s, file, put, values};

const FC1: &str = "vision_model.encoder.layers.0.mlp.fc1.weight";
const Q: &str = "language_model.encoder.block.0.layer.0.SelfAttention.q.weight";
const K: &str = "language_model.encoder.block.0.layer.0.SelfAttention.k.weight";

/// Values of which only every so many are left.
fn sparse(many: usize, every: usize) -> impl Iterator<Item = f32> {
    values(many).enumerate().map(move |(at, value)| if at * 7 % every == 0 { value } else { 0.0 })
}

/// At most two values in every four, in many of them fewer.
fn two_of_four(many: usize) -> impl Iterator<Item = f32> {
    values(many).enumerate().map(|(at, value)| match (at / 4 % 6, at % 4) {
        (0, 0 | 3) | (1, 1 | 2) | (2, 0 | 1) | (3, 2 | 3) | (4, 2) => value,
        _ => 0.0,
    })
}

/// A folder in two pieces with linears of every sort: rows that end within a byte, one that follows 2:4, a full one; with a negative zero and
/// values that are no numbers among the stored ones.
fn dense(folder: &Path) {
    let mut odd = bf16s(FC1, &[9, 21], sparse(189, 3));
    odd.bytes[2..8].copy_from_slice(&[0x00, 0x80, 0xc1, 0x7f, 0x80, 0xff]);
    let first = [
        f32s("vision_model.post_layernorm.bias", &[3], values(3)),
        odd,
        Piece { name: "flag", dtype: "BOOL", shape: vec![], bytes: vec![1] },
    ];
    let second = [
        f32s(Q, &[6, 36], two_of_four(216)),
        bf16s(K, &[4, 8], values(32)),
        Piece { name: "x.position_ids", dtype: "I64", shape: vec![1, 2], bytes: vec![7; 16] },
        f32s("language_projection.weight", &[5, 40], sparse(200, 4)),
        Piece { name: "language_model.empty", dtype: "F32", shape: vec![0, 5], bytes: Vec::new() },
    ];
    let names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
    let mut map = serde_json::Map::new();
    for (name, pieces) in names.iter().zip([&first[..], &second[..]]) {
        put(folder, name, file(r#""__metadata__":{"format":"pt"}"#, 0, pieces));
        map.extend(pieces.iter().map(|piece| (piece.name.to_owned(), json!(name))));
    }
    let index = json!({"metadata": {"total_size": 1, "kept": "so"}, "weight_map": map});
    put(folder, "model.safetensors.index.json", index.to_string());
    put(folder, "config.json", r#"{"model_type": "instructblip", "odd": 1.5}"#);
    put(folder, "README.md", "# Mine\n\nSo it is.\n");
}

fn write(source: &Path, output: &Path, container: Container) -> Result<Exported, CheckpointError> {
    let patterns = BTreeMap::new();
    let request = ExportRequest {
        source,
        output,
        max_shard_size: None,
        container,
        patterns: &patterns,
        program: "a test",
        run: None,
    };
    export(&request, &mut |_, _| Ok(None), None, &mut |_, _| ())
}

/// Every tensor of a folder: type, shape and bytes.
fn tensors(folder: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let checkpoint = Checkpoint::open(folder).unwrap();
    let tensor = |(file, entry): (&File, &ressa_checkpoint::Entry)| {
        (entry.name.clone(), (entry.dtype.to_string(), entry.shape.clone(), file.bytes(entry).to_vec()))
    };
    checkpoint.tensors().map(tensor).collect()
}

/// The tensors of a file as it is on the disk, by another reader.
fn stored(path: &Path) -> HashMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let tensors = header.into_iter().filter(|(name, _)| name != "__metadata__");
    let data = &bytes[8 + length..];
    let read = |(name, about): (String, Value)| {
        let at = |place: usize| about["data_offsets"][place].as_u64().unwrap() as usize;
        let shape = about["shape"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap() as usize).collect();
        let size = match about["dtype"].as_str().unwrap() {
            "U8" | "BOOL" => 1,
            "BF16" => 2,
            "F32" => 4,
            _ => 8,
        };
        assert!(at(0).is_multiple_of(size), "`{name}` is not aligned");
        (name, (shape, data[at(0)..at(1)].to_vec()))
    };
    tensors.map(read).collect()
}

fn whole(numbers: &[i64]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|n| n.to_le_bytes()).collect()
}

#[test]
fn packed_folders_read_back_to_the_same_bits() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    dense(&source);
    let expected = tensors(&source);
    for (container, layout, packed) in
        [(Container::Bitmask, "sparse-bitmask", 3), (Container::TwoFour, "sparse-24-bitmask", 2)]
    {
        let output = root.path().join(container.name());
        let done = write(&source, &output, container).unwrap();
        assert_eq!(tensors(&output), expected);
        let checkpoint = Checkpoint::open(&output).unwrap();
        assert_eq!(checkpoint.container(), Some((layout, packed)));
        assert_eq!(quantized(&checkpoint), None);
        let claim = done.certificate.container.as_ref().unwrap();
        assert_eq!((claim.packed, claim.linears), (packed as u64, 4));
        let on_disk: u64 = done.weights.iter().map(|path| path.metadata().unwrap().len()).sum();
        assert_eq!((claim.bytes, claim.sha256.len()), (on_disk, 2));
        let own = FolderCertificate::read(&output).unwrap().unwrap();
        assert_eq!(own, done.certificate);
        let mut found = verify(&checkpoint, Some(&own), &Claims::default());
        // The value that is no number was there before.
        found.tensors.retain(|tensor| tensor.name != FC1);
        assert!(found.holds(), "{found:?}");
        assert_eq!(inspect(&output, true).unwrap().container, Some((layout, packed)));
        let config: Value = serde_json::from_slice(&fs::read(output.join("config.json")).unwrap()).unwrap();
        let sparsity = &config["quantization_config"]["sparsity_config"];
        assert_eq!((&config["odd"], &sparsity["format"]), (&json!(1.5), &json!(layout)));
        assert_eq!(sparsity["targets"].as_array().unwrap().len(), packed);
        let card = fs::read_to_string(output.join("README.md")).unwrap();
        assert!(card.starts_with("# Mine\n\nSo it is.\n\n## Container\n") && card.contains(layout), "{card}");

        // Dense again, from the packed folder: as from the folder it was made of.
        let again = root.path().join(format!("{} again", container.name()));
        assert_eq!(write(&output, &again, Container::Dense).unwrap().certificate.container, None);
        assert_eq!(tensors(&again), expected);
        assert_eq!(Checkpoint::open(&again).unwrap().container(), None);
        for name in ["config.json", "README.md"] {
            let text = fs::read_to_string(again.join(name)).unwrap();
            assert!(!text.contains("sparse-"), "{text}");
        }
        // From one container to the other.
        let other = root.path().join(format!("{} other", container.name()));
        write(&output, &other, Container::Bitmask).unwrap();
        assert_eq!((tensors(&other), Checkpoint::open(&other).unwrap().container().unwrap().1), (expected.clone(), 3));

        // A byte that changes is found, by the digests of tensors and of files.
        let path = &done.weights[1];
        let mut bytes = fs::read(path).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        // The lowest bit of a stored value: offsets and sizes stand before it.
        let at = stored(path)[&format!("{}.compressed", Q.trim_end_matches(".weight"))].1.clone();
        let place = bytes[8 + header..].windows(at.len()).position(|window| window == at).unwrap();
        bytes[8 + header + place] ^= 1;
        fs::write(path, bytes).unwrap();
        let damaged = verify(&Checkpoint::open(&output).unwrap(), Some(&own), &Claims::default());
        assert!(damaged.violations.iter().any(|violation| violation.contains("has other bytes")), "{damaged:?}");
        assert!(damaged.tensors.iter().any(|tensor| tensor.name == Q && !tensor.violations.is_empty()));
    }
}

/// Whoever looks at each packed tensor once leaves none of them in memory; who needs one in its place, that one alone.
#[test]
fn packed_tensors_that_are_counted_are_not_kept() {
    let root = tempfile::tempdir().unwrap();
    let (source, output, again) = (root.path().join("source"), root.path().join("output"), root.path().join("again"));
    // Two matrices of 256 KiB.
    put(&source, "model.safetensors", file("", 0, &[Q, K].map(|name| f32s(name, &[128, 512], sparse(65_536, 3)))));
    put(&source, "config.json", "{}");
    write(&source, &output, Container::Bitmask).unwrap();
    let own = FolderCertificate::read(&output).unwrap().unwrap();
    let checkpoint = Checkpoint::open(&output).unwrap();
    let packed = &checkpoint.files()[0];
    assert!(packed.is_packed());
    let held = || fs::metadata(packed.place()).unwrap().blocks() * 512;
    let header = held();
    assert!(header <= 1 << 16, "{header}");
    let claims = Claims { pattern: Some(Pattern::NOfM { keep: 1, of: 4 }), ..Claims::default() };
    assert!(
        !verify(&checkpoint, Some(&own), &claims).holds(),
        "two of some fours are values, as groups say that are looked at"
    );
    assert_eq!(FolderCertificate::count(&checkpoint, &BTreeMap::new(), String::new()).unwrap().tensors, own.tensors);
    assert_eq!(held(), header, "counted and digested");
    write(&output, &again, Container::Dense).unwrap();
    let (_, entry) = checkpoint.get(Q).unwrap();
    let read = packed.read(entry).into_owned();
    assert_eq!(held(), header, "read");
    assert!(packed.bytes(entry) == read && packed.read(entry) == read);
    assert!((1 << 18..1 << 19).contains(&(held() - header)), "one tensor: {}", held());
}

/// A model whose weights were multiplied by a mask has negative zeros in its places.
#[test]
fn negative_zeros_are_zeros_where_2_4_has_no_room_for_them() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    let rows = [
        // Two values and both signs of zero; a group with room; only zeros; what `W * mask` leaves.
        [1.0, -0.0, 2.0, 0.0, 0.0, -0.0, 3.0, 0.0, -0.0, -0.0, -0.0, 0.0, -4.0, -0.0, -0.0, 5.0],
        [0.0, 6.0, -7.0, -0.0, 0.0, 0.0, 0.0, 0.0, 8.0, 9.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0],
    ];
    let full = [1.0, 1.0, 1.0, -0.0, 0.0, 0.0, 0.0, 0.0];
    let bias = [-0.0, -0.0, -0.0, 1.0];
    let pieces = [f32s(Q, &[2, 16], rows.concat()), f32s(K, &[1, 8], full), f32s("language_model.a", &[4], bias)];
    put(&source, "model.safetensors", file("", 0, &pieces));
    put(&source, "config.json", "{}");
    let before = tensors(&source);

    let output = root.path().join("2-4");
    let done = write(&source, &output, Container::TwoFour).unwrap();
    let claim = done.certificate.container.clone().unwrap();
    // One of the first group, three of the third, two of the fourth, one of the next row's first.
    assert_eq!((claim.packed, claim.negative_zeros, done.changed), (1, Some(7), 1));
    let after = tensors(&output);
    let mut expected = rows;
    for (row, place) in [(0, 1), (0, 8), (0, 9), (0, 10), (0, 13), (0, 14), (1, 3)] {
        expected[row][place] = 0.0;
    }
    assert_eq!(after[Q].2, floats(&expected.concat()), "a group with room keeps its negative zero");
    assert_eq!((&after[K], &after["language_model.a"]), (&before[K], &before["language_model.a"]));
    let own = FolderCertificate::read(&output).unwrap().unwrap();
    assert_eq!(own, done.certificate);
    assert!(verify(&Checkpoint::open(&output).unwrap(), Some(&own), &Claims::default()).holds());

    let output = root.path().join("bitmask");
    let done = write(&source, &output, Container::Bitmask).unwrap();
    assert_eq!((tensors(&output), done.changed), (before, 0), "a bitmask has room for every element");
    assert_eq!(done.certificate.container.unwrap().negative_zeros, None);
}

/// What others say below a heading of the same words is theirs.
#[test]
fn a_section_of_somebody_elses_card_stays() {
    let root = tempfile::tempdir().unwrap();
    let (source, output) = (root.path().join("source"), root.path().join("output"));
    dense(&source);
    let theirs = "# Mine\n\n## Container\n\nRun it with `docker run mine`.\nAnd so on.\n";
    put(&source, "README.md", theirs);
    let card = |folder: &Path| fs::read_to_string(folder.join("README.md")).unwrap();
    write(&source, &output, Container::Dense).unwrap();
    assert_eq!(card(&output), theirs);
    let packed = root.path().join("packed");
    write(&source, &packed, Container::Bitmask).unwrap();
    assert!(card(&packed).starts_with(theirs) && card(&packed).contains("(`sparse-bitmask`"), "{}", card(&packed));
    let again = root.path().join("again");
    write(&packed, &again, Container::Dense).unwrap();
    assert_eq!(card(&again).trim_end(), theirs.trim_end());
}

#[test]
fn parts_are_where_the_layouts_have_them() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    let rows = [
        [1.0, 0.0, 0.0, 2.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, -0.0],
        [0.0; 12],
        [0.0, 0.0, 0.0, 4.0, 0.0, 0.0, 0.0, 0.0, 5.0, 6.0, 0.0, 0.0],
        [0.0; 12],
    ];
    let matrix: Vec<f32> = rows.concat();
    put(&source, "model.safetensors", file("", 0, &[f32s(Q, &[4, 12], matrix)]));
    put(&source, "config.json", "{}");
    let module = Q.trim_end_matches(".weight");
    let parts = |container: Container| {
        let output = root.path().join(container.name());
        write(&source, &output, container).unwrap();
        let mut found = stored(&output.join("model.safetensors"));
        let mut part = |ending: &str| found.remove(&format!("{module}.{ending}"));
        let parts = ["compressed", "bitmask", "shape", "row_offsets"].map(&mut part);
        assert!(found.is_empty(), "{found:?}");
        parts
    };
    let bitmask = vec![0b0100_1001, 0b1000, 0, 0, 0b1000, 0b0011, 0, 0];
    assert_eq!(
        parts(Container::Bitmask),
        [
            Some((vec![7], floats(&[1.0, 2.0, 3.0, -0.0, 4.0, 5.0, 6.0]))),
            Some((vec![4, 2], bitmask)),
            Some((vec![2], whole(&[4, 12]))),
            Some((vec![4], whole(&[0, 4, 4, 7]))),
        ]
    );
    let (zeros, empty) = ([0.0; 6], [0b0011_0011, 0b0011]);
    let values = [[1.0, 2.0, 0.0, 3.0, 0.0, -0.0], zeros, [0.0, 4.0, 0.0, 0.0, 5.0, 6.0], zeros].concat();
    let bitmask = [[0b0101_1001, 0b1001], empty, [0b0011_1001, 0b0011], empty].concat();
    assert_eq!(
        parts(Container::TwoFour),
        [Some((vec![4, 6], floats(&values))), Some((vec![4, 2], bitmask)), Some((vec![2, 1], whole(&[4, 12]))), None,]
    );
}

#[test]
fn what_cannot_be_packed_is_refused_by_name() {
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    put(&source, "config.json", "{}");
    let refusal = |pieces: &[Piece], container| {
        put(&source, "model.safetensors", file("", 0, pieces));
        let output = root.path().join("output");
        let said = write(&source, &output, container).unwrap_err().to_string();
        assert!(!output.exists());
        said.split("cannot be used: ").last().unwrap().to_owned()
    };
    let bias = || f32s("language_model.a", &[3], values(3));
    let said = [
        refusal(&[f32s(Q, &[4, 8], values(32)), bias()], Container::Bitmask),
        refusal(&[f32s(Q, &[4, 8], values(32)), f32s(K, &[4, 6], sparse(24, 9))], Container::TwoFour),
        refusal(&[bias()], Container::TwoFour),
        refusal(
            &[Piece { name: "language_model.q.qweight", dtype: "U8", shape: vec![4], bytes: vec![1; 4] }],
            Container::Bitmask,
        ),
    ];
    insta::assert_snapshot!(said.join("\n"), @"
    none of its linears has so many zeros that it would be smaller with a bitmask; write it with `--format dense`
    none of its linears follows 2:4 (`language_model.encoder.block.0.layer.0.SelfAttention.q.weight`: 8 groups of four keep more than two); write it with `--format bitmask` or `--format dense`
    it has no prunable linears to pack; write it with `--format dense`
    its weights are quantized (GPTQ or AWQ; tensor `language_model.q.qweight`); use the model's unquantized folder, or have its library write one (transformers: `model.dequantize()`)
    ");
}

/// Parts of a packed matrix of 2 x 12, sound.
fn parts() -> Vec<Piece> {
    vec![
        f32s("language_model.q.compressed", &[3], [1.0, 2.0, 3.0]),
        Piece { name: "language_model.q.bitmask", dtype: "U8", shape: vec![2, 2], bytes: vec![5, 0, 0, 8] },
        Piece { name: "language_model.q.shape", dtype: "I64", shape: vec![2], bytes: whole(&[2, 12]) },
        Piece { name: "language_model.q.row_offsets", dtype: "I64", shape: vec![2], bytes: whole(&[0, 2]) },
    ]
}

#[test]
fn hostile_containers_are_refused_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let open = |pieces: &[Piece]| {
        put(folder.path(), "model.safetensors", file("", 0, pieces));
        Checkpoint::open(folder.path()).map(|checkpoint| quantized(&checkpoint).unwrap_or_default())
    };
    assert_eq!(open(&parts()).unwrap(), "");
    let rows = &tensors(folder.path())["language_model.q.weight"];
    let row = |places: [(usize, f32); 2]| {
        let mut row = [0.0; 12];
        places.iter().for_each(|&(place, value)| row[place] = value);
        row
    };
    assert_eq!(rows.2, floats(&[row([(0, 1.0), (2, 2.0)]), row([(11, 3.0), (11, 3.0)])].concat()));
    let with = |change: &dyn Fn(&mut Vec<Piece>)| {
        let mut pieces = parts();
        change(&mut pieces);
        match open(&pieces) {
            Ok(refused) => refused,
            Err(error) => error.to_string().split("cannot be used: ").last().unwrap().to_owned(),
        }
    };
    let shape = |sizes: [i64; 2]| with(&move |pieces| pieces[2].bytes = whole(&sizes));
    // Without offsets it is read as 2:4.
    let two = |columns: i64, mask: [u8; 4], values: usize| {
        with(&move |pieces| {
            pieces.truncate(3);
            pieces[0] = f32s("language_model.q.compressed", &[2, values / 2], crate::making::values(values));
            pieces[1].bytes = mask.to_vec();
            pieces[2].bytes = whole(&[2, columns]);
        })
    };
    let said = [
        ("too many rows", shape([3, 12])),
        ("more than there can be", shape([i64::MAX, 2])),
        ("2^40 columns", shape([2, 1 << 40])),
        ("negative", shape([-2, -12])),
        ("nothing", shape([0, 12])),
        ("other width", shape([2, 20])),
        ("sizes of bytes", with(&|pieces| pieces[2] = Piece { dtype: "U8", shape: vec![16], ..pieces.remove(2) })),
        (
            "three sizes",
            with(&|pieces| {
                (pieces[2].shape, pieces[2].bytes) = (vec![3], whole(&[2, 12, 1]));
            }),
        ),
        ("bitmask of another type", with(&|pieces| pieces[1].dtype = "I8")),
        ("bitmask of another shape", with(&|pieces| pieces[1].shape = vec![4])),
        ("more places than values", with(&|pieces| pieces[1].bytes = vec![5, 0, 1, 8])),
        ("fewer places than values", with(&|pieces| pieces[1].bytes = vec![5, 0, 0, 0])),
        ("a place behind the row", with(&|pieces| pieces[1].bytes = vec![5, 0, 0, 16])),
        ("offsets that lie", with(&|pieces| pieces[3].bytes = whole(&[0, 1]))),
        ("negative offsets", with(&|pieces| pieces[3].bytes = whole(&[-1, 2]))),
        ("offsets of another length", with(&|pieces| (pieces[3].shape, pieces[3].bytes) = (vec![1], whole(&[0])))),
        ("no sizes", with(&|pieces| drop(pieces.remove(2)))),
        ("no bitmask", with(&|pieces| drop(pieces.remove(1)))),
        (
            "codes",
            with(&|pieces| pieces[0] = Piece { name: pieces[0].name, dtype: "I8", shape: vec![3], bytes: vec![1; 3] }),
        ),
        ("there dense too", with(&|pieces| pieces.push(f32s("language_model.q.weight", &[2, 12], values(24))))),
        ("2:4 of ten columns", two(10, [0x55, 1, 0x55, 1], 10)),
        ("2:4 with three", two(12, [0x57, 5, 0x55, 5], 12)),
        ("2:4 with one in the last", two(12, [0x55, 5, 0x55, 1], 12)),
        ("2:4 behind the row", two(12, [0x55, 5, 0x55, 0x35], 12)),
        ("2:4 with fewer values", two(12, [0x55, 5, 0x55, 5], 10)),
    ];
    let said: Vec<String> = said.into_iter().map(|(what, said)| format!("{what}: {said}")).collect();
    insta::assert_snapshot!(said.join("\n"), @"
    too many rows: tensor `language_model.q.shape` says 3 x 12, and `language_model.q.bitmask` has 32 places
    more than there can be: tensor `language_model.q.shape` says 9223372036854775807 x 2, and `language_model.q.bitmask` has 32 places
    2^40 columns: tensor `language_model.q.shape` says 2 x 1099511627776, and `language_model.q.bitmask` has 32 places
    negative: tensor `language_model.q.shape` says -2 x -12, and `language_model.q.bitmask` has 32 places
    nothing: tensor `language_model.q.shape` says 0 x 12, and `language_model.q.bitmask` has 32 places
    other width: tensor `language_model.q.shape` says 2 x 20, and `language_model.q.bitmask` has 32 places
    sizes of bytes: tensor `language_model.q.shape` is U8 [16]; the sizes of a packed matrix are I64 [2]
    three sizes: tensor `language_model.q.shape` is I64 [3]; the sizes of a packed matrix are I64 [2]
    bitmask of another type: tensor `language_model.q.bitmask` is I8 [2, 2]; a packed matrix of 2 x 12 needs U8 [2, 2]
    bitmask of another shape: tensor `language_model.q.bitmask` is U8 [4]; a packed matrix of 2 x 12 needs U8 [2, 2]
    more places than values: tensor `language_model.q.compressed` has 3 values, its bitmask 4 places
    fewer places than values: tensor `language_model.q.compressed` has 3 values, its bitmask 2 places
    a place behind the row: tensor `language_model.q.bitmask` has a place behind the last column of row 1
    offsets that lie: tensor `language_model.q.row_offsets` says 1 for row 1; the rows before it have 2 values
    negative offsets: tensor `language_model.q.row_offsets` says -1 for row 0; the rows before it have 0 values
    offsets of another length: tensor `language_model.q.row_offsets` is I64 [1]; a packed matrix of 2 x 12 needs I64 [2]
    no sizes: tensor `language_model.q.compressed` is packed and `language_model.q.shape` is not in this file
    no bitmask: its weights are quantized (compressed-tensors, sparse, its parts not all in one file or of other types; tensor `language_model.q.compressed`); use the model's unquantized folder, or have its library write one (transformers: `model.dequantize()`)
    codes: its weights are quantized (compressed-tensors, sparse, its parts not all in one file or of other types; tensor `language_model.q.bitmask`); use the model's unquantized folder, or have its library write one (transformers: `model.dequantize()`)
    there dense too: tensor `language_model.q.weight` is there twice, once packed
    2:4 of ten columns: tensor `language_model.q.shape` says 10 columns; without `.row_offsets` it is packed 2:4, which needs a multiple of four
    2:4 with three: tensor `language_model.q.bitmask` has not two places in every four columns of row 0
    2:4 with one in the last: tensor `language_model.q.bitmask` has not two places in every four columns of row 1
    2:4 behind the row: tensor `language_model.q.bitmask` has not two places in every four columns of row 1
    2:4 with fewer values: tensor `language_model.q.compressed` is F32 [2, 5]; a packed matrix of 2 x 12 needs F32 [2, 6]
    ");
}

/// `scripts/read_container.py` gives back what the dense folder has, bit by bit; where Python has no torch there is nothing to ask.
#[test]
#[expect(clippy::print_stderr, reason = "a test that asks nothing says so")]
fn python_reads_what_was_packed() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/read_container.py");
    let python = |arguments: &[&std::ffi::OsStr]| Command::new("python3").args(arguments).output();
    let has = python(&["-c".as_ref(), "import torch, safetensors".as_ref()]);
    if !has.is_ok_and(|answer| answer.status.success()) {
        eprintln!("skipped: python3 has no torch or safetensors");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let source = root.path().join("source");
    dense(&source);
    for container in [Container::Dense, Container::Bitmask, Container::TwoFour] {
        let output = root.path().join(container.name());
        write(&source, &output, container).unwrap();
        let compare =
            || python(&[script.as_os_str(), output.as_os_str(), "--compare".as_ref(), source.as_os_str()]).unwrap();
        let same = compare();
        assert!(
            same.status.success(),
            "{}{}",
            String::from_utf8_lossy(&same.stdout),
            String::from_utf8_lossy(&same.stderr)
        );
        if container != Container::Dense {
            let path = output.join("model-00002-of-00002.safetensors");
            let mut bytes = fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(!compare().status.success());
        }
    }
}

#[test]
fn a_card_says_how_weights_are_stored() {
    let root = tempfile::tempdir().unwrap();
    let (source, output) = (root.path().join("source"), root.path().join("output"));
    dense(&source);
    let certificate = write(&source, &output, Container::Bitmask).unwrap().certificate;
    let text = card("m", None::<&Making>, &certificate, &source);
    let (_, said) = text.split_once("## Container\n\n").unwrap();
    insta::assert_snapshot!(said, @"
    3 of 4 linears are stored without their zeros (`sparse-bitmask`, the layout of compressed-tensors): 2765 bytes of weights, 2945 when all is dense. `ressa` reads the folder as it is, and `ressa export --model DIR --output NEW` writes it dense; `scripts/read_container.py` of ressa gives the dense tensors to PyTorch.

    Written by a test.
    ");
}
