//! What the program does per block, layer and step: every constant of the cost model, in one place.
//!
//! Counted from the sources and fitted to runs of the program on a device that counts operations, bytes and memory but computes nothing. A change to
//! how a block runs, how weights are handed to a training or what stays resident changes the numbers here and nothing else.

use crate::model::BlockKind;

/// Operations and memory of one block. Units of elements are "widths" (tokens x width of the residual stream) and "inners" (tokens x width of
/// the feed-forward layer), in the type of the computation, beside what the matrix products themselves read and write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockCost {
    /// Operations issued by the forward pass.
    pub forward_launches: f64,
    /// Operations issued by the backward pass.
    pub backward_launches: f64,
    /// Widths moved by the forward pass outside matrix products.
    pub forward_widths: f64,
    /// Inners moved by the forward pass outside matrix products.
    pub forward_inners: f64,
    /// The same for the backward pass.
    pub backward_widths: f64,
    /// The same for the backward pass.
    pub backward_inners: f64,
    /// Widths kept for the backward pass.
    pub kept_widths: f64,
    /// Inners kept for the backward pass.
    pub kept_inners: f64,
    /// Bytes of each attention weight that is written out, kept for the backward pass; 0 where attention is one kernel.
    pub kept_map_bytes: f64,
}

/// The cost of a kind of block.
pub(crate) fn block_cost(kind: BlockKind) -> BlockCost {
    match kind {
        // Layer norms, fused attention, GELU; the backward of the split into q, k and v fills three tensors and adds them.
        BlockKind::Vision => BlockCost {
            forward_launches: 13.0,
            backward_launches: 24.0,
            forward_widths: 10.0,
            forward_inners: 2.0,
            backward_widths: 45.0,
            backward_inners: 3.0,
            kept_widths: 9.0,
            kept_inners: 2.0,
            kept_map_bytes: 0.0,
        },
        BlockKind::Qformer => BlockCost {
            forward_launches: 30.0,
            backward_launches: 58.0,
            forward_widths: 40.0,
            forward_inners: 2.0,
            backward_widths: 80.0,
            backward_inners: 3.0,
            kept_widths: 16.0,
            kept_inners: 2.0,
            kept_map_bytes: 8.0,
        },
        // Root mean squares in f32 and tanh-GELU written out, as the reference rounds them.
        BlockKind::T5Encoder => BlockCost {
            forward_launches: 45.0,
            backward_launches: 70.0,
            forward_widths: 50.0,
            forward_inners: 21.0,
            backward_widths: 100.0,
            backward_inners: 42.0,
            kept_widths: 18.0,
            kept_inners: 8.0,
            kept_map_bytes: 8.0,
        },
        BlockKind::T5Decoder => BlockCost {
            forward_launches: 75.0,
            backward_launches: 115.0,
            forward_widths: 85.0,
            forward_inners: 21.0,
            backward_widths: 170.0,
            backward_inners: 42.0,
            kept_widths: 30.0,
            kept_inners: 8.0,
            kept_map_bytes: 8.0,
        },
        BlockKind::Llama => BlockCost {
            forward_launches: 45.0,
            backward_launches: 90.0,
            forward_widths: 60.0,
            forward_inners: 5.0,
            backward_widths: 120.0,
            backward_inners: 8.0,
            kept_widths: 34.0,
            kept_inners: 5.0,
            kept_map_bytes: 0.0,
        },
        BlockKind::Opt => BlockCost {
            forward_launches: 22.0,
            backward_launches: 46.0,
            forward_widths: 14.0,
            forward_inners: 2.0,
            backward_widths: 30.0,
            backward_inners: 3.0,
            kept_widths: 10.0,
            kept_inners: 2.0,
            kept_map_bytes: 0.0,
        },
    }
}

/// Training.
pub(crate) mod training {
    /// Operations per adapted layer and step: the effective weight, its backward pass, gradients gathered for the optimiser.
    pub const LAYER_LAUNCHES: f64 = 3.0;
    /// Operations per adapted layer and step that open its mask and apply it, forwards and backwards.
    pub const MASK_LAUNCHES: f64 = 2.0;
    /// Bytes moved per adapted weight and step to form the effective weight and to take its gradient apart.
    pub const WEIGHT_BYTES: f64 = 8.0;
    /// The same to open a mask and to apply it, forwards and backwards.
    pub const MASK_BYTES: f64 = 16.0;
    /// Bytes of an opened mask per weight, kept for the backward pass.
    pub const OPEN_MASK_BYTES: f64 = 1.0;
    /// Operations of losses, clipping and the optimiser, once a step.
    pub const STEP_LAUNCHES: f64 = 120.0;
    /// Times that the host waits for the device in a step.
    pub const STEP_SYNCS: f64 = 1.0;
    /// Bytes held for each logit of the answers: student and teacher, their logarithms in f32, gradients.
    pub const LOGIT_BYTES: f64 = 34.0;
    /// Bytes moved for each logit.
    pub const LOGIT_TRAFFIC: f64 = 120.0;
    /// Bytes held for each probability of compared attention that is formed at once: of teacher and student, and gradients.
    pub const MAP_BYTES: f64 = 32.0;
    /// Bytes moved for each.
    pub const MAP_TRAFFIC: f64 = 80.0;
    /// Operations of a compared block.
    pub const MAP_LAUNCHES: f64 = 60.0;
    /// Bytes of an adapter's parameter with gradient and AdamW's two moments, in f32.
    pub const PARAMETER_BYTES: f64 = 16.0;
    /// Bytes moved per weight to draw its noise and to add it.
    pub const NOISE_BYTES: f64 = 760.0;
    /// Operations of a layer for that.
    pub const NOISE_LAUNCHES: f64 = 260.0;
    /// Seconds between two checkpoints, and the seconds that one takes, as a share of the training.
    pub const CHECKPOINT_SHARE: f64 = 0.01;
}

