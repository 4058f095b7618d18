//! What is fed: every kind of file and line that this program reads.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ressa_checkpoint::{Checkpoint, Claims, ExportRequest, FolderCertificate, inspect, problems, verify};
use ressa_data::{Benchmark, Captions, Image, Processor};
use ressa_experiment::{
    Experiment, Task,
    config::{CorporaConfig, Corpus, DataConfig, DataSource},
    job::{Compute, Container, Generate, Job, ModelAt, PromptRequest, RandomCheckpoint, Reply, SearchOptions},
    protocol::{Event, Request},
};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::{driver::Target, mutate::Form};

/// Sets a target up.
type Make = fn() -> Target;

/// Every target by its name.
pub const TARGETS: [(&str, Make); 12] = [
    ("model", model),
    ("processor", processor),
    ("templates", templates),
    ("tokenizer", tokenizer),
    ("safetensors", safetensors),
    ("folder", folder),
    ("annotations", annotations),
    ("tables", tables),
    ("images", images),
    ("yaml", yaml),
    ("overrides", overrides),
    ("lines", lines),
];

/// A file of this repository.
fn ours(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Files of a folder with an ending, sorted.
fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(ours(folder)).unwrap().map(|item| item.unwrap().path()).collect();
    found.retain(|path| path.is_file() && path.to_string_lossy().ends_with(ending));
    found.sort();
    found
}

/// Writes a tiny model folder with everything beside its weights, of the family of a golden.
fn tiny(like: &str, folder: &Path) {
    let config = ours(&format!("crates/models/tests/goldens/{like}/config.json")).display().to_string();
    let work = RandomCheckpoint { like: config, output: folder.to_owned(), seed: 1, dtype: Compute::Float32 };
    ressa_lab::run(&Job::RandomCheckpoint(work), tch::Device::Cpu, &mut |_, _| ()).expect("a tiny model");
}

/// The JSON files of a folder as one document, by name.
fn documents(folder: &Path, names: &[&str]) -> Vec<u8> {
    let read =
        |name: &&str| Some(((*name).to_owned(), serde_json::from_slice(&fs::read(folder.join(name)).ok()?).ok()?));
    let fields: Map<String, Value> = names.iter().filter_map(read).collect();
    Value::Object(fields).to_string().into_bytes()
}

/// Writes the documents of an input into a folder. An entry that is a text is the file's text.
fn write(folder: &Path, input: &[u8], names: &[&str]) -> bool {
    let Ok(Value::Object(fields)) = serde_json::from_slice(input) else { return false };
    for name in names {
        let path = folder.join(name);
        match fields.get(*name) {
            None => drop(fs::remove_file(&path)),
            Some(Value::String(text)) => fs::write(&path, text).unwrap(),
            Some(value) => fs::write(&path, value.to_string()).unwrap(),
        }
    }
    true
}

const SETTINGS: [&str; 4] =
    ["config.json", "generation_config.json", "preprocessor_config.json", "processor_config.json"];

/// The settings of model folders, up to an answer about an image.
fn model() -> Target {
    let root = TempDir::new().unwrap();
    let mut folders = Vec::new();
    let mut seeds = Vec::new();
    for like in [
        "instructblip-flant5",
        "instructblip-vicuna",
        "blip2-opt",
        "blip2-itm",
        "llava-siglip",
        "smolvlm",
        "internvl",
        "llava-next",
    ] {
        let folder = root.path().join(like);
        tiny(like, &folder);
        let mut seed: Map<String, Value> = serde_json::from_slice(&documents(&folder, &SETTINGS)).unwrap();
        seed.insert("like".to_owned(), json!(folders.len()));
        seeds.push(Value::Object(seed).to_string().into_bytes());
        folders.push(folder);
    }
    let image = files("crates/data/tests/goldens/images", "rgb.png").remove(0);
    let run = move |input: &[u8]| {
        let like = serde_json::from_slice::<Value>(input).unwrap_or_default()["like"].as_u64().unwrap_or_default();
        let folder = folders.get(like as usize).unwrap_or(&folders[0]);
        if !write(folder, input, &SETTINGS) {
            return;
        }
        let _ = inspect(folder, false);
        let _ = ressa_predict::Model::at(folder);
        let search = SearchOptions { max_new_tokens: Some(3), ..SearchOptions::default() };
        let requests = vec![PromptRequest { image: image.clone(), prompt: "is there a kite?".to_owned() }];
        let job = Generate { model: ModelAt { folder: folder.clone(), compute: None }, requests, search };
        let _ = ressa_lab::run(&Job::Generate(job), tch::Device::Cpu, &mut |_, _| ());
        let _kept = &root;
    };
    Target { form: Form::Json, seeds, run: Box::new(run) }
}

