//! Folders as they are met: counted, written again, damaged.

mod counting;
mod exporting;
mod fitting;
mod hostile;
mod leaving;
mod making;
mod recognising;
