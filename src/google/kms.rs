//! Cloud KMS: encrypting and decrypting a few bytes with a symmetric key, bound to additional authenticated data.
//!
//! Every field of bytes travels with its CRC32C, both ways (cloud.google.com/kms/docs/data-integrity-guidelines): KMS
//! refuses what it received damaged, and what we received damaged is thrown away and asked for again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::api::{Api, authorized};
use super::http::{self, Http};
use super::retry::{Budget, Idempotency};
use super::secret::Secret;
use super::token::Tokens;
use super::{Error, Kind, encode};

/// Google's own base URL.
pub const BASE_URL: &str = "https://cloudkms.googleapis.com";

/// The most that one call encrypts, in bytes; a key in an HSM takes 8 KiB, additional data included.
/// Source: cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys/encrypt.
pub const LARGEST_PLAINTEXT: usize = 64 * 1024;

const ENCRYPT: &str = "cloudkms.cryptoKeyVersions.useToEncrypt";
const DECRYPT: &str = "cloudkms.cryptoKeyVersions.useToDecrypt";
/// How often an answer that arrived damaged is asked for: Google recommends a limited number of retries.
const ATTEMPTS: u32 = 3;

/// The API, with credentials.
#[derive(Debug, Clone)]
pub struct Kms(Api);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Encrypted {
    ciphertext: String,
    ciphertext_crc32c: Option<Checksum>,
    // A field that is false is left out of Google's JSON.
    #[serde(default)]
    verified_plaintext_crc32c: bool,
    #[serde(default)]
    verified_additional_authenticated_data_crc32c: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Decrypted {
    // Of an empty plaintext there is no field.
    plaintext: Option<Secret>,
    plaintext_crc32c: Option<Checksum>,
}

/// A 64-bit integer: a string in Google's JSON, but a number is one as well.
#[derive(Deserialize)]
#[serde(untagged)]
enum Checksum {
    Text(String),
    Number(i64),
}

impl Checksum {
    fn is_of(&self, bytes: &[u8]) -> bool {
        let value = match self {
            Self::Text(text) => text.parse().ok(),
            Self::Number(number) => Some(*number),
        };
        value == Some(i64::from(crc32c::crc32c(bytes)))
    }
}

impl Kms {
    /// The API at `base_url`.
    pub fn new(http: Http, base_url: &str, tokens: Option<Tokens>) -> Self {
        Self(Api::new(http, base_url, tokens))
    }

    /// The same, drawing its retries from `budget`.
    #[must_use]
    pub fn within(&self, budget: &Budget) -> Self {
        Self(self.0.within(budget))
    }

    /// Encrypts with the key's primary version. Only the same key and the same additional data decrypt it.
    ///
    /// # Errors
    /// `Forbidden` without roles/cloudkms.cryptoKeyEncrypter on the key, `NotFound` without that key, `TooLarge` for
    /// more than [`LARGEST_PLAINTEXT`], `Corrupt` when the checksums did not agree however often it was tried.
    pub async fn encrypt(&self, key: &str, plaintext: &[u8], additional: &[u8]) -> Result<Vec<u8>, Error> {
        if plaintext.len() > LARGEST_PLAINTEXT {
            let message = format!(
                "{} bytes are more than the {LARGEST_PLAINTEXT} that Cloud KMS encrypts",
                plaintext.len()
            );
            return Err(Error::new(Kind::TooLarge, ENCRYPT, key, message));
        }
        let body = json!({
            "plaintext": STANDARD.encode(plaintext),
            "plaintextCrc32c": crc32c::crc32c(plaintext).to_string(),
            "additionalAuthenticatedData": STANDARD.encode(additional),
            "additionalAuthenticatedDataCrc32c": crc32c::crc32c(additional).to_string(),
        });
        undamaged(|| async {
            let answer: Encrypted = self.call(ENCRYPT, key, "encrypt", &body).await?;
            let ciphertext = decode(ENCRYPT, key, &answer.ciphertext)?;
            let arrived = answer.verified_plaintext_crc32c && answer.verified_additional_authenticated_data_crc32c;
            if !arrived {
                return Err(damaged(
                    ENCRYPT,
                    key,
                    "Cloud KMS did not see the checksums that were sent",
                ));
            }
            compare(ENCRYPT, key, &ciphertext, answer.ciphertext_crc32c.as_ref())?;
            Ok(ciphertext.to_vec())
        })
        .await
    }

