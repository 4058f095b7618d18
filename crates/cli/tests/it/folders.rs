//! Model folders on the command line: looked at, verified, written again.

use std::fs;

use serde_json::{Value, json};

use crate::house::House;

/// Writes a small InstructBLIP-like folder: a half-empty vision matrix, a 2:4 language matrix, an embedding with a copy.
fn model(house: &House, folder: &str) {
    let values = |many: usize, zero: &dyn Fn(usize) -> bool| -> Vec<u8> {
        (0..many).flat_map(|n| if zero(n) { [0; 2] } else { [n as u8, 0x3f] }).collect()
    };
    let tensors: [(&str, &str, [usize; 2], Vec<u8>); 5] = [
        ("vision_model.encoder.layers.0.self_attn.qkv.weight", "BF16", [12, 8], values(96, &|n| n % 5 < 2)),
        (
            "language_model.encoder.block.0.layer.0.SelfAttention.q.weight",
            "BF16",
            [8, 8],
            values(64, &|n| n % 4 % 3 == 0),
        ),
        ("language_model.shared.weight", "BF16", [10, 4], values(40, &|_| false)),
        ("language_model.encoder.embed_tokens.weight", "BF16", [10, 4], values(40, &|_| false)),
        ("language_projection.weight", "F32", [2, 2], vec![1; 16]),
    ];
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let place = [data.len(), data.len() + bytes.len()];
        header.insert(name.to_owned(), json!({ "dtype": dtype, "shape": shape, "data_offsets": place }));
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    house.write(
        &format!("{folder}/config.json"),
        r#"{"model_type": "instructblip", "dtype": "bfloat16",
        "architectures": ["InstructBlipForConditionalGeneration"], "num_query_tokens": 4,
        "vision_config": {"hidden_size": 8, "image_size": 28}, "text_config": {"model_type": "t5", "d_model": 4}}"#,
    );
    for name in ["generation_config.json", "preprocessor_config.json", "tokenizer.json"] {
        house.write(&format!("{folder}/{name}"), "{}");
    }
    house.write(&format!("{folder}/pytorch_model.bin"), "PK");
    fs::write(house.path(folder).join("model.safetensors"), file).unwrap();
}

#[test]
fn a_folder_is_shown_as_a_table_and_as_json() {
    let house = House::new();
    model(&house, "m");
    let shown = house.ressa(&["inspect", "m", "--layers"]);
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    insta::assert_snapshot!(shown.stdout, @"
    `instructblip` with `t5` (InstructBlipForConditionalGeneration), written as bfloat16
      text_config: d_model 4
      vision_config: hidden_size 8, image_size 28

      part                blocks  tensors  parameters  prunable  type       size    zeros  pattern
      vision                   1        1          96        96  BF16      192 B  40.62 %
        encoder.layers.0                1          96        96  BF16      192 B  40.62 %
      projection                        1           4            F32        16 B
      language                 1        2         104        64  BF16      208 B  50.00 %      1:2
        encoder.block.0                 1          64        64  BF16      128 B  50.00 %      1:2
      total                    2        4         204       160  BF16+F32  416 B  44.38 %

    1 file of weights, 416 B

    leftovers
      language_model.encoder.embed_tokens.weight  (80 B, a copy of `language_model.shared.weight`)

    not there
      processor_config.json  (image tokens)
      qformer_tokenizer/tokenizer.json  (tokenizer of the Q-Former)
    ");
    let found: Value = serde_json::from_str(&house.ressa(&["inspect", "m", "--json"]).stdout).unwrap();
    assert_eq!(found["architecture"]["model_type"], "instructblip");
    assert_eq!(found["total"]["parameters"], 96 + 64 + 40 + 4);
    let vision = &found["parts"][0];
    assert_eq!(
        (&vision["part"], &vision["zeros"], &vision["dtypes"]),
        (&json!("vision"), &json!(39), &json!({"BF16": 1}))
    );
    let file = house.ressa(&["inspect", "m/model.safetensors", "--headers"]);
    assert_eq!(file.code, 0, "{}", file.stderr);
    assert!(file.stdout.contains("language") && !file.stdout.contains("pattern"), "{}", file.stdout);
}

#[test]
fn what_cannot_be_used_has_its_exit_code() {
    let house = House::new();
    assert_eq!(house.ressa(&["inspect", "nowhere"]).code, 66);
    assert_eq!(house.ressa(&["verify", "no/where"]).code, 66);
    house.write("empty/config.json", "{}");
    let shown = house.ressa(&["inspect", "empty"]);
    assert_eq!(shown.code, 65);
    assert!(shown.stdout.contains("problems"), "{}", shown.stdout);
    assert_eq!(house.ressa(&["verify", "empty"]).code, 65);
    assert_eq!(house.ressa(&["export", "--model", "empty", "--output", "out"]).code, 65);
    assert_eq!(house.ressa(&["export", "--output", "out"]).code, 2);
    assert_eq!(house.ressa(&["export", "magnitude, seed 0", "small", "--output", "out"]).code, 4);
    assert!(!house.path("out").exists());
}

#[test]
fn a_folder_is_written_again_and_verified() {
    let house = House::new();
    model(&house, "m");
    let wrote = house.ressa(&["export", "--model", "m", "--output", "out"]);
    assert_eq!(wrote.code, 0, "{}", wrote.stderr);
    insta::assert_snapshot!(wrote.stdout, @"
    1 file of weights, 1.0 kB; 0 tensors changed
      vision    40.62 % zero
      language  50.00 % zero
    left out pytorch_model.bin  (weights in another form, possibly a pickle)
    wrote out
    ");
    for name in ["model.safetensors", "config.json", "tokenizer.json"] {
        assert_eq!(fs::read(house.path("m").join(name)).unwrap(), fs::read(house.path("out").join(name)).unwrap());
    }
    let again = house.ressa(&["export", "--model", "m", "--output", "out"]);
    assert_eq!(again.code, 65, "{}", again.stderr);

    let verified = house.ressa(&["verify", "out"]);
    assert_eq!(verified.code, 0, "{}", verified.stdout);
    insta::assert_snapshot!(verified.stdout, @"
    out

      tower     linears  weights     zero  pattern
      vision          1       96  40.62 %
      language        1       64  50.00 %      1:2

    5 tensors compared with its certificate, 0 wrong
    ");
    // A folder without a certificate is held to what the command line says.
    assert_eq!(house.ressa(&["verify", "m"]).code, 0);
    assert_eq!(house.ressa(&["verify", "m", "--tower", "language", "--pattern", "2:4", "--sparsity", "0.5"]).code, 0);
    let wrong = house.ressa(&["verify", "m", "--pattern", "2:4", "--json"]);
    assert_eq!(wrong.code, 104);
    let found: Value = serde_json::from_str(&wrong.stdout).unwrap();
    assert_eq!((&found["holds"], &found["tensors"][0]["crowded_groups"]), (&json!(false), &json!(9)));

    // One byte of a weight changes on disk.
    let weights = house.path("out/model.safetensors");
    let mut bytes = fs::read(&weights).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, bytes).unwrap();
    let damaged = house.ressa(&["verify", "out"]);
    assert_eq!(damaged.code, 104);
    assert!(damaged.stdout.contains("WRONG  language_projection.weight: its bytes are not"), "{}", damaged.stdout);
}
