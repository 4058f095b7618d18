//! Start pilots of a sweep on an engine that others run: Slurm, Kubernetes, HyperQueue.
//!
//! An engine only ever starts one thing, a pilot ([`Pilot`]): `ressa work`, which joins the sweep of a results folder and is told there what to
//! do. So a job carries no data and no stage, a lost, doubled or late one harms nothing, and an engine needs to know nothing of a sweep.
//! What a site's engine is asked for stands in a [`Profile`]. For Slurm, a [`Fleet`] submits arrays of pilots by resource class, as many as the
//! work left fills, and follows them; for the others, [`indexed_job`] and [`hyperqueue_command`] write down what a user submits.
//!
//! What is pure is apart from what asks: [`sbatch_script`] and [`wanted`] are functions, `slurm` reads answers, and every call of a program
//! goes through [`Commands`](slurm::Commands).

mod backoff;
pub mod doctor;
mod event;
mod exclusion;
mod fleet;
mod hyperqueue;
mod journal;
mod kubernetes;
mod pilot;
mod profile;
mod script;
mod size;
pub mod slurm;
mod submissions;

pub use event::FleetEvent;
pub use fleet::{ClassStatus, Fleet, FleetStatus, Need};
pub use hyperqueue::{shell_line, submit_command as hyperqueue_command};
pub use kubernetes::{MAX_COMPLETIONS, indexed_job, sees_results};
pub use pilot::{GAVE_BACK, Pilot};
pub use profile::{BadNode, Class, DEFAULT_CLASS, Engine, Kubernetes, Memory, Models, Profile, Resources, Signal};
pub use script::sbatch_script;
pub use size::{Array, Work, wanted};
