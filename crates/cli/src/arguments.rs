//! The command line.

pub mod folder;
pub mod kernels;
pub mod loading;
pub mod model;
pub mod prune;
pub mod results;
pub mod score;
pub mod selection;
pub mod show;
pub mod size;

use std::path::PathBuf;

use clap::{
    Args, Parser, Subcommand, ValueEnum,
    builder::{PathBufValueParser, TypedValueParser},
};
use ressa_experiment::{Pattern, Tower, path::unexpanded};
use ressa_sweep::DeviceChoice;

use crate::reuse::Reuse;
pub use selection::{Filters, Selection};

/// A path; one that only a shell would expand is refused rather than taken for a folder of that name, unless there is one.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| {
        let part = path.to_str().and_then(unexpanded).filter(|_| !path.exists());
        match part {
            Some(part) => Err(format!(
                "`{part}` is not expanded here: write the path out, or leave it to the shell (`--name ~/folder`)"
            )),
            None => Ok(path),
        }
    })
}

/// Experiments on sparse vision-language models: one YAML file in, tables and figures out.
#[derive(Debug, Parser)]
#[command(name = "ressa", version, disable_help_subcommand = true, after_help = EXIT_CODES)]
pub struct Arguments {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What is to be done.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes:
  0 done               1 no worker, no network, or a defect              2 bad command line
  4 nothing selected   65 unusable folder, image or file                 66 model or benchmark missing
  75 other sweep runs  78 bad experiment        100 some failed          102 dense gate not reached
  104 not verified     106 report incomplete    108 diff: they differ    110 cannot write
  130, 143 interrupted, run again to resume";

/// Options of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// Results folder [default: `results` beside `experiments`]
    #[arg(long, global = true, value_name = "DIR", value_parser = path())]
    pub results: Option<PathBuf>,
    /// Experiments folder [default: looked for upwards from here]
    #[arg(long, global = true, value_name = "DIR", value_parser = path())]
    pub experiments: Option<PathBuf>,
    /// The worker program [default: `ressa-worker` beside this one]
    #[arg(long, global = true, value_name = "FILE", value_parser = path())]
    pub worker: Option<PathBuf>,
    /// Answer with one JSON value on standard output; why something cannot be done is one on standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Say less
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more
    #[arg(short, long, global = true)]
    pub verbose: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show what a sweep would do: runs, distinct stages, what is cached, how long the rest takes here or on a card
    Plan(PlanOptions),
    /// Make what is missing, then render the report; run again to resume
    Sweep(SweepOptions),
    /// Show how far experiments are, and what failed
    Status(StatusOptions),
    /// Show a run: every setting with its file and line, stages, scores, certificate, predictions
    Show(show::ShowOptions),
    /// Compare two runs, results folders or reports; exit code 0 where nothing differs, 108 where something does
    Diff(show::DiffOptions),
    /// Say why a run or stage is cached or not
    Explain(ExplainOptions),
    /// Render tables and figures from what is in the store
    Report(ReportOptions),
    /// Bring a checkpoint from the hub into its cache, and print its folder
    Fetch(FetchOptions),
    /// Draw a contact sheet of the embedded world
    Data(DataOptions),
    /// Train the shipped dense models again and put them where every store finds them
    Pretrain(PretrainOptions),
    /// Prove stored results or a model folder: digests, and certificates recounted on the weights
    Verify(VerifyOptions),
    /// Write a run, or a folder, as a model folder that other programs open
    Export(folder::ExportOptions),
    /// Show what a model folder holds: towers, parameters, types, sparsity
    Inspect(folder::InspectOptions),
    /// Write part of the results into one archive, or take one in
    #[command(subcommand)]
    Results(results::Results),
    /// Forget recorded failures, so that the sweep that runs, or else the next one, tries those stages again
    Retry(RetryOptions),
    /// Show what a stage or run logged, running or not; without a name, list what failed
    Logs(LogsOptions),
    /// Work for the sweep that runs on a results folder, on this machine: started here or by a cluster's engine
    Work(WorkOptions),
    /// List stored stages that no experiment file and no recorded sweep asks for, and what is quarantined or came too late; with --delete, move them to the trash
    Gc(GcOptions),
    /// Print the JSON Schema of experiment files
    Schema,
    /// Answer prompts about images with a model folder
    Generate(model::GenerateOptions),
    /// Prune a model folder block by block, in bounded memory; run again to resume
    Prune(prune::PruneOptions),
    /// Score stored predictions again, also with METEOR's and SPICE's own programs
    Score(score::ScoreOptions),
    /// Single steps for comparison with other implementations
    #[command(subcommand)]
    Lab(model::Lab),
    /// Time dense and sparse products for the shapes of a model: 2:4 kernels on a GPU, compressed rows on a CPU
    BenchKernels(kernels::BenchKernelsOptions),
    /// Look for what keeps a sweep from running on this machine
    Doctor(DoctorOptions),
    /// Print completions for a shell
    Completions(results::CompletionsOptions),
    /// Print the manual page, or write one for each command
    Man(results::ManOptions),
}