const TEXT: &str = "Is the <image> kite\u{301} RED?  yes, it's 5 \u{1f986}. </s> ";

/// Uses a processor for all that it can do.
fn use_processor(folder: &Path, image: &Image) {
    let Ok(processor) = Processor::load(folder) else { return };
    for special in [true, false] {
        if let Ok(ids) = processor.tokenize(TEXT, special) {
            let _ = processor.detokenize(&ids, special);
        }
        let _ = processor.tokenize_within(TEXT, special, 3);
        let _ = processor.tokenize_qformer(TEXT, special);
    }
    let _ = processor.encode_prompt_with_image(TEXT);
    let _ = processor.detokenize(&[0, 1, u32::MAX, 300], false);
    let _ = (processor.leading_specials(), processor.placeholders(), processor.qformer_pad());
    // Large pictures only take long.
    let (height, width) = processor.size_of(image).unwrap_or((u32::MAX, u32::MAX));
    if u64::from(height) * u64::from(width) <= 1 << 20 {
        let _ = processor.prompt(TEXT, (height, width));
        // A text with an image token of its own is no turn of a conversation.
        let _ = processor.prompt("Is it red?", (height, width));
        let _ = processor.pixels([image]);
        let _ = processor.images().levels(image);
    }
}

fn small_image() -> Image {
    Image::from_rgb(5, 3, (0..45).collect()).expect("of its size")
}

const BESIDE: [&str; 8] = [
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "qformer_tokenizer/tokenizer_config.json",
    "qformer_tokenizer/special_tokens_map.json",
];

/// The settings of image processors and tokenizers.
fn processor() -> Target {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("model");
    tiny("instructblip-vicuna", &folder);
    let mut seeds = vec![documents(&folder, &BESIDE)];
    let mut nested: Map<String, Value> = serde_json::from_slice(&seeds[0]).unwrap();
    nested["processor_config.json"]["image_processor"] = json!({
        "image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 8}, "crop_size": {"height": 6, "width": 6},
        "resample": 2, "image_mean": 0.5, "image_std": [0.2, 0.3, 0.4], "rescale_factor": 0.01, "do_normalize": true,
    });
    nested.shift_remove("preprocessor_config.json");
    nested.insert("added_tokens.json".to_owned(), json!({"<image>": 40}));
    seeds.push(Value::Object(nested).to_string().into_bytes());
    let image = small_image();
    let run = move |input: &[u8]| {
        if write(&folder, input, &BESIDE) {
            use_processor(&folder, &image);
        }
        let _kept = &root;
    };
    Target { form: Form::Json, seeds, run: Box::new(run) }
}

/// What chat templates are written with.
const JINJA: [&str; 34] = [
    "{{ ",
    " }}",
    "{% ",
    " %}",
    "{%- ",
    " -%}",
    "for i in range(9)",
    "endfor",
    "if ",
    "elif ",
    "else",
    "endif",
    "set ns = namespace(x='a')",
    "set ns.x = ",
    "ns.x",
    "macro f(a)",
    "endmacro",
    "f(",
    ")",
    " ~ ",
    " + ",
    " * ",
    "|join(",
    "|replace('', 'ab')",
    "|tojson",
    "|list",
    ".strip()",
    ".split('a')",
    "[0:]",
    "[",
    "]",
    "messages",
    "content",
    "<|image_pad|>",
];

