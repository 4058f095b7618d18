//! Damaged and malicious files: each is refused in one sentence that says where and why.

use std::path::Path;

use ressa_checkpoint::{Checkpoint, inspect};

use crate::making::{Piece, f32s, file, put, values, with_header};

/// What is said about a folder, without the place where the test happens to run.
fn refusal(make: impl Fn(&Path)) -> String {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let said = Checkpoint::open(folder.path()).expect_err("it is refused").to_string();
    // An inspection says the same and does not give up over it.
    assert!(inspect(folder.path(), true).unwrap().problems.contains(&said));
    said.replace(&folder.path().display().to_string(), "FOLDER")
}

fn single(bytes: Vec<u8>) -> String {
    refusal(|folder| put(folder, "model.safetensors", &bytes))
}

fn header(tensors: &str, data: usize) -> String {
    single([with_header(&format!("{{{tensors}}}")), vec![0; data]].concat())
}

fn two() -> Vec<Piece> {
    vec![f32s("a", &[2, 2], values(4)), f32s("b", &[2], values(2))]
}

#[test]
fn damaged_files_are_refused_in_one_sentence() {
    let sound = file("", 0, &two());
    let cut = |at: usize| single(sound[..at].to_vec());
    let long = [&(1u64 << 60).to_le_bytes()[..], b"{}"].concat();
    let mut said = vec![
        ("empty", cut(0)),
        ("seven bytes", cut(7)),
        ("cut in the header", cut(40)),
        ("cut in the data", cut(sound.len() - 3)),
        ("too long", single([&sound[..], &[0; 5]].concat())),
        ("header of 2^60", single(long)),
        ("header of 2^26", single([&(1u64 << 26).to_le_bytes()[..], b"{}"].concat())),
        ("no JSON", single(with_header("{\"a\": nonsense"))),
        ("no object", single(with_header("[1, 2]"))),
        ("no UTF-8", single([&4u64.to_le_bytes()[..], b"{\"\xff\""].concat())),
        ("deep", single(with_header(&"{\"a\":".repeat(10_000)))),
    ];
    let one = |dtype: &str, shape: &str, from: &str, to: &str| {
        format!(r#""w":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}"#)
    };
    let other = r#""v":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}"#;
    let pair = |from, to| format!("{},{other}", one("F32", "[2]", from, to));
    said.extend([
        ("unknown type", header(&one("F33", "[2]", "0", "8"), 8)),
        ("type of another case", header(&one("f32", "[2]", "0", "8"), 8)),
        ("shape overflows", header(&one("F32", "[4294967296,4294967296,16]", "0", "8"), 8)),
        ("bytes overflow", header(&one("F64", "[4611686018427387904]", "0", "8"), 8)),
        ("wrong shape", header(&one("F32", "[3]", "0", "8"), 8)),
        ("negative size", header(&one("F32", "[-2]", "0", "8"), 8)),
        ("offsets beyond the end", header(&one("F32", "[2]", "8", "16"), 8)),
        ("offsets of 2^64", header(&one("U8", "[1]", "18446744073709551614", "18446744073709551615"), 8)),
        ("offsets backwards", header(&one("F32", "[2]", "8", "0"), 8)),
        ("overlap", header(&pair("0", "8"), 12)),
        ("gap", header(&one("F32", "[2]", "4", "12"), 12)),
        ("twice", header(&format!("{},{}", one("F32", "[1]", "0", "4"), one("F32", "[1]", "4", "8")), 8)),
        ("no offsets", header(r#""w":{"dtype":"F32","shape":[2]}"#, 8)),
        ("metadata of numbers", header(r#""__metadata__":{"format":1}"#, 0)),
        ("Git LFS pointer", single(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n".to_vec())),
        ("zipped pickle", single(b"PK\x03\x04 and more".to_vec())),
        ("bare pickle", single(b"\x80\x02}q\x00X\x01".to_vec())),
        ("web page", single(b"<!DOCTYPE html><title>404</title>".to_vec())),
    ]);
    let said: Vec<String> = said.into_iter().map(|(what, said)| format!("{what}: {said}")).collect();
    insta::assert_snapshot!(said.join("\n").replace("`FOLDER/model.safetensors` cannot be used", "..."), @"
    empty: ...: it is empty; copy it again
    seven bytes: ...: 7 bytes are too few for a safetensors file; copy it again
    cut in the header: ...: its header claims 113 bytes, the file has 32; it was not copied whole
    cut in the data: ...: tensor `b` claims bytes 16 to 24 of 21; the file is damaged or was not copied whole
    too long: ...: 5 bytes after the last tensor belong to nothing; the file is damaged
    header of 2^60: ...: its header claims 1152921504606846976 bytes, more than any safetensors file has; it is damaged or another format
    header of 2^26: ...: its header claims 67108864 bytes, the file has 2; it was not copied whole
    no JSON: ...: its header cannot be read (tensor `a`: expected ident at line 1 column 8); it is damaged or another format
    no object: ...: its header cannot be read (invalid type: sequence, expected an object with an entry per tensor at line 1 column 0); it is damaged or another format
    no UTF-8: ...: its header cannot be read (invalid unicode code point at line 1 column 3); it is damaged or another format
    deep: ...: its header cannot be read (tensor `a`: EOF while parsing a value at line 1 column 50000); it is damaged or another format
    unknown type: ...: tensor `w` has type `F33`, which the format does not have
    type of another case: ...: tensor `w` has type `f32`, which the format does not have
    shape overflows: ...: tensor `w` has shape [4294967296, 4294967296, 16], more elements than can be counted
    bytes overflow: ...: tensor `w` has shape [4611686018427387904], more elements than can be counted
    wrong shape: ...: tensor `w` of type F32 and shape [3] needs 12 bytes, its place has 8
    negative size: ...: its header cannot be read (tensor `w`: invalid value: integer `-2`, expected usize at line 1 column 31); it is damaged or another format
    offsets beyond the end: ...: tensor `w` claims bytes 8 to 16 of 8; the file is damaged or was not copied whole
    offsets of 2^64: ...: tensor `w` claims bytes 18446744073709551614 to 18446744073709551615 of 8; the file is damaged or was not copied whole
    offsets backwards: ...: tensor `w` claims bytes 8 to 0 of 8; the file is damaged or was not copied whole
    overlap: ...: tensor `v` overlaps `w`; the file is damaged
    gap: ...: 4 bytes before tensor `w` belong to nothing; the file is damaged
    twice: ...: its header cannot be read (`w` is there twice at line 1 column 57); it is damaged or another format
    no offsets: ...: its header cannot be read (tensor `w`: missing field `data_offsets` at line 1 column 32); it is damaged or another format
    metadata of numbers: ...: its header cannot be read (invalid type: integer `1`, expected a string at line 1 column 27); it is damaged or another format
    Git LFS pointer: ...: it is a Git LFS pointer, not the file itself; fetch it with `git lfs pull` or `ressa fetch`
    zipped pickle: ...: it is a pickled checkpoint, which is refused; convert it to safetensors
    bare pickle: ...: it is a pickled checkpoint, which is refused; convert it to safetensors
    web page: ...: it is a web page, not the file itself; download it again
    ");
}

#[test]
fn damaged_folders_are_refused_in_one_sentence() {
    let index =
        |folder: &Path, map: &str| put(folder, "model.safetensors.index.json", format!("{{\"weight_map\":{map}}}"));
    let piece = |folder: &Path, name: &str| put(folder, name, file("", 0, &two()));
    let said = [
        ("nothing", refusal(|_| ())),
        ("pickle only", refusal(|folder| put(folder, "pytorch_model.bin", "PK\x03\x04"))),
        (
            "missing piece",
            refusal(|folder| {
                piece(folder, "m-1.safetensors");
                index(folder, r#"{"a": "m-1.safetensors", "b": "m-2.safetensors", "c": "m-3.safetensors"}"#);
            }),
        ),
        (
            "tensor in two pieces",
            refusal(|folder| {
                piece(folder, "m-1.safetensors");
                piece(folder, "m-2.safetensors");
                index(folder, r#"{"a": "m-1.safetensors", "b": "m-2.safetensors"}"#);
            }),
        ),
        (
            "tensor in no piece",
            refusal(|folder| {
                piece(folder, "m-1.safetensors");
                index(folder, r#"{"a": "m-1.safetensors", "c": "m-1.safetensors"}"#);
            }),
        ),
        ("out of the folder", refusal(|folder| index(folder, r#"{"a": "../x.safetensors"}"#))),
        ("absolute", refusal(|folder| index(folder, r#"{"a": "/etc/x.safetensors"}"#))),
        ("hidden", refusal(|folder| index(folder, r#"{"a": ".x.safetensors"}"#))),
        ("pickle in the list", refusal(|folder| index(folder, r#"{"a": "pytorch_model.bin"}"#))),
        ("no name", refusal(|folder| index(folder, r#"{"a": 7}"#))),
        ("empty list", refusal(|folder| index(folder, "{}"))),
        ("list that is no JSON", refusal(|folder| put(folder, "model.safetensors.index.json", "not JSON"))),
        ("list without a map", refusal(|folder| put(folder, "model.safetensors.index.json", "{}"))),
    ];
    let said: Vec<String> = said.into_iter().map(|(what, said)| format!("{what}: {said}")).collect();
    insta::assert_snapshot!(said.join("\n"), @r#"
    nothing: `FOLDER` cannot be used: it holds neither `model.safetensors` nor `model.safetensors.index.json`
    pickle only: `FOLDER` cannot be used: it holds a pickled checkpoint, which is refused; convert it to safetensors
    missing piece: `FOLDER/model.safetensors.index.json` cannot be used: 2 of its 3 pieces are missing: m-2.safetensors, m-3.safetensors
    tensor in two pieces: `FOLDER/m-2.safetensors` cannot be used: tensor `a` is in two pieces
    tensor in no piece: `FOLDER/model.safetensors.index.json` cannot be used: tensor `c` is in none of the pieces
    out of the folder: `FOLDER/model.safetensors.index.json` cannot be used: `"../x.safetensors"` is not the name of a safetensors file in this folder
    absolute: `FOLDER/model.safetensors.index.json` cannot be used: `"/etc/x.safetensors"` is not the name of a safetensors file in this folder
    hidden: `FOLDER/model.safetensors.index.json` cannot be used: `".x.safetensors"` is not the name of a safetensors file in this folder
    pickle in the list: `FOLDER/model.safetensors.index.json` cannot be used: `"pytorch_model.bin"` is not the name of a safetensors file in this folder
    no name: `FOLDER/model.safetensors.index.json` cannot be used: `7` is not the name of a safetensors file in this folder
    empty list: `FOLDER/model.safetensors.index.json` cannot be used: it names no pieces
    list that is no JSON: `FOLDER/model.safetensors.index.json` cannot be used: it is not as expected: expected ident at line 1 column 2
    list without a map: `FOLDER/model.safetensors.index.json` cannot be used: it is not as expected: missing field `weight_map` at line 1 column 2
    "#);
}

#[test]
fn values_that_are_not_finite_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let name = "vision_model.encoder.layers.0.mlp.fc1.weight";
    let odd =
        [f32s(name, &[2, 2], [1.0, f32::NAN, f32::INFINITY, 0.0]), f32s("query_tokens", &[1], [f32::NEG_INFINITY])];
    put(folder.path(), "model.safetensors", file("", 0, &odd));
    let found = ressa_checkpoint::verify(&Checkpoint::open(folder.path()).unwrap(), None, &Default::default());
    let said: Vec<_> = found.tensors.iter().map(|t| (t.name.as_str(), t.violations.join(";"))).collect();
    assert_eq!(
        said,
        [(name, "2 values are not finite".to_owned()), ("query_tokens", "1 values are not finite".to_owned())]
    );
}