/// Options of `plan`.
#[derive(Args, Debug)]
pub struct PlanOptions {
    #[command(flatten)]
    pub selection: Selection,
    /// Predict memory and time on cards of `experiments/devices.yaml`, such as `h100` or `h100,rtx-4090`. Checkpoints need not be there, only known by
    /// their `config.json` or by the published name of their folder
    #[arg(long, value_name = "CARD", value_delimiter = ',', value_parser = card)]
    pub device: Vec<String>,
    /// Host cores of a worker on that card
    #[arg(long, value_name = "N", default_value_t = 16, requires = "device", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub cores: u32,
    /// Predict with TF32, as `sweep --tf32`
    #[arg(long, requires = "device")]
    pub tf32: bool,
}

fn card(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a card's name is missing; write one such as `h100`, or several with one comma between two of them"
            .to_owned()),
        name => Ok(name.to_owned()),
    }
}

/// What the machine gives.
#[derive(Args, Clone, Debug)]
pub struct MachineOptions {
    /// `auto`, `cpu`, `cuda:N`, or a list such as `cuda:0,cuda:2`
    #[arg(long, default_value = "auto", value_delimiter = ',', value_parser = |text: &str| text.parse::<DeviceChoice>())]
    pub device: Vec<DeviceChoice>,
    /// Number of workers of this machine, 0 to leave all work to others that join [default: --workers-per-gpu on each GPU; on a CPU cores divided by
    /// --threads, as far as memory holds their models]
    #[arg(long, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub slots: Option<u16>,
    /// Workers that share a GPU [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers_per_gpu: Option<u16>,
    /// Threads of a worker: of one tensor operation, and of decoding images [default: 1 on a CPU; on a GPU the cores divided by its workers]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Let a GPU round the factors of float32 products to TF32: faster, with 10 bits of mantissa. Recorded with every result
    #[arg(long)]
    pub tf32: bool,
    /// Train with deterministic algorithms: slower on a GPU, where trainings otherwise repeat, and resume, up to rounding only. On a CPU they always
    /// repeat to the bit
    #[arg(long)]
    pub deterministic: bool,
    #[command(flatten)]
    pub loading: loading::LoadingOptions,
}

impl Default for MachineOptions {
    /// As if nothing was said.
    fn default() -> Self {
        Self {
            device: vec![DeviceChoice::Auto],
            slots: None,
            workers_per_gpu: None,
            threads: None,
            tf32: false,
            deterministic: false,
            loading: loading::LoadingOptions::default(),
        }
    }
}

/// Options of `sweep`.
#[derive(Args, Debug)]
pub struct SweepOptions {
    #[command(flatten)]
    pub selection: Selection,
    #[command(flatten)]
    pub machine: MachineOptions,
    /// Have workers started on a cluster: a profile's name (`slurm`, `kubernetes`, `hyperqueue`, or what you add to `profiles/`) or file. This machine
    /// then runs no worker itself unless --slots says so
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// With --profile: print what would be given to the cluster's engine, and do nothing
    #[arg(long, requires = "profile")]
    pub dry_run: bool,
    /// Do not check dense models against their declared scores
    #[arg(long)]
    pub no_gate: bool,
    /// Stop starting stages after this many failed in this sweep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_failures: Option<u32>,
    /// Time limit of a stage
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub timeout: Option<u64>,
    /// Time without a sign of life after which a worker of another machine counts as gone
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    pub lease: u64,
    /// Try a failed stage again up to N times within this sweep: killed workers after 1 s and longer, a full disk after 30 s and longer, memory, time
    /// limits and unreadable files once, defects and diverged trainings never
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=1000))]
    pub retries: u32,
    /// Make stages again that are in the store: the beginning of a key, a kind such as `adapt`, or an expression such as `task = gqa and seed = 0`. Their
    /// outputs go to the trash (`ressa gc --restore`). What was made of them stays where the new bytes are the old ones, and is made again where they
    /// differ; what is outside this selection then stays in the trash until its own sweep
    #[arg(long, value_name = "KEY|KIND|EXPR")]
    pub force: Vec<String>,
    /// With --force: make again all that was made of them, whatever their bytes
    #[arg(long, requires = "force")]
    pub dependents: bool,
    /// Do not render the report afterwards
    #[arg(long)]
    pub no_report: bool,
    /// Which cached results are taken: of any libtorch and kind of device, or only of this one
    #[arg(long, value_enum, default_value_t)]
    pub reuse: Reuse,
}

