//! The process's environment, read once, at the edge.

use crate::options::{Environment, EnvironmentError};

impl Environment {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`EnvironmentError`] names the variable whose value cannot be used.
    pub fn read() -> Result<Environment, EnvironmentError> {
        Environment::from_lookup(|name| std::env::var_os(name))
    }
}
