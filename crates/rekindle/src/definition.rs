//! Definitions.
use crate::session::Tag;
use serde::{Deserialize, Serialize};
/// At the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnMaxSessions {
    /// Reject.
    Reject,
    /// End the oldest.
    EndOldest,
}
/// A definition.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Definition {
    /// Tag.
    pub tag: Tag,
}
impl Definition {
    /// Default.
    pub fn default_for(tag: Tag) -> Self {
        Self { tag }
    }
}
