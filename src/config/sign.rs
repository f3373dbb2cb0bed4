//! What `platen sign` takes from the environment: no more than it uses, so that it runs beside any worker's settings.

use super::cloud::read_credentials;
use super::{Problems, Reader, Strings, parse};
use crate::google;

/// The settings.
#[derive(Debug, Clone)]
pub struct SignConfig {
    /// `SIGNER_SERVICE_ACCOUNT`: who signs, unless a flag says it.
    pub signer_service_account: Option<String>,
    /// `STORAGE_EMULATOR_HOST`, as a base URL.
    pub storage_emulator: Option<String>,
    /// Where to look for credentials.
    pub credentials: google::token::Settings,
    iam_credentials: Option<String>,
}

impl SignConfig {
    /// Reads and checks them.
    ///
    /// # Errors
    /// All the variables that are wrong.
    pub fn load(strings: &dyn Strings) -> Result<Self, Problems> {
        let mut reader = Reader::new(strings);
        let config = Self::read(&mut reader);
        reader.finish(config)
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let signer_service_account = reader.optional("SIGNER_SERVICE_ACCOUNT", parse::email);
        let storage_emulator = reader.optional("STORAGE_EMULATOR_HOST", parse::emulator_host);
        let iam_credentials = reader.optional("IAM_CREDENTIALS_ENDPOINT", parse::base_url);
        let credentials = read_credentials(reader, iam_credentials.clone().flatten());
        Some(Self {
            signer_service_account: signer_service_account?,
            storage_emulator: storage_emulator?,
            credentials: credentials?,
            iam_credentials: iam_credentials?,
        })
    }

    /// The base URL of IAM Credentials: `IAM_CREDENTIALS_ENDPOINT`, else this universe's.
    pub fn iam_credentials(&self, universe_domain: &str) -> String {
        match &self.iam_credentials {
            Some(base_url) => base_url.clone(),
            None => google::iam::BASE_URL.replace("googleapis.com", universe_domain),
        }
    }
}
