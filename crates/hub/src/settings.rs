//! Where the hub is, where its files go, and as whom we ask.

use std::{path::PathBuf, time::Duration};

/// Address of the public hub.
pub const PUBLIC_HUB: &str = "https://huggingface.co";

/// How to reach the hub. The variables in brackets are those that other clients use for the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Address without a slash at its end \[`HF_ENDPOINT`\].
    pub endpoint: String,
    /// Folder of the cache, which holds `models--OWNER--NAME` folders \[`HF_HUB_CACHE`, `HF_HOME/hub`\].
    pub cache: PathBuf,
    /// Access token for private and gated repositories \[`HF_TOKEN`, file `HF_HOME/token`\].
    pub token: Option<String>,
    /// Whether only the cache is looked at \[`HF_HUB_OFFLINE`\].
    pub offline: bool,
    /// Attempts in a row that may bring nothing before a transfer is given up; at least 1.
    pub attempts: u32,
    /// Pause after the first failed attempt; doubled after each further one, up to half a minute.
    pub pause: Duration,
}

impl Settings {
    /// The public hub with a cache folder, anonymous, online, five attempts.
    pub fn new(cache: PathBuf) -> Self {
        Self {
            endpoint: PUBLIC_HUB.to_owned(),
            cache,
            token: None,
            offline: false,
            attempts: 5,
            pause: Duration::from_secs(1),
        }
    }

    /// Pause after `failures` failed attempts in a row.
    pub(crate) fn pause_after(&self, failures: u32) -> Duration {
        let longest = Duration::from_secs(30).max(self.pause);
        self.pause.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(longest)
    }
}
