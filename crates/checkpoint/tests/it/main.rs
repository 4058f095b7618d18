//! Folders as they are met: counted, written again, damaged.

mod containers;
mod counting;
mod exporting;
mod fitting;
mod hostile;
mod leaving;
mod making;
mod recognising;
