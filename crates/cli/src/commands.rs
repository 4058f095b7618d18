//! One module per command; each takes its arguments and answers with an exit code.

pub mod data;
pub mod doctor;
pub mod explain;
pub mod gc;
pub mod inspect;
pub mod logs;
pub mod plan;
pub mod pretrain;
pub mod report;
pub mod retry;
pub mod schema;
pub mod status;
pub mod sweep;
pub mod verify;
