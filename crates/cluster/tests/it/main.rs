//! Profiles, what is made of them, and the conversation with an engine.

mod manifests;
mod places;
mod profiles;
mod programs;
mod scripts;
