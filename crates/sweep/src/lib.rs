//! Execute a plan with worker processes, resumably.
//!
//! The coordinator holds no tensors. It turns runs into a graph of distinct stages ([`Graph`]), proves what the store already has
//! ([`take_inventory`]), and hands the rest to `ressa-worker` processes one stage at a time ([`execute`]). Everything that must survive a
//! kill is in the store: published stages, and one record per failed stage. Nothing here prints; callers listen to [`SweepEvent`]s.

pub mod archive;
mod coordinator;
mod curve;
mod devices;
mod error;
mod estimate;
mod event;
mod failures;
mod garbage;
mod gate;
mod graph;
mod inventory;
mod lines;
mod live;
mod lock;
mod made_of;
mod made_on;
mod meet;
mod nearest;
mod outline;
mod pilot;
mod recruit;
mod retries;
mod roots;
mod schedule;
mod slot;
mod stop;
mod verify;
mod wishes;
mod worker;

use inventory::take_inventory;

pub use coordinator::{DEFAULT_IDLE, DEFAULT_LEASE, Options, execute};
pub use devices::{DeviceChoice, DeviceError, Devices, visible_gpus};
pub use error::SweepError;
pub use estimate::{Estimates, detail};
pub use event::{FailedStage, Interruption, RetiredSlot, SkippedStage, Summary, SweepEvent, Totals};
pub use failures::{failures, is_retried};
pub use garbage::{
    Garbage, Trash, dependents, empty_trash, move_to_trash, restore_stage, restore_trash, trash, unreachable,
};
pub use gate::GateCheck;
pub use graph::{Graph, GraphRun, GraphStage, describe, run_label};
pub use inventory::{Damage, Inventory, glance};
pub use lines::read_messages;
pub use live::{FailureStatus, StageStatus, Status, WorkerStatus, live_folder, live_status};
pub use lock::{CoordinatorLock, running_coordinator};
pub use made_on::{MadeOn, made_on};
pub use nearest::{Difference, Nearest, nearest};
pub use outline::{Outline, Progress, RunNames, progress};
pub use pilot::{PilotEnd, PilotOptions, pilot};
pub use recruit::{ClassStanding, ClassWork, Classes, Need, Recruiter, Told};
pub use retries::RetryPolicy;
pub use roots::{SweepRecord, SweepTitle, forget_sweep, record_sweep, recorded_sweeps, recorded_titles};
pub use schedule::{expected_seconds, work_of};
pub use stop::{Stop, Watch};
pub use verify::{Verdict, verify};
pub use wishes::Wish;
pub use worker::WorkerCommand;
