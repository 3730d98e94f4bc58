//! The tasks of a run, under their names.

use minke_eval::Task;
use serde::{Deserialize, Serialize};

/// A task of a run, under a name of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NamedTask {
    /// The name by which stages and reports speak of it.
    pub name: String,
    /// The task.
    #[serde(flatten)]
    pub task: Task,
}
