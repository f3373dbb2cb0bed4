//! A service account's private key: RS256 signatures made here, without asking Google.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair;
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Error, Kind};

const OPERATION: &str = "sign with a local key";

/// The key and whose it is.
#[derive(Clone)]
pub struct SigningKey {
    /// The service account's address: the issuer of what is signed.
    pub client_email: String,
    key: Arc<KeyPair>,
}

impl SigningKey {
    /// Reads the `private_key` of a service account key file: PKCS#8 in PEM.
    ///
    /// # Errors
    /// `Invalid` when that is no RSA key in PKCS#8; the text is not repeated.
    pub fn from_pem(client_email: impl Into<String>, pem: &str) -> Result<Self, Error> {
        let client_email = client_email.into();
        let refused = |why: &str| {
            Error::new(
                Kind::Invalid,
                OPERATION,
                client_email.clone(),
                format!("the private key {why}; make a new key file with `gcloud iam service-accounts keys create`"),
            )
        };
        let body: String = pem
            .lines()
            .map(str::trim)
            .skip_while(|line| *line != "-----BEGIN PRIVATE KEY-----")
            .skip(1)
            .take_while(|line| *line != "-----END PRIVATE KEY-----")
            .collect();
        if body.is_empty() {
            return Err(refused("is not PEM that begins with `-----BEGIN PRIVATE KEY-----`"));
        }
        let der = STANDARD
            .decode(body)
            .map_err(|_| refused("is PEM with broken base64"))?;
        let key =
            KeyPair::from_pkcs8(&der).map_err(|_| refused("is not an RSA key of at least 2048 bits in PKCS#8"))?;
        Ok(Self {
            client_email,
            key: Arc::new(key),
        })
    }

    /// The RSASSA-PKCS1-v1_5 signature over SHA-256 of `message`.
    ///
    /// # Errors
    /// `Invalid` when the library refuses, which a key that was read does not make it do.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| {
                Error::new(
                    Kind::Invalid,
                    OPERATION,
                    self.client_email.clone(),
                    "the key does not sign; replace the key file",
                )
            })?;
        Ok(signature)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("client_email", &self.client_email)
            .finish_non_exhaustive()
    }
}
