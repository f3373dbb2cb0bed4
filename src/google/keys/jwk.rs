//! A JSON Web Key Set as bytes (RFC 7517), and the one kind of key in it that counts: RSA for RS256 signatures.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;

/// Smaller moduli can be factored; larger ones aws-lc does not verify with.
const MODULUS_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// 65537, the only exponent in use: with 1 every message would be its own signature.
const EXPONENT: [u8; 3] = [1, 0, 1];

/// A public key that verifies tokens. Clones share it.
#[derive(Clone)]
pub struct PublicKey(Arc<Inner>);

struct Inner {
    key: DecodingKey,
    modulus: Vec<u8>,
}

impl PublicKey {
    /// Whether this is the key's RSASSA-PKCS1-v1_5 signature with SHA-256 (RS256) of `message`.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        // Its errors are about the key, which was checked when the set was read.
        jsonwebtoken::crypto::verify(&signature, message, &self.0.key, Algorithm::RS256).unwrap_or(false)
    }
}

/// The same key material, whatever its id: sets are fetched again and again, and most keys are in the next one too.
impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.modulus == other.0.modulus
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an RSA key of {} bytes", self.0.modulus.len())
    }
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

#[derive(Deserialize)]
struct Key {
    kid: Option<String>,
    kty: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// Takes the keys that are RSA keys for RS256 signatures and leaves the others out. Two keys of one id make the whole
/// set worthless: it would depend on their order which one counts.
pub(super) fn parse(body: &[u8]) -> Result<HashMap<String, PublicKey>, &'static str> {
    let set: Set = serde_json::from_slice(body).map_err(|_| "the answer is not a JSON Web Key Set")?;
    let mut ids = HashSet::new();
    if !set
        .keys
        .iter()
        .filter_map(|key| key.kid.as_deref())
        .all(|kid| ids.insert(kid))
    {
        return Err("two keys have the same id");
    }
    let keys: HashMap<_, _> = set
        .keys
        .iter()
        .filter_map(|key| Some((key.kid.clone()?, usable(key)?)))
        .collect();
    if keys.is_empty() {
        return Err("none of the keys is an RSA key for RS256 signatures");
    }
    Ok(keys)
}

fn usable(key: &Key) -> Option<PublicKey> {
    let is = |field: &Option<String>, wanted: &str| field.as_deref().is_none_or(|value| value == wanted);
    if key.kty.as_deref() != Some("RSA") || !is(&key.alg, "RS256") || !is(&key.purpose, "sig") {
        return None;
    }
    let mut modulus = URL_SAFE_NO_PAD.decode(key.n.as_deref()?).ok()?;
    // RFC 7518 forbids leading zeros; some issuers write the sign's all the same.
    let zeros = modulus.iter().position(|byte| *byte != 0)?;
    modulus.drain(..zeros);
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    if !MODULUS_BITS.contains(&bits) || URL_SAFE_NO_PAD.decode(key.e.as_deref()?).ok()? != EXPONENT {
        return None;
    }
    let key = DecodingKey::from_rsa_raw_components(&modulus, &EXPONENT);
    Some(PublicKey(Arc::new(Inner { key, modulus })))
}