/// Chat templates.
fn templates() -> Target {
    let root = TempDir::new().unwrap();
    let folder = root.path().to_owned();
    copy(&ours("crates/models/tests/goldens/qwen2-vl"), &folder);
    let of = |like: &str| {
        let path = ours("crates/models/tests/goldens").join(like).join("tokenizer_config.json");
        let settings: Value = serde_json::from_slice(&read(&path)).unwrap();
        settings["chat_template"].as_str().map(|text| text.as_bytes().to_vec())
    };
    let seeds = ["qwen2-vl", "qwen2_5-vl"].into_iter().filter_map(of).collect();
    let image = small_image();
    let run = move |input: &[u8]| {
        fs::write(folder.join("chat_template.jinja"), input).unwrap();
        use_processor(&folder, &image);
        let _kept = &root;
    };
    Target { form: Form::Text(&JINJA), seeds, run: Box::new(run) }
}

/// `tokenizer.json` of every kind.
fn tokenizer() -> Target {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("model");
    tiny("blip2-itm", &folder);
    fs::remove_file(folder.join("config.json")).unwrap();
    let goldens: Value = serde_json::from_slice(&read(&ours("crates/data/tests/goldens/tokenizers.json"))).unwrap();
    let mut seeds = vec![read(&folder.join("tokenizer.json"))];
    collect(&goldens, &mut seeds);
    let image = small_image();
    let run = move |input: &[u8]| {
        fs::write(folder.join("tokenizer.json"), input).unwrap();
        use_processor(&folder, &image);
        let _kept = &root;
    };
    Target { form: Form::Json, seeds, run: Box::new(run) }
}

/// Every tokenizer within a document.
fn collect(value: &Value, found: &mut Vec<Vec<u8>>) {
    match value {
        Value::Object(fields) if fields.contains_key("model") && fields.contains_key("pre_tokenizer") => {
            found.push(value.to_string().into_bytes());
        }
        Value::Object(fields) => fields.values().for_each(|value| collect(value, found)),
        Value::Array(items) => items.iter().for_each(|value| collect(value, found)),
        Value::String(text) if text.contains("\"pre_tokenizer\"") => found.push(text.clone().into_bytes()),
        _ => {}
    }
}

/// A file of weights: looked at, counted, verified, written again.
fn safetensors() -> Target {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("model");
    fs::create_dir(&folder).unwrap();
    let header = json!({
        "__metadata__": {"format": "pt"},
        "language_model.encoder.block.0.layer.0.SelfAttention.q.weight": {"dtype": "F32", "shape": [2, 4], "data_offsets": [0, 32]},
        "model.query_tokens": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [32, 36]},
        "vision_model.encoder.layers.0.mlp.fc1.weight": {"dtype": "F16", "shape": [1, 4], "data_offsets": [36, 44]},
        "x.position_ids": {"dtype": "I64", "shape": [], "data_offsets": [44, 52]},
        "empty": {"dtype": "F8_E4M3", "shape": [0, 3], "data_offsets": [52, 52]},
    });
    let header = header.to_string();
    let seed = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[3; 52]].concat();
    let mut number = 0u32;
    let run = move |input: &[u8]| {
        fs::write(folder.join("model.safetensors"), input).unwrap();
        number += 1;
        use_folder(&folder, &root.path().join("output"), number.is_multiple_of(4));
    };
    Target { form: Form::Safetensors, seeds: vec![seed], run: Box::new(run) }
}

