//! Names of the experiment files that the repository ships, by folder of `experiments/`. Tests go by these lists, never by what a folder
//! holds: files that a user adds there are the user's. A new experiment is added here.

/// Studies of the embedded world.
pub const SHAPES: [&str; 20] = [
    "ablations",
    "allocation-methods",
    "allocation-vicuna",
    "allocation",
    "chaos",
    "device",
    "distillation",
    "gradual",
    "methods-planted",
    "methods",
    "modalities",
    "official-vs-sound",
    "reconstruction",
    "restoration-all",
    "restoration-vicuna",
    "restoration",
    "smoke",
    "structure",
    "towers",
    "updates",
];

/// Claims of related systems, in the embedded world.
#[allow(dead_code, reason = "the report's tests, which share this file, draw none of them")]
pub const RELATED: [&str; 11] = [
    "less-is-more",
    "llavadi",
    "llave",
    "lora-ggpo",
    "lora-strategies",
    "lorashear",
    "prismatic",
    "raven",
    "self-denoise",
    "sheared-llama",
    "vila",
];

/// Studies of published checkpoints.
#[allow(dead_code, reason = "the report's tests, which share this file, draw no study of published checkpoints")]
pub const PAPER: [&str; 9] = [
    "ablations",
    "allocation-vicuna",
    "allocation",
    "methods-llava",
    "methods-official",
    "methods",
    "restoration-vicuna",
    "restoration",
    "towers",
];

/// Studies on real weights, and the training of their connector.
#[allow(dead_code, reason = "the report's tests, which share this file, draw no study on real weights")]
pub const REAL: [&str; 8] =
    ["allocation", "connector", "methods", "modalities", "reduced", "restoration", "sparsegpt", "towers"];

/// What those extend.
#[allow(dead_code, reason = "the report's tests render no base")]
pub const BASES: [&str; 8] = [
    "official",
    "paper-flant5",
    "paper-llava",
    "paper-vicuna",
    "real-instructblip",
    "shapes",
    "shapes-flant5",
    "shapes-vicuna",
];