/// Options of `explain`.
#[derive(Args, Debug)]
pub struct ExplainOptions {
    /// Run or stage: first digits of its key, or words of a run's label; left out where -E chooses
    #[arg(value_name = "RUN|KEY", required_unless_present = "filter")]
    pub which: Option<String>,
    #[command(flatten)]
    pub selection: Selection,
}

/// Options of `report`.
#[derive(Args, Debug)]
pub struct ReportOptions {
    #[command(flatten)]
    pub selection: Selection,
    /// Exit with 106 when results are missing
    #[arg(long)]
    pub strict: bool,
}

/// Options of `fetch`.
#[derive(Args, Clone, Debug)]
pub struct FetchOptions {
    /// Repository on the hub, such as `Salesforce/instructblip-flan-t5-xl`; HF_ENDPOINT, HF_HOME, HF_HUB_CACHE,
    /// HF_TOKEN and HF_HUB_OFFLINE are heeded
    #[arg(value_name = "OWNER/NAME")]
    pub repo: String,
    /// Branch, tag, `refs/pr/N` or commit [default: main]
    #[arg(long)]
    pub revision: Option<String>,
    /// Only list the files and their sizes
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `data`.
#[derive(Args, Debug)]
pub struct DataOptions {
    /// Seed of the world
    #[arg(long, default_value_t = 1234)]
    pub seed: u64,
    /// Images on the sheet, at most 400; with --write, training images [default: 12; with --write 6000]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub images: Option<u32>,
    /// Write training images with questions and captions below this folder instead, as the corpus `shapes` of `data.root`
    #[arg(long, value_name = "DIR", conflicts_with = "output", value_parser = path())]
    pub write: Option<PathBuf>,
    /// PNG file [default: `contact-sheet.png` in the results folder]
    #[arg(long, value_name = "FILE", value_parser = path())]
    pub output: Option<PathBuf>,
}

/// Options of `pretrain`.
#[derive(Args, Debug)]
pub struct PretrainOptions {
    /// Preset [default: both]
    pub preset: Option<PresetName>,
    #[command(flatten)]
    pub machine: MachineOptions,
    /// Ship a model that does not reach its gate all the same
    #[arg(long)]
    pub no_gate: bool,
}

/// Presets on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PresetName {
    /// InstructBLIP with a T5 encoder-decoder.
    #[value(name = "shapes-flant5")]
    ShapesFlanT5,
    /// InstructBLIP with a LLaMA decoder.
    #[value(name = "shapes-vicuna")]
    ShapesVicuna,
}

/// Options of `verify`.
#[derive(Args, Debug)]
pub struct VerifyOptions {
    /// Runs or stages: first digits of their keys, or words of a run's label; or model folders, whoever wrote them; with --all or -E, experiment
    /// files and overrides
    #[arg(value_name = "RUN|KEY|DIR|FILE", required_unless_present_any = ["all", "filter"])]
    pub which: Vec<String>,
    /// Of a folder: the N:M pattern that its prunable linears follow, such as 2:4
    #[arg(long, value_name = "N:M", value_parser = n_of_m)]
    pub pattern: Option<Pattern>,
    /// Of a folder: the share of zeros that its towers have at least
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub sparsity: Option<f64>,
    /// Of a folder: towers that --pattern and --sparsity speak of [default: all]
    #[arg(long = "tower", value_name = "TOWER", value_parser = tower)]
    pub towers: Vec<Tower>,
    /// Every stored stage of the experiments, or with -E of what it selects: digests of all files, certificates recounted on the weights, scores
    /// computed again from the stored predictions
    #[arg(long)]
    pub all: bool,
    /// Experiments in which runs are looked for [default: the default study]
    #[arg(long = "file", value_name = "FILE|KEY=VALUE", help_heading = selection::HEADING)]
    pub files: Vec<String>,
    #[command(flatten)]
    pub filters: Filters,
    #[command(flatten)]
    pub machine: MachineOptions,
}

