//! What Slurm's commands are asked, and what their answers mean.
//!
//! Four commands are used: `sbatch`, `squeue` with explicit fields, `scontrol` and `scancel`; `doctor` also asks `sinfo`. `sacct` is not
//! needed: accounting may be off, and comes late.

mod answers;
mod call;
mod refusal;
mod state;

pub use answers::{ListedNode, ListedTask, Settings, listed_nodes, listed_tasks, record, submitted_job};
pub(crate) use answers::{NODE_FIELDS, TASK_FIELDS, read_gres};
pub use call::{Answer, Call, CallError, Commands, Programs};
pub use refusal::{Refusal, RefusalKind, refusal};
pub use state::{End, TaskState, advice};