/// Looks at a folder in every way that takes no tensor library, and writes it again, which takes longest.
fn use_folder(folder: &Path, output: &Path, writes: bool) {
    let _ = inspect(folder, true);
    let _ = problems(folder);
    let own = FolderCertificate::read(folder);
    if let Ok(checkpoint) = Checkpoint::open(folder) {
        let _ = verify(&checkpoint, own.ok().flatten().as_ref(), &Claims::default());
    }
    for max_shard_size in [None, Some(5000)].into_iter().filter(|_| writes) {
        let patterns = BTreeMap::new();
        let container = if max_shard_size.is_some() { Container::Bitmask } else { Container::Dense };
        let request = ExportRequest {
            source: folder,
            output,
            max_shard_size,
            container,
            patterns: &patterns,
            program: "",
            run: None,
        };
        let card = |found: &FolderCertificate| ressa_checkpoint::card("x", None, found, folder);
        let _ = ressa_checkpoint::export::<ressa_checkpoint::CheckpointError>(
            &request,
            &mut |_, _| Ok(None),
            Some(&card),
            &mut |_, _| (),
        );
        let _ = fs::remove_dir_all(output);
    }
}

const FOLDER: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "ressa_certificate.json",
    "adapter_config.json",
    "README.md",
];

/// Everything beside the weights that a folder is recognised by.
fn folder() -> Target {
    let root = TempDir::new().unwrap();
    let folder = root.path().join("model");
    tiny("instructblip-flant5", &folder);
    let output = root.path().join("certified");
    let patterns = BTreeMap::new();
    let request = ExportRequest {
        source: &folder,
        output: &output,
        max_shard_size: Some(20_000),
        container: Container::Dense,
        patterns: &patterns,
        program: "a test",
        run: None,
    };
    let exported = ressa_checkpoint::export::<ressa_checkpoint::CheckpointError>(
        &request,
        &mut |_, _| Ok(None),
        None,
        &mut |_, _| (),
    );
    exported.expect("a folder in pieces");
    let mut seed: Map<String, Value> = serde_json::from_slice(&documents(&output, &FOLDER)).unwrap();
    let card = "---\nbase_model:\n- a/b\nlicense: mit\n---\n# x `/a/b/c`\n";
    seed.insert("README.md".to_owned(), json!(card));
    seed["config.json"]["quantization_config"] =
        json!({"quant_method": "compressed-tensors", "config_groups": {}, "sparsity_config": {}});
    seed["config.json"]["_name_or_path"] = json!("/a/b");
    let adapted = {
        let mut seed = seed.clone();
        seed.insert("adapter_config.json".to_owned(), json!({"base_model_name_or_path": "a/b"}));
        Value::Object(seed).to_string().into_bytes()
    };
    let seeds = vec![Value::Object(seed).to_string().into_bytes(), adapted];
    let mut number = 0u32;
    let run = move |input: &[u8]| {
        if write(&output, input, &FOLDER) {
            number += 1;
            use_folder(&output, &root.path().join("again"), number.is_multiple_of(4));
        }
    };
    Target { form: Form::Json, seeds, run: Box::new(run) }
}

const CORPORA: [Corpus; 5] = Corpus::ALL;