/// Pruning and measuring.
pub(crate) mod pruning {
    /// Maximum number of samples of one shape that run together in a calibration pass.
    pub const ROWS: f64 = 32.0;
    /// Shapes (lengths of instruction and answer) that the texts of a calibration have.
    pub const SHAPES: f64 = 12.0;
    /// Operations per layer with statistics and sample: squares, sums, counts.
    pub const NORM_LAUNCHES: f64 = 6.0;
    /// The same where a Gram matrix is added to.
    pub const GRAM_LAUNCHES: f64 = 9.0;
    /// Bytes moved per weight to rank it and to choose.
    pub const CHOICE_BYTES: f64 = 30.0;
    /// Operations to rank and choose in a layer, to mask it and to certify it.
    pub const CHOICE_LAUNCHES: f64 = 60.0;
    /// Operations of SparseGPT per column.
    pub const COLUMN_LAUNCHES: f64 = 8.0;
    /// Iterations after which the masks of ALPS stand still.
    pub const ALTERNATIONS: f64 = 60.0;
    /// Operations of DSnoT per swap of all rows.
    pub const SWAP_LAUNCHES: f64 = 25.0;
    /// Copies of the largest Gram matrix that a factorisation holds, in f32.
    pub const GRAM_COPIES: f64 = 4.0;
    /// Bytes held per weight of a block while it is ranked: importances and indices.
    pub const RANKED_BYTES: f64 = 16.0;
    /// Bytes of gradients that a first-order measurement holds at once.
    pub const GRADIENT_WINDOW: f64 = 1_073_741_824.0;
}

/// Evaluation.
pub(crate) mod evaluation {
    /// Of the bytes that blocks move in a training, the share that they move when a prompt is read: norms and activations are single kernels.
    pub const READ_SHARE: f64 = 0.5;
    /// Operations of one step of the search beside the decoder: logits, penalties, beams.
    pub const SEARCH_LAUNCHES: f64 = 65.0;
    /// Operations of a block that writes one token of each beam; with cross-attention three more.
    pub const STEP_LAUNCHES: f64 = 20.0;
    /// Widths that such a block moves outside matrix products and the keys and values that it reads.
    pub const STEP_WIDTHS: f64 = 30.0;
    /// The same for inners.
    pub const STEP_INNERS: f64 = 8.0;
    /// Waits for the device in a step of the search.
    pub const SEARCH_SYNCS: f64 = 2.0;
}

/// Lengths and numbers of texts before any is read.
pub(crate) mod texts {
    /// Tokens of an instruction that asks for a caption.
    pub const INSTRUCTION: f64 = 9.0;
    /// Tokens of a question in its prompt.
    pub const QUESTION: f64 = 14.0;
    /// Tokens of a caption with its end.
    pub const CAPTION: f64 = 13.0;
    /// Tokens of an answer with its end.
    pub const ANSWER: f64 = 3.0;
    /// Steps until all rows of a batch have ended, as a multiple of the mean length.
    pub const LONGEST: f64 = 2.0;
    /// Width of what a contrastive head makes of a text.
    pub const EMBEDDING: f64 = 256.0;
    /// Captions of an image in a retrieval benchmark.
    pub const CAPTIONS_PER_IMAGE: f64 = 5.0;
}

/// The host.
pub(crate) mod host {
    /// Core seconds to read a photograph, decode it and resize it to 224 x 224.
    pub const IMAGE_SECONDS: f64 = 0.011;
    /// Core seconds to tokenise a text for both of its readers, on all cores.
    pub const TEXT_SECONDS: f64 = 6e-5;
    /// Seconds to decode an answer, to score it and to write it down.
    pub const SCORE_SECONDS: f64 = 3e-5;
    /// Bytes a second that a folder of weights is read with.
    pub const DISK_BYTES: f64 = 2e9;
    /// Seconds until a worker is ready: libtorch and the device.
    pub const WORKER_SECONDS: f64 = 5.0;
    /// Seconds of a wait for the device beside what it waits for.
    pub const SYNC_SECONDS: f64 = 20e-6;
}

/// Memory that is not the program's: the CUDA context, the workspaces of its libraries, and what the allocator loses to fragments.
pub(crate) mod device {
    /// Context and workspaces.
    pub const CONTEXT_BYTES: f64 = 0.9e9;
    /// Share of the program's memory that is lost to fragments.
    pub const FRAGMENTS: f64 = 0.03;
}
