//! Model folders on the command line: looked at, verified, written again.

use std::fs;

use serde_json::{Value, json};

use crate::house::House;

/// Linears, embeddings and projections of an InstructBLIP with one block in every stack, none wider than 16, with their shapes.
fn shapes() -> Vec<(String, Vec<usize>)> {
    let mut shapes: Vec<(String, Vec<usize>)> = Vec::new();
    let mut add = |name: String, shape: &[usize]| shapes.push((name, shape.to_vec()));
    let at = "vision_model.encoder.layers.0";
    for (name, shape) in
        [("self_attn.qkv", [24, 8]), ("self_attn.projection", [8, 8]), ("mlp.fc1", [12, 8]), ("mlp.fc2", [8, 12])]
    {
        add(format!("{at}.{name}.weight"), &shape);
    }
    let at = "vision_model.embeddings";
    add(format!("{at}.class_embedding"), &[1, 1, 8]);
    add(format!("{at}.position_embedding"), &[1, 5, 8]);
    add(format!("{at}.patch_embedding.weight"), &[8, 3, 2, 2]);
    let at = "qformer.encoder.layer.0";
    for (name, keys) in [("attention", 6), ("crossattention", 8)] {
        for (role, inputs) in
            [("attention.query", 6), ("attention.key", keys), ("attention.value", keys), ("output.dense", 6)]
        {
            add(format!("{at}.{name}.{role}.weight"), &[6, inputs]);
        }
    }
    for suffix in ["", "_query"] {
        add(format!("{at}.intermediate{suffix}.dense.weight"), &[10, 6]);
        add(format!("{at}.output{suffix}.dense.weight"), &[6, 10]);
    }
    add("qformer.embeddings.word_embeddings.weight".to_owned(), &[9, 6]);
    add("qformer.embeddings.position_embeddings.weight".to_owned(), &[7, 6]);
    add("query_tokens".to_owned(), &[1, 4, 6]);
    for (stack, attentions) in [("encoder", &["SelfAttention"][..]), ("decoder", &["SelfAttention", "EncDecAttention"])]
    {
        let at = format!("language_model.{stack}.block.0.layer");
        for (layer, attention) in attentions.iter().enumerate() {
            for role in ["q", "k", "v", "o"] {
                add(format!("{at}.{layer}.{attention}.{role}.weight"), &[8, 8]);
            }
        }
        for (role, shape) in [("wi_0", [16, 8]), ("wi_1", [16, 8]), ("wo", [8, 16])] {
            add(format!("{at}.{}.DenseReluDense.{role}.weight", attentions.len()), &shape);
        }
    }
    for name in ["shared", "encoder.embed_tokens"] {
        add(format!("language_model.{name}.weight"), &[10, 8]);
    }
    add("language_projection.weight".to_owned(), &[8, 6]);
    shapes
}