/// Annotation files of every benchmark and corpus.
fn annotations() -> Target {
    let root = TempDir::new().unwrap();
    let data = root.path().to_owned();
    copy(&ours("crates/data/tests/published"), &data);
    let mut names: Vec<String> = Vec::new();
    let listed = Task::ALL.iter().flat_map(|task| ressa_data::published::expected(*task).iter());
    let corpora = CORPORA.iter().flat_map(|corpus| ressa_data::published::expected_of_corpus(*corpus).iter());
    for file in listed.chain(corpora).filter(|file| file.path.ends_with(".json") && data.join(file.path).is_file()) {
        // Those with a line for each entry are read by `tables`.
        let is_document = serde_json::from_slice::<Value>(&read(&data.join(file.path))).is_ok();
        if is_document && !names.iter().any(|name| name == file.path) {
            names.push(file.path.to_owned());
        }
    }
    // One file at a time: others stay as they are.
    let seeds = names.iter().map(|name| {
        let value: Value = serde_json::from_slice(&read(&data.join(name))).unwrap();
        json!({ name.as_str(): value }).to_string().into_bytes()
    });
    let seeds: Vec<Vec<u8>> = seeds.collect();
    let original: BTreeMap<String, Vec<u8>> = names.iter().map(|name| (name.clone(), read(&data.join(name)))).collect();
    let run = move |input: &[u8]| {
        let Ok(Value::Object(fields)) = serde_json::from_slice(input) else { return };
        let changed: Vec<&String> = names.iter().filter(|name| fields.contains_key(*name)).collect();
        for name in &changed {
            fs::write(data.join(name), fields[*name].to_string()).unwrap();
        }
        let config = DataConfig { source: DataSource::Folder, root: Some(data.clone()), ..DataConfig::default() };
        for task in Task::ALL {
            if let Ok(benchmark) = Benchmark::load(&config, task, 5) {
                benchmark.images().iter().for_each(|image| drop(image.image()));
            }
        }
        for corpus in CORPORA {
            let config = CorporaConfig { corpora: vec![corpus], ..CorporaConfig::default() };
            let _ = Captions::first(&config, &data, 3);
            let _ = Captions::draw(&config, &data, 3, &mut |total, share| (0..share.min(total)).collect());
        }
        for name in changed {
            fs::write(data.join(name), &original[name]).unwrap();
        }
        let _kept = &root;
    };
    Target { form: Form::Json, seeds, run: Box::new(run) }
}

/// Annotations that are no JSON document: a table, lines of JSON, lines of text. The first byte says which is changed.
fn tables() -> Target {
    const FILES: [(&str, Task); 3] = [
        ("mmbench/annotations/MMBench_DEV_EN.tsv", Task::Mmbench),
        ("pope/annotations/coco_pope_random.json", Task::Pope),
        ("mme/existence/0000.txt", Task::Mme),
    ];
    let root = TempDir::new().unwrap();
    let data = root.path().to_owned();
    copy(&ours("crates/data/tests/published"), &data);
    let original = FILES.map(|(name, _)| read(&data.join(name)));
    let seeds = original.iter().enumerate().map(|(at, bytes)| [&[at as u8], bytes.as_slice()].concat()).collect();
    let run = move |input: &[u8]| {
        let Some((which, bytes)) = input.split_first() else { return };
        let at = *which as usize % FILES.len();
        let (name, task) = FILES[at];
        fs::write(data.join(name), bytes).unwrap();
        let config = DataConfig { source: DataSource::Folder, root: Some(data.clone()), ..DataConfig::default() };
        if let Ok(benchmark) = Benchmark::load(&config, task, 100) {
            benchmark.images().iter().for_each(|image| drop(image.image()));
            let _ = benchmark.asked(&Default::default());
        }
        fs::write(data.join(name), &original[at]).unwrap();
        let _kept = &root;
    };
    Target { form: Form::Bytes, seeds, run: Box::new(run) }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(item.file_name());
        if item.path().is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

/// Pictures of every kind.
fn images() -> Target {
    let root = TempDir::new().unwrap();
    let settings = json!({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 9}, "crop_size": {"height": 8, "width": 8}});
    fs::write(root.path().join("preprocessor_config.json"), settings.to_string()).unwrap();
    let processor = ressa_data::ImageProcessor::load(root.path()).expect("sound settings");
    let seeds = files("crates/data/tests/goldens/images", "");
    let seeds = seeds.iter().map(|path| read(path)).filter(|bytes| bytes.len() < 20_000).collect();
    let run = move |input: &[u8]| {
        if let Ok(image) = Image::from_bytes(input, Path::new("picture")) {
            let _ = processor.levels(&image);
            let _ = image.planes();
        }
    };
    Target { form: Form::Bytes, seeds, run: Box::new(run) }
}