    /// Decrypts what [`Kms::encrypt`] gave, with the same additional data.
    ///
    /// # Errors
    /// `Forbidden` without roles/cloudkms.cryptoKeyDecrypter on the key, `NotFound` without that key, `Invalid` when
    /// this key with this additional data did not make that ciphertext, `Corrupt` when the checksums did not agree
    /// however often it was tried.
    pub async fn decrypt(&self, key: &str, ciphertext: &[u8], additional: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut body = json!({
            "ciphertext": STANDARD.encode(ciphertext),
            "ciphertextCrc32c": crc32c::crc32c(ciphertext).to_string(),
        });
        if !additional.is_empty() {
            body["additionalAuthenticatedData"] = STANDARD.encode(additional).into();
            body["additionalAuthenticatedDataCrc32c"] = crc32c::crc32c(additional).to_string().into();
        }
        undamaged(|| async {
            let answer: Decrypted = self.call(DECRYPT, key, "decrypt", &body).await?;
            let plaintext = answer.plaintext.as_ref().map_or("", Secret::expose);
            let plaintext = decode(DECRYPT, key, plaintext)?;
            compare(DECRYPT, key, &plaintext, answer.plaintext_crc32c.as_ref())?;
            Ok(plaintext)
        })
        .await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        operation: &'static str,
        key: &str,
        verb: &str,
        body: &Value,
    ) -> Result<T, Error> {
        if !is_key_name(key) {
            let message = "a key is projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY";
            return Err(Error::new(Kind::Invalid, operation, key, message));
        }
        let path: Vec<String> = key.split('/').map(encode::component).collect();
        let url = &self.0.url(&format!("/v1/{}:{verb}", path.join("/")));
        self.0
            .call(Idempotency::Always, |token| async move {
                let request = authorized(self.0.http.request(Method::POST, url), token.as_ref()).json(body);
                http::json(operation, key, http::send(operation, key, request).await?).await
            })
            .await
    }
}

/// Whether this is `projects/P/locations/L/keyRings/R/cryptoKeys/K`: a key, not one of its versions.
pub fn is_key_name(text: &str) -> bool {
    // `.` and `..` are resolved away by URL parsers, encoded or not.
    let plain = |part: &str| {
        part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c)) && !["", ".", ".."].contains(&part)
    };
    match text.split('/').collect::<Vec<_>>()[..] {
        [
            "projects",
            project,
            "locations",
            location,
            "keyRings",
            ring,
            "cryptoKeys",
            key,
        ] => {
            // An old project's id has its domain before a colon.
            project.split(':').chain([location, ring, key]).all(plain)
        }
        _ => false,
    }
}

/// Asks again when an answer arrived damaged.
async fn undamaged<T, F>(attempt: impl Fn() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt().await {
            Err(error) if error.kind == Kind::Corrupt && left > 0 => tracing::debug!(%error, "asking again"),
            outcome => return outcome,
        }
    }
}

fn decode(operation: &'static str, key: &str, text: &str) -> Result<Zeroizing<Vec<u8>>, Error> {
    STANDARD
        .decode(text)
        .map(Zeroizing::new)
        .map_err(|_| damaged(operation, key, "the answer is not base64"))
}

fn compare(operation: &'static str, key: &str, bytes: &[u8], checksum: Option<&Checksum>) -> Result<(), Error> {
    match checksum {
        Some(checksum) if checksum.is_of(bytes) => Ok(()),
        Some(_) => Err(damaged(
            operation,
            key,
            "the answer's bytes do not have the CRC32C it names",
        )),
        None => Err(damaged(operation, key, "the answer names no CRC32C")),
    }
}

fn damaged(operation: &'static str, key: &str, message: &str) -> Error {
    Error::new(Kind::Corrupt, operation, key, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_in_full() {
        assert!(is_key_name("projects/p/locations/global/keyRings/r/cryptoKeys/k"));
        assert!(is_key_name(
            "projects/example.com:p/locations/europe-west1/keyRings/r_1/cryptoKeys/k-2"
        ));
        for name in [
            "",
            "k",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "projects/p/locations/global/keyRings/r/cryptoKeys/",
            "projects/p/locations/../keyRings/r/cryptoKeys/k",
            "/projects/p/locations/global/keyRings/r/cryptoKeys/k",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k?x=y",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k:decrypt",
        ] {
            assert!(!is_key_name(name), "{name}");
        }
    }
}
