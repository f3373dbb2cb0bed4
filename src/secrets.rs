//! Passwords by name: what `"password": {"secret": "name"}` in a job stands for.
//!
//! The values come from the sealed configuration; jobs, results and logs know names only.

use std::collections::HashMap;
use std::fmt;

use crate::google::secret::Secret;

/// The named passwords that are loaded now. Looked up at each conversion, never kept by a job: what is loaded may be
/// replaced at any time.
#[derive(Clone, Default)]
pub struct Secrets {
    passwords: HashMap<String, Vec<Secret>>,
}

impl Secrets {
    /// Without any: no configuration object is set.
    pub fn none() -> Self {
        Self::default()
    }

    /// These passwords by name; each name may have several, in the order in which they are tried.
    pub fn of_passwords(passwords: HashMap<String, Vec<Secret>>) -> Self {
        Self { passwords }
    }

    /// The passwords of a name in the order in which they are tried; `None` for a name that is not loaded.
    pub fn passwords(&self, name: &str) -> Option<Vec<Secret>> {
        self.passwords.get(name).cloned()
    }

    /// Looks at the stored configuration again, because what is loaded does not work: a name that it does not have, a
    /// password that opens nothing. Whether it holds something else now.
    ///
    /// # Errors
    /// A sentence for the log: it could not be looked at, and what is loaded may be old.
    pub async fn reload(&self) -> Result<bool, String> {
        // Without a configuration object there is nothing to load.
        Ok(false)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} names)", self.passwords.len())
    }
}
