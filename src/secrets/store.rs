//! The configuration object in Cloud Storage, opened and sealed with Cloud KMS.
//!
//! What binds a ciphertext to its place is its additional authenticated data, the bytes of `gs://bucket/object`: whoever
//! can write the bucket can put back what was sealed for that object before, but nothing that was sealed for another.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Write as _;

use zeroize::Zeroizing;

use super::contents::Contents;
use crate::config::{self, Access, Sealed};
use crate::google::grant::{Grant, member_of, shell};
use crate::google::http::Http;
use crate::google::kms::{self, Kms};
use crate::google::retry::Budget;
use crate::google::storage::{self, Storage, Upload};
use crate::google::token::{Tokens, UNIVERSE_DOMAIN};
use crate::google::{Error, Kind};
use crate::job::ObjectAddress;

/// The most that a sealed object can have: a plaintext of Cloud KMS's limit, and room for what it adds.
const LARGEST_OBJECT: u64 = 2 * kms::LARGEST_PLAINTEXT as u64;
/// How often an object that is replaced between a look and the download is looked at again.
const LOOKS: u32 = 3;

/// Why a configuration object could not be read or written: whole sentences, without a value.
#[derive(Debug, Clone)]
pub struct StoreError {
    /// What happened, to what, and what to do.
    pub message: String,
    /// Whether it is the configuration that is wrong: the object, its address, its key or what it holds.
    pub is_configuration: bool,
}