fn n_of_m(text: &str) -> Result<Pattern, String> {
    match text.parse() {
        Ok(pattern @ Pattern::NOfM { .. }) => Ok(pattern),
        Ok(Pattern::Unstructured) => Err("a claim is N:M; what is unstructured has a --sparsity".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is not between 0 and 1"))
}

fn tower(text: &str) -> Result<Tower, String> {
    Tower::named(text).ok_or_else(|| format!("`{text}` is not one of {}", Tower::ALL.map(Tower::name).join(", ")))
}

/// Options of `retry`.
#[derive(Args, Debug)]
pub struct RetryOptions {
    /// Stages: first digits of their keys [default: all that failed]
    #[arg(value_name = "KEY")]
    pub keys: Vec<String>,
    /// Only what ran out of memory
    #[arg(long)]
    pub oom: bool,
    /// Experiments that -E looks at [default: the default study]
    #[arg(long = "file", value_name = "FILE|KEY=VALUE", requires = "filter", help_heading = selection::HEADING)]
    pub files: Vec<String>,
    #[command(flatten)]
    pub filters: Filters,
}

/// Options of `logs`.
#[derive(Args, Debug)]
pub struct LogsOptions {
    /// Stage: first digits of its key. Run: first digits of its identity, or words of its label
    #[arg(value_name = "KEY|RUN")]
    pub which: Option<String>,
    /// Go on showing what is logged while the stage runs
    #[arg(short, long)]
    pub follow: bool,
}

/// Options of `status`.
#[derive(Args, Debug)]
#[command(mut_arg("what", |what| what.help(STATUS_WHAT)))]
pub struct StatusOptions {
    #[command(flatten)]
    pub selection: Selection,
    /// Show the running sweep until it ends: stages with worker, machine, progress and expected end
    #[arg(short, long)]
    pub watch: bool,
}

const STATUS_WHAT: &str = "Experiment files (or names in experiments/shapes), and overrides as `sweep` takes them; without a file: every experiment \
    that was swept in this results folder, or the default study where none was";

/// Options of `work`.
#[derive(Args, Debug)]
pub struct WorkOptions {
    /// `auto`, `cpu`, `cuda:N`, or a list of them
    #[arg(long, default_value = "auto", value_delimiter = ',', value_parser = |text: &str| text.parse::<DeviceChoice>())]
    pub device: Vec<DeviceChoice>,
    /// Number of workers [default: --workers-per-gpu on each GPU; on a CPU cores divided by --threads]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub slots: Option<u16>,
    /// Workers that share a GPU [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers_per_gpu: Option<u16>,
    /// Threads of a worker [default: 1 on a CPU; on a GPU the cores divided by its workers]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// Seconds until this process will be ended [default: the job's end, where Slurm says it]
    #[arg(long, value_name = "SECONDS")]
    pub time_limit: Option<u64>,
    /// Seconds before that at which no work is taken any more and trainings are saved
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub grace: u64,
    /// Seconds to wait for a sweep where none runs yet
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub wait: u64,
    /// A name that no other worker of the sweep has [default: made of the job's or the machine's]
    #[arg(long)]
    pub name: Option<String>,
    /// Class of a cluster's profile that it was started for: it is given the stages of that class only
    #[arg(long, value_name = "NAME")]
    pub class: Option<String>,
}

/// Options of `doctor`.
#[derive(Args, Debug)]
pub struct DoctorOptions {
    #[command(flatten)]
    pub machine: MachineOptions,
    /// Look at a cluster, too: what its profile asks for against what the site has, and the results folder
    #[arg(long, value_name = "NAME|FILE")]
    pub profile: Option<String>,
    /// With --profile: run a small job of each class and wait so long for its answer
    #[arg(long, value_name = "SECONDS", requires = "profile", value_parser = clap::value_parser!(u64).range(1..))]
    pub try_job: Option<u64>,
}

/// Options of `gc`.
#[derive(Args, Debug)]
pub struct GcOptions {
    /// Move them to the trash; without this nothing is changed
    #[arg(long)]
    pub delete: bool,
    /// Delete what is in the trash for good
    #[arg(long, conflicts_with_all = ["delete", "restore", "cache"])]
    pub empty: bool,
    /// Bring back what is in the trash
    #[arg(long, conflicts_with_all = ["delete", "cache"])]
    pub restore: bool,
    /// List recorded sweeps, whose stages are kept whatever became of their experiment files
    #[arg(long, conflicts_with_all = ["delete", "empty", "restore", "cache"])]
    pub sweeps: bool,
    /// Give up recorded sweeps: by the first digits of their id, by experiment file or name, or `superseded` for those whose files were
    /// swept again with the same overrides
    #[arg(long, value_name = "SWEEP", num_args = 1.., conflicts_with_all = ["empty", "restore", "sweeps", "cache"])]
    pub forget: Vec<String>,
    /// Look at the cache of pixels and features instead of the store
    #[arg(long)]
    pub cache: bool,
}