/// Writes a small InstructBLIP: vision linears of which two in five weights are zero, 2:4 language linears, an embedding with a copy.
fn model(house: &House, folder: &str) {
    let is_zero = |name: &str, n: usize| match name {
        name if name.contains(".layers.") => n % 5 < 2,
        name if name.contains(".block.") => (n % 4).is_multiple_of(3),
        _ => false,
    };
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), json!({ "format": "pt" }))]);
    let mut data = Vec::new();
    for (name, shape) in shapes() {
        let start = data.len();
        let projection = name == "language_projection.weight";
        for n in 0..shape.iter().product() {
            match () {
                () if projection => data.extend([1; 4]),
                () if is_zero(&name, n) => data.extend([0; 2]),
                () => data.extend([n as u8, 0x3f]),
            }
        }
        let dtype = if projection { "F32" } else { "BF16" };
        header.insert(name, json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, data.len()] }));
    }
    let header = Value::Object(header).to_string();
    let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat();
    house.write(
        &format!("{folder}/config.json"),
        r#"{"model_type": "instructblip", "dtype": "bfloat16",
        "architectures": ["InstructBlipForConditionalGeneration"], "num_query_tokens": 4,
        "vision_config": {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 4, "patch_size": 2},
        "qformer_config": {"hidden_size": 6, "intermediate_size": 10, "num_hidden_layers": 1, "num_attention_heads": 2,
            "vocab_size": 9, "max_position_embeddings": 7},
        "text_config": {"model_type": "t5", "d_model": 8, "d_kv": 4, "d_ff": 16, "num_heads": 2, "num_layers": 1,
            "vocab_size": 10, "feed_forward_proj": "gated-gelu"}}"#,
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
      qformer_config: hidden_size 6, num_hidden_layers 1, num_attention_heads 2, intermediate_size 10, vocab_size 9
      text_config: d_model 8, num_layers 1, num_heads 2, d_ff 16, vocab_size 10
      vision_config: hidden_size 8, num_hidden_layers 1, num_attention_heads 2, intermediate_size 12, image_size 4, patch_size 2

      part                blocks  tensors  parameters  prunable  type        size    zeros  pattern
      vision                   1        7         592       448  BF16      1.2 kB  40.62 %
        encoder.layers.0                4         448       448  BF16       896 B  40.62 %
      qformer                  1       15         672       552  BF16      1.3 kB   0.00 %
        encoder.layer.0                12         552       552  BF16      1.1 kB   0.00 %
      projection                        1          48            F32        192 B
      language                 2       19       1 616     1 536  BF16      3.2 kB  50.00 %      1:2
        encoder.block.0                 7         640       640  BF16      1.3 kB  50.00 %      1:2
        decoder.block.0                11         896       896  BF16      1.8 kB  50.00 %      1:2
      total                    4       42       2 928     2 536  BF16+F32  6.0 kB  37.46 %

    1 file of weights, 6.0 kB

    leftovers
      language_model.encoder.embed_tokens.weight  (160 B, a copy of `language_model.shared.weight`)

    not there
      processor_config.json  (image tokens)
      qformer_tokenizer/tokenizer.json  (tokenizer of the Q-Former)
    ");
    let found: Value = serde_json::from_str(&house.ressa(&["inspect", "m", "--json"]).stdout).unwrap();
    assert_eq!(found["architecture"]["model_type"], "instructblip");
    assert_eq!(found["total"]["parameters"], 2928);
    let vision = &found["parts"][0];
    assert_eq!(
        (&vision["part"], &vision["zeros"], &vision["dtypes"]),
        (&json!("vision"), &json!(182), &json!({"BF16": 7}))
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
    model(&house, "m");
    let below = house.ressa(&["export", "--model", "m", "--output", "m/tokenizer.json/out"]);
    assert_eq!(below.code, 110);
    assert!(below.stderr.contains("tokenizer.json` is a file, not a folder"), "{}", below.stderr);
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
    1 file of weights, 11.1 kB; 0 tensors changed
      vision    40.62 % zero
      connector 0.00 % zero
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

      tower      linears  weights     zero  pattern
      vision           4      448  40.62 %
      connector       12      552   0.00 %
      language        18    1 536  50.00 %      1:2

    43 tensors compared with its certificate, 0 wrong
    ");
    // A folder without a certificate is held to what the command line says.
    assert_eq!(house.ressa(&["verify", "m"]).code, 0);
    assert_eq!(house.ressa(&["verify", "m", "--tower", "language", "--pattern", "2:4", "--sparsity", "0.5"]).code, 0);
    let wrong = house.ressa(&["verify", "m", "--pattern", "2:4", "--json"]);
    assert_eq!(wrong.code, 104);
    let found: Value = serde_json::from_str(&wrong.stdout).unwrap();
    assert_eq!((&found["holds"], &found["tensors"][0]["crowded_groups"]), (&json!(false), &json!(18)));

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

#[test]
fn a_folder_that_cannot_be_loaded_is_neither_sound_nor_verified() {
    let house = House::new();
    model(&house, "m");
    let sound = fs::read_to_string(house.path("m/config.json")).unwrap();
    let codes = || (house.ressa(&["inspect", "m"]), house.ressa(&["verify", "m"]));
    for (from, to, said) in [
        ("instructblip\", \"dtype", "kosmos\", \"dtype", "`model_type` is `kosmos`"),
        ("\"t5\"", "\"gpt2\"", "`text_config.model_type` is `gpt2`"),
        ("\"patch_size\": 2", "\"patch_size\": 0", "`vision_config.patch_size` is 0"),
        ("\"d_ff\": 16", "\"d_ff\": 15", "DenseReluDense.wi_0.weight [16, 8], not [15, 8]"),
        ("\"num_layers\": 1", "\"num_layers\": 2", "missing, although the configuration speaks of them"),
        ("}}", "}", "it is not as expected"),
    ] {
        assert!(sound.contains(from), "{from}");
        house.write("m/config.json", &sound.replace(from, to));
        let (inspected, verified) = codes();
        assert_eq!((inspected.code, verified.code), (65, 104), "{from}: {}", verified.stdout);
        assert!(inspected.stdout.contains(said) && verified.stdout.contains(said), "{from}: {}", verified.stdout);
    }
    fs::remove_file(house.path("m/config.json")).unwrap();
    let (inspected, verified) = codes();
    assert_eq!((inspected.code, verified.code), (65, 104), "{}", verified.stdout);
    assert_eq!(house.ressa(&["verify", "m/model.safetensors"]).code, 0, "a file on its own has no configuration");
}

#[test]
fn requests_and_searches_that_cannot_be_meant_are_refused_with_what_is_wanted() {
    let house = House::new();
    model(&house, "m");
    let ask = |arguments: &[&str]| house.ressa(&[&["generate", "--model", "m"], arguments].concat());
    for (text, said) in [
        ("{}", r#"expected a list of `{"image": FILE, "prompt": TEXT}`, found an object"#),
        ("[]]", "it is not JSON"),
        (
            r#"[{"image": "a.png", "prompt": "x"}, "b.png"]"#,
            r#"entry 2 must be `{"image": FILE, "prompt": TEXT}`: it is a text"#,
        ),
        (r#"[{"image": "a.png"}]"#, "entry 1 must be"),
    ] {
        house.write("requests.json", text);
        let refused = ask(&["--requests", "requests.json"]);
        assert_eq!(refused.code, 65, "{text}");
        assert!(refused.stderr.contains(said) && !refused.stderr.contains("struct"), "{}", refused.stderr);
    }
    house.write("requests.json", "[]");
    let none =
        house.ressa(&["lab", "stats", "--model", "m", "--requests", "requests.json", "--output", "o.safetensors"]);
    assert_eq!(none.code, 65);
    assert!(none.stderr.contains("the list is empty"), "{}", none.stderr);
    for what in ["length", "new-tokens"] {
        let (least, most) = (format!("--min-{what}"), format!("--max-{what}"));
        let refused = ask(&["--image", "a.png", "--prompt", "x", &least, "5", &most, "4"]);
        assert_eq!(refused.code, 2, "{}", refused.stderr);
        assert!(refused.stderr.contains(&format!("{least} is 5 and {most} is 4")), "{}", refused.stderr);
    }
}

/// What a worker would refuse is said before one starts.
#[test]
fn a_folder_that_cannot_be_used_is_named_before_anything_runs() {
    let house = House::new();
    let study = "extends: ../base/model.yaml\nmodel: { preset: null, checkpoint: checkpoints/blip }\n\
                 replicate: { seed: 0 }\nprune: { metric: magnitude }\n";
    house.write("experiments/shapes/taken.yaml", study);
    house.write_checkpoint("checkpoints/blip", 1.0);
    assert!(!house.ressa(&["plan", "taken"]).stdout.contains("cannot be used"));
    // Everything that a processor is may stand in one file, as transformers 5 writes it.
    let own = house.path("checkpoints/blip/preprocessor_config.json");
    let settings: Value = serde_json::from_slice(&fs::read(&own).unwrap()).unwrap();
    let nested = serde_json::json!({ "image_processor": settings, "num_query_tokens": 2 });
    house.write("checkpoints/blip/processor_config.json", &nested.to_string());
    fs::remove_file(own).unwrap();
    let plan = house.ressa(&["plan", "taken"]).stdout;
    assert!(!plan.contains("missing") && !plan.contains("cannot be used"), "{plan}");

    house.write("checkpoints/blip/generation_config.json", r#"{"decoder_start_token_id": -1}"#);
    let plan = house.ressa(&["plan", "taken"]).stdout;
    assert!(plan.contains("\ncannot be used\n"), "{plan}");
    let sweep = house.ressa(&["sweep", "taken"]);
    assert_eq!(sweep.code, 65);
    insta::assert_snapshot!(sweep.stderr, @"
    error: `HOUSE/checkpoints/blip` cannot be used (checkpoint: `generation_config.json`: `decoder_start_token_id` is -1; token ids of this model are 0 to 127); `ressa plan` lists what a sweep needs
    ");
}

#[test]
fn a_path_that_is_no_text_is_refused_by_name() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let house = House::new();
    let odd = house.folder.path().join(OsStr::from_bytes(b"w\xff"));
    fs::create_dir_all(odd.join("experiments/shapes")).unwrap();
    let runs = [
        house.command(&["status", "small", "--results"]).arg(&odd).output().unwrap(),
        house.command(&["sweep", "small"]).current_dir(&odd).output().unwrap(),
        house.command(&["inspect"]).arg(&odd).output().unwrap(),
    ];
    for ended in runs {
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(said.contains("is not UTF-8; rename it") && !said.contains("panicked"), "{said}");
        assert_eq!(ended.status.code(), Some(2));
    }
}
