//! A repository in miniature: experiments, results, and the two programs.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use ressa_runlog::LogEvent;
use ressa_store::Store;
use tempfile::TempDir;

/// A folder with `experiments/`; `results/` comes with the first command.
pub struct House {
    pub folder: TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Two metrics, with and without restoration, two seeds, two tasks.
pub const SMALL: &str = r#"
extends: ../base/model.yaml
name: small
description: A small grid.
replicate: { seed: 0..1 }
axes:
  prune.metric: [magnitude, wanda]
variants:
  restoration:
    pruned: { restore.method: none }
    ressa: { restore.method: sparse-lora }
"#;

const MODEL: &str = r#"
model: { preset: shapes-flant5 }
prune:
  vision: { sparsity: 0.5 }
  language: { sparsity: 0.5 }
evaluate: { tasks: [vqav2, flickr30k] }
"#;

/// The smallest model that the embedded world's tokenizer fits.
const CHECKPOINT: &str = r#"{
  "model_type": "instructblip", "architectures": ["InstructBlipForConditionalGeneration"], "num_query_tokens": 2,
  "vision_config": {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
      "image_size": 48, "patch_size": 48},
  "qformer_config": {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1,
      "vocab_size": 128, "max_position_embeddings": 8},
  "text_config": {"model_type": "t5", "d_model": 4, "d_kv": 4, "d_ff": 4, "num_heads": 1, "num_layers": 1,
      "vocab_size": 128, "feed_forward_proj": "gated-gelu"}
}"#;

impl House {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let house = Self { folder };
        house.write("experiments/base/model.yaml", MODEL);
        house.write("experiments/shapes/small.yaml", SMALL);
        house
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.trim_start()).unwrap();
    }

    /// Tells the fake worker what to do from now on.
    pub fn instruct(&self, instructions: serde_json::Value) {
        self.write("results/fake.json", &instructions.to_string());
    }

    /// The program with arguments, in the house.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).current_dir(self.folder.path());
        let subcommand = arguments.first().copied().unwrap_or_default();
        if ["sweep", "verify", "doctor", "pretrain"].contains(&subcommand) {
            command.args(["--device", "cpu", "--slots", "2", "--worker"]).arg(fake_worker());
        }
        command
    }

    /// The program with arguments and nothing else, in the house.
    pub fn plain(&self, arguments: &[&str]) -> Command {
        let mut command = program();
        command.args(arguments).current_dir(self.folder.path());
        command
    }

    /// Runs the program to its end. The house's own path is written as `HOUSE`.
    pub fn ressa(&self, arguments: &[&str]) -> Ended {
        let output = self.command(arguments).stdin(Stdio::null()).output().unwrap();
        let house = self.folder.path().canonicalize().unwrap().display().to_string();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(&house, "HOUSE");
        Ended { code: output.status.code().unwrap_or(-1), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Starts the program and leaves it running.
    pub fn start(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Keys in the order of publication.
    pub fn published(&self) -> Vec<String> {
        let (entries, _) = ressa_runlog::history(&Store::reading(self.path("results/store"), Vec::new())).unwrap();
        let key = |event| match event {
            // One that was published by a coordinator that died before it could write it down is found by the next.
            LogEvent::Published { key, .. } | LogEvent::Found { key, .. } => Some(key.to_string()),
            _ => None,
        };
        entries.into_iter().filter_map(|entry| key(entry.event)).collect()
    }

    /// Keys of the stages in the store.
    pub fn stored(&self) -> BTreeSet<String> {
        let folders = |folder: &Path| fs::read_dir(folder).into_iter().flatten().map(|item| item.unwrap().path());
        let shards: Vec<PathBuf> = folders(&self.path("results/store")).collect();
        let entries =
            shards.iter().flat_map(|shard| folders(shard)).filter(|entry| entry.join("manifest.json").is_file());
        entries.map(|entry| entry.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    /// A checkpoint folder as far as programs without tensors look into it; every weight has this value.
    pub fn write_checkpoint(&self, folder: &str, value: f32) {
        let path = self.path(folder);
        ressa_data::write_processor_files(&path, ressa_data::Family::T5, 2).unwrap();
        self.write(&format!("{folder}/config.json"), CHECKPOINT);
        let config = ressa_checkpoint::read_config(&path).unwrap();
        let outline = ressa_checkpoint::Outline::of(&config).unwrap();
        let filled = |(name, shape): (&String, &Vec<usize>)| {
            let values = vec![value; shape.iter().product()];
            (name.clone(), ressa_checkpoint::Written::floats(shape.clone(), &values))
        };
        let tensors: Vec<_> = outline.linears.iter().chain(&outline.others).map(filled).collect();
        let named = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor));
        ressa_checkpoint::write(&path.join("model.safetensors"), named, ("format", "pt")).unwrap();
    }

    /// Waits until at least `many` stages are published.
    pub fn wait_for(&self, many: usize) {
        while self.published().len() < many {
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

/// The program without the environment of whoever runs the tests: no token, proxy, cache, colour or device of theirs is seen.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ressa"));
    command.env_clear();
    for name in ["PATH", "TMPDIR", "LD_LIBRARY_PATH", "LLVM_PROFILE_FILE"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}

/// The worker without tensors.
pub fn fake_worker() -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_ressa")).with_file_name("examples").join("fake-worker-of-cli");
    assert!(program.is_file(), "`{}` is not built", program.display());
    program
}