impl StoreError {
    fn configuration(message: String) -> Self {
        Self {
            message,
            is_configuration: true,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// One generation of the object, opened.
pub struct Opened {
    /// Which one.
    pub generation: i64,
    /// What was sealed in it.
    pub plaintext: Zeroizing<Vec<u8>>,
}

/// One object and its key.
#[derive(Debug, Clone)]
pub struct Store {
    object: ObjectAddress,
    key: String,
    storage: Storage,
    kms: Kms,
    tokens: Option<Tokens>,
}

impl Store {
    /// The object of a worker's configuration, through clients that are there.
    pub fn new(sealed: &Sealed, storage: Storage, kms: Kms, tokens: Option<Tokens>) -> Self {
        Self {
            object: sealed.object.clone(),
            key: sealed.key.clone(),
            storage,
            kms,
            tokens,
        }
    }

    /// An object and its key, reached with credentials that are found as everywhere.
    ///
    /// # Errors
    /// Without credentials, where some are needed.
    pub async fn connect(object: &ObjectAddress, key: &str, access: &Access) -> Result<Self, StoreError> {
        let http = Http::new().map_err(|error| StoreError {
            message: format!("no HTTP client can be made: {error}"),
            is_configuration: false,
        })?;
        let tokens = Tokens::discover(http.clone(), &access.credentials)
            .await
            .map_err(|error| StoreError {
                message: format!("the credentials cannot be used: {error}"),
                is_configuration: matches!(error.kind, Kind::Invalid | Kind::NotFound),
            })?;
        if tokens.is_none() && (!access.storage_is_emulator || access.kms == kms::BASE_URL) {
            return Err(StoreError::configuration(format!(
                "there are no credentials to read {object} and to use its key: run on Google Cloud with a service \
                 account, set GOOGLE_APPLICATION_CREDENTIALS, or run 'gcloud auth application-default login'"
            )));
        }
        let mut domain = UNIVERSE_DOMAIN.to_owned();
        if let Some(tokens) = &tokens {
            domain = tokens.universe_domain().await.map_err(|error| StoreError {
                message: format!("the universe of the credentials cannot be found: {error}"),
                is_configuration: false,
            })?;
        }
        let storage = config::in_universe(&access.storage, storage::BASE_URL, &domain);
        let kms = config::in_universe(&access.kms, kms::BASE_URL, &domain);
        Ok(Self {
            object: object.clone(),
            key: key.to_owned(),
            storage: Storage::new(http.clone(), &storage, tokens.clone()),
            kms: Kms::new(http, &kms, tokens.clone()),
            tokens,
        })
    }

    /// The object's address.
    pub fn object(&self) -> &ObjectAddress {
        &self.object
    }

    /// The generation that is there now: a look at the metadata, which costs little.
    ///
    /// # Errors
    /// When the object is not there, or cannot be looked at.
    pub async fn generation(&self) -> Result<i64, StoreError> {
        let budget = Budget::default();
        self.look(&budget).await.map(|(generation, _)| generation)
    }

    /// The object that is there now, opened.
    ///
    /// # Errors
    /// When it is not there, cannot be read, or was not sealed for this address with this key.
    pub async fn open(&self) -> Result<Opened, StoreError> {
        let budget = Budget::default();
        let mut looks = LOOKS;
        let (generation, ciphertext) = loop {
            looks -= 1;
            let (generation, size) = self.look(&budget).await?;
            if size > LARGEST_OBJECT {
                return Err(StoreError::configuration(format!(
                    "{} has {size} bytes, more than anything that Cloud KMS seals. {}",
                    self.object,
                    self.seal_it()
                )));
            }
            match self.download(generation, &budget).await {
                // Replaced since the look.
                Err(error) if error.kind == Kind::NotFound && looks > 0 => {}
                Err(error) => {
                    return Err(self
                        .refused(&error, Grant::read_configuration(&self.object.bucket))
                        .await);
                }
                Ok(ciphertext) => break (generation, ciphertext),
            }
        };
        let plaintext = self.decrypt(generation, &ciphertext, &budget).await?;
        Ok(Opened { generation, plaintext })
    }

    /// Seals contents that were checked, and writes them in the place of `generation` (0: where nothing is), or of what
    /// is there now. The generation written.
    ///
    /// # Errors
    /// When something else is there by then, or Google refuses.
    pub async fn seal(&self, plaintext: &[u8], generation: Option<i64>) -> Result<i64, StoreError> {
        let budget = Budget::default();
        let storage = self.storage.within(&budget);
        let (bucket, name) = (&self.object.bucket, &self.object.name);
        let replaced = match generation {
            Some(generation) => generation,
            None => match storage.metadata(bucket, name, None).await {
                Ok(object) => object.generation,
                Err(error) if error.kind == Kind::NotFound => 0,
                Err(error) => return Err(self.refused(&error, Grant::write_configuration(bucket)).await),
            },
        };
        let sealing = self
            .kms
            .within(&budget)
            .encrypt(&self.key, plaintext, &self.bound_to())
            .await;
        let ciphertext = match sealing {
            Ok(ciphertext) => ciphertext,
            Err(error) => return Err(self.refused(&error, Grant::encrypt(&self.key)).await),
        };
        let unwritable = |error: std::io::Error| StoreError {
            message: format!("no temporary file can be written: {error}; see TMPDIR"),
            is_configuration: false,
        };
        let mut file = tempfile::NamedTempFile::new().map_err(unwritable)?;
        file.write_all(&ciphertext).map_err(unwritable)?;
        let crc32c = crc32c::crc32c(&ciphertext);
        let upload = Upload {
            bucket,
            name,
            content_type: "application/octet-stream",
            content_disposition: None,
            metadata: &BTreeMap::new(),
            file: file.path(),
            size: ciphertext.len() as u64,
            crc32c,
            if_generation_match: replaced,
        };
        match storage.upload(&upload).await {
            Ok(object) => Ok(object.generation),
            Err(error) if error.kind == Kind::PreconditionFailed => {
                // A ciphertext is never made twice: if this one is there, it is ours, and only the answer was lost.
                match storage.metadata(bucket, name, None).await {
                    Ok(there) if there.crc32c == Some(crc32c) && there.size == upload.size => Ok(there.generation),
                    Ok(there) => Err(self.changed(replaced, &format!("generation {} is there", there.generation))),
                    Err(_) => Err(self.changed(replaced, "another one was there")),
                }
            }
            Err(error) => Err(self.refused(&error, Grant::write_configuration(bucket)).await),
        }
    }

    fn changed(&self, expected: i64, found: &str) -> StoreError {
        let expected = match expected {
            0 => "no object".to_owned(),
            generation => format!("generation {generation}"),
        };
        StoreError {
            message: format!(
                "{} has been changed: {expected} was to be replaced, and {found}. Nothing was written. See what it \
                 holds now with: platen secrets open --key {} {}",
                self.object,
                self.key,
                shell(&self.object.to_string())
            ),
            is_configuration: false,
        }
    }

    /// Generation and size of what is there now.
    async fn look(&self, budget: &Budget) -> Result<(i64, u64), StoreError> {
        let storage = self.storage.within(budget);
        match storage.metadata(&self.object.bucket, &self.object.name, None).await {
            Ok(object) => Ok((object.generation, object.size)),
            Err(error) if error.kind == Kind::NotFound => Err(StoreError::configuration(format!(
                "{} is not there. {}",
                self.object,
                self.seal_it()
            ))),
            Err(error) => Err(self
                .refused(&error, Grant::read_configuration(&self.object.bucket))
                .await),
        }
    }

    async fn download(&self, generation: i64, budget: &Budget) -> Result<Vec<u8>, Error> {
        let storage = self.storage.within(budget);
        let (bucket, name) = (&self.object.bucket, &self.object.name);
        let mut download = storage.download(bucket, name, generation).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = download.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn decrypt(
        &self,
        generation: i64,
        ciphertext: &[u8],
        budget: &Budget,
    ) -> Result<Zeroizing<Vec<u8>>, StoreError> {
        let place = format!("{}#{generation}", self.object);
        if serde_json::from_slice::<serde::de::IgnoredAny>(ciphertext).is_ok() {
            return Err(StoreError::configuration(format!(
                "{place} is not sealed: it holds its JSON for everybody to read who reads the bucket. {}",
                self.seal_it()
            )));
        }
        let kms = self.kms.within(budget);
        let error = match kms.decrypt(&self.key, ciphertext, &self.bound_to()).await {
            Ok(plaintext) => return Ok(plaintext),
            Err(error) => error,
        };
        if error.status != Some(400) || !error.message.starts_with("Decryption failed") {
            return Err(self.refused(&error, Grant::decrypt(&self.key)).await);
        }
        // The commonest mistake is told apart: sealed by hand, without the address.
        let unbound = kms.decrypt(&self.key, ciphertext, &[]).await.is_ok();
        let why = if unbound {
            "was sealed without its address as additional authenticated data, so that it could stand in any place"
        } else {
            "was not sealed with this key for this address, or has been changed since"
        };
        Err(StoreError::configuration(format!(
            "{place} {why}: {error}. {}",
            self.seal_it()
        )))
    }

    /// The additional authenticated data.
    fn bound_to(&self) -> Vec<u8> {
        self.object.to_string().into_bytes()
    }

    /// The sentence that ends whatever a new sealing mends.
    fn seal_it(&self) -> String {
        format!(
            "This seals it: platen secrets seal --key {} --object {} FILE",
            self.key,
            shell(&self.object.to_string())
        )
    }

    /// What Google has refused, with what gives the right where that is why.
    async fn refused(&self, error: &Error, grant: Grant) -> StoreError {
        StoreError {
            message: match error.kind {
                _ if grant.is_about(error) => format!(
                    "{}. {}",
                    error.to_string().trim_end_matches('.'),
                    grant.named_by(error).remedy(&member_of(self.tokens.as_ref()).await)
                ),
                Kind::NotFound => format!("{error}. See that what it names exists"),
                _ => error.to_string(),
            },
            is_configuration: error.kind == Kind::NotFound,
        }
    }
}

/// Reads what was opened.
///
/// # Errors
/// Every field that is wrong, without a value.
pub fn contents(place: &str, plaintext: &[u8]) -> Result<Contents, StoreError> {
    Contents::parse(plaintext)
        .map_err(|problems| StoreError::configuration(format!("{place} cannot be used: it {}", problems.join("; it "))))
}