/// What experiments are written with.
const WORDS: [&str; 48] = [
    "axes",
    "include",
    "exclude",
    "extends",
    "replicate",
    "seed",
    "prune",
    "metric",
    "pattern",
    "2:4",
    "unstructured",
    "vision",
    "language",
    "sparsity",
    "restore",
    "report",
    "tables",
    "figures",
    "claims",
    "null",
    "~",
    "true",
    "0.5",
    "0..3",
    "..",
    "1e400",
    "[",
    "]",
    "{",
    "}",
    ":",
    ",",
    "- ",
    "\n",
    "\n  ",
    "'",
    "\"",
    "#",
    "&a ",
    "*a",
    "!!int ",
    "|",
    ">",
    "---\n",
    "\t",
    "=",
    "\u{feff}",
    "50%",
];

/// Experiment files.
fn yaml() -> Target {
    let root = TempDir::new().unwrap();
    let experiments = root.path().join("experiments");
    copy(&ours("experiments/base"), &experiments.join("base"));
    fs::create_dir_all(experiments.join("shapes")).unwrap();
    let seeds: Vec<PathBuf> = [files("experiments/shapes", ".yaml"), files("experiments/paper", ".yaml")].concat();
    let seeds = seeds.iter().map(|path| read(path)).collect();
    let run = move |input: &[u8]| {
        let path = experiments.join("shapes/mutated.yaml");
        fs::write(&path, input).unwrap();
        load(&path, &experiments, &[]);
        let _kept = &root;
    };
    Target { form: Form::Text(&WORDS), seeds, run: Box::new(run) }
}

fn load(path: &Path, experiments: &Path, overrides: &[String]) {
    match Experiment::load(path, experiments, overrides) {
        Err(error) => drop(error.to_string()),
        // Large grids take long and say nothing new.
        Ok(experiment) if experiment.cells.len() > 100 => {}
        Ok(experiment) => {
            let graph = ressa_sweep::Graph::of(&[experiment], true);
            let _ = graph.kinds();
        }
    }
}

/// Overrides of the command line, one to a line.
fn overrides() -> Target {
    let experiments = ours("experiments");
    let seeds = [
        "prune.metric=wanda,magnitude\nreplicate.seed=0..2",
        "pattern=2:4\nprune.vision.sparsity=0.5",
        "restoration=pruned\nrestore.steps=2",
        "evaluate.caption.prompt='a photo, of'\nevaluate.tasks=[gqa, okvqa]",
        "data.root=/data\nmodel.checkpoint=null",
        "prune.language.sparsity=0.1..0.9 step 0.2",
    ];
    let seeds = seeds.iter().map(|text| text.as_bytes().to_vec()).collect();
    let run = move |input: &[u8]| {
        let text = String::from_utf8_lossy(input);
        let overrides: Vec<String> = text.lines().map(str::to_owned).collect();
        load(&experiments.join("shapes/smoke.yaml"), &experiments, &overrides);
    };
    Target { form: Form::Text(&WORDS), seeds, run: Box::new(run) }
}

/// Lines between the front program and its workers, in both directions.
fn lines() -> Target {
    let seeds = [
        json!({"event": "ready", "device": "cpu", "threads": 1}),
        json!({"event": "progress", "key": "ab", "fraction": 0.5, "message": "x"}),
        json!({"event": "failed", "key": "ab", "failure": {"kind": "oom", "message": "x", "log": null}}),
        json!({"reply": "progress", "fraction": 0.5, "message": "x"}),
        json!({"reply": "done", "output": {"a": 1}}),
        json!({"job": "generate", "model": {"folder": "/a", "compute": null}, "requests": [], "search": {}}),
    ];
    let seeds = seeds.iter().map(|line| line.to_string().into_bytes()).collect();
    let run = move |input: &[u8]| {
        let _ = serde_json::from_slice::<Event>(input);
        let _ = serde_json::from_slice::<Request>(input);
        let _ = serde_json::from_slice::<Reply>(input);
        let _ = serde_json::from_slice::<Job>(input);
    };
    Target { form: Form::Json, seeds, run: Box::new(run) }
}
