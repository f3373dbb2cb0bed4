//! Cloud KMS: symmetric `encrypt` and `decrypt` with additional authenticated data, and CRC32C both ways.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    error::Unspecified,
};
use axum::{http::StatusCode, response::Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Refusal, World, base64_of_google,
    data::{DataDirectory, Kept, Table},
    server::{Request, decode, json as json_answer, lock, rpc_error},
    to_base64,
};

/// The most that one call encrypts, and the most additional data, in bytes.
const LARGEST_PLAINTEXT: usize = 64 * 1024;
/// Says which key made a ciphertext, so that another key's is told apart from a damaged one.
const KEY_ID_LENGTH: usize = 8;

#[derive(Clone, Serialize, Deserialize)]
struct Key {
    id: [u8; KEY_ID_LENGTH],
    /// Versions, oldest first; the last is the primary.
    versions: Vec<Version>,
}

/// One version's key, and its bytes for the journal: the key does not give them back.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "[u8; 32]", into = "[u8; 32]")]
struct Version {
    bytes: [u8; 32],
    key: Arc<RandomizedNonceKey>,
}

impl TryFrom<[u8; 32]> for Version {
    type Error = Unspecified;

    fn try_from(bytes: [u8; 32]) -> Result<Self, Unspecified> {
        let key = Arc::new(RandomizedNonceKey::new(&AES_256_GCM, &bytes)?);
        Ok(Self { bytes, key })
    }
}

impl From<Version> for [u8; 32] {
    fn from(version: Version) -> Self {
        version.bytes
    }
}

/// The keys by their resource name. Key rings are no more than a part of it.
#[derive(Default)]
pub(super) struct Kms {
    keys: Kept<Table<Key>>,
    /// `(member, key, verb)`: who may not do what; everybody else may.
    denied: Mutex<BTreeSet<(String, String, &'static str)>>,
}

impl Kms {
    /// With what a directory has.
    pub(super) fn open(data: Option<&DataDirectory>) -> io::Result<Self> {
        let journal = data.map(|data| &data.journal);
        Ok(Self {
            keys: Kept::restored(journal, "kms/", Table::default())?,
            denied: Mutex::default(),
        })
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.keys.look().contains_key(name)
    }

    /// Makes a key, or a new primary version of one that is there.
    pub(super) fn rotate(&self, name: &str) -> Result<(), Refusal> {
        let internal = |_| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "Internal error.");
        let (mut id, mut bytes) = ([0; KEY_ID_LENGTH], [0; 32]);
        aws_lc_rs::rand::fill(&mut id).map_err(internal)?;
        aws_lc_rs::rand::fill(&mut bytes).map_err(internal)?;
        let version = Version::try_from(bytes).map_err(internal)?;
        self.keys.change(|keys| {
            let key = keys.get_or_insert_with(name, || Key {
                id,
                versions: Vec::new(),
            });
            key.versions.push(version);
            Ok(())
        })
    }

    pub(super) fn deny(&self, member: &str, key: &str, verb: &'static str) {
        lock(&self.denied).insert((member.to_owned(), key.to_owned(), verb));
    }

    /// Google says the same of a key that is not there to somebody who may not see it.
    fn allowed(&self, caller: Option<&str>, key: &str, verb: &'static str) -> Result<(), Refusal> {
        let is_denied = |caller: &str| lock(&self.denied).contains(&(caller.to_owned(), key.to_owned(), verb));
        if !caller.is_some_and(is_denied) {
            return Ok(());
        }
        Err(denied(permission_of(verb), key))
    }
}

fn permission_of(verb: &str) -> &'static str {
    if verb == "encrypt" {
        "cloudkms.cryptoKeyVersions.useToEncrypt"
    } else {
        "cloudkms.cryptoKeyVersions.useToDecrypt"
    }
}

fn denied(permission: &str, key: &str) -> Refusal {
    Refusal::new(
        StatusCode::FORBIDDEN,
        "PERMISSION_DENIED",
        format!("Permission '{permission}' denied on resource '{key}' (or it may not exist)."),
    )
}

pub(super) fn handle(world: &World, request: &Request) -> Response {
    let caller = match world.caller_or_refusal(request) {
        Ok(caller) => caller,
        Err(refusal) => return *refusal,
    };
    match call(world, request, caller.as_deref()) {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(refusal) => rpc_error(refusal.code, refusal.status, &refusal.message),
    }
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message)
}

fn call(world: &World, request: &Request, caller: Option<&str>) -> Result<Value, Refusal> {
    let unknown = || Refusal::new(StatusCode::NOT_FOUND, "NOT_FOUND", "Method not found.");
    let path = decode(request.path.strip_prefix("/v1/").ok_or_else(unknown)?);
    if path.ends_with("/cryptoKeys") && request.method == "POST" {
        return create(world, request, &path);
    }
    let (name, verb) = path.rsplit_once(':').ok_or_else(unknown)?;
    let verb = ["encrypt", "decrypt"].into_iter().find(|known| *known == verb);
    let verb = verb.filter(|_| request.method == "POST").ok_or_else(unknown)?;
    world.kms.allowed(caller, name, verb)?;
    let permission = permission_of(verb);
    if caller.is_some_and(|caller| !world.policies.allows(caller, permission, &format!("key/{name}"))) {
        return Err(denied(permission, name));
    }
    let body: Value = serde_json::from_slice(&request.body).map_err(|_| invalid("Invalid JSON payload received."))?;
    let keys = world.kms.keys.look();
    let key = keys.get(name).ok_or_else(|| {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "NOT_FOUND",
            format!("CryptoKey {name} not found."),
        )
    })?;
    let additional = bytes(&body, "additionalAuthenticatedData")?;
    if additional.len() > LARGEST_PLAINTEXT {
        return Err(invalid("Additional authenticated data must be at most 64 KiB."));
    }
    if verb == "encrypt" {
        encrypt(name, key, &body, &additional)
    } else {
        decrypt(key, &body, &additional)
    }
}

/// `POST .../cryptoKeys?cryptoKeyId=K`
fn create(world: &World, request: &Request, parent: &str) -> Result<Value, Refusal> {
    let id = request.parameter("cryptoKeyId").filter(|id| !id.is_empty());
    let name = format!("{parent}/{}", id.ok_or_else(|| invalid("crypto_key_id must be set."))?);
    if world.kms.has(&name) {
        let message = format!("CryptoKey {name} already exists.");
        return Err(Refusal::new(StatusCode::CONFLICT, "ALREADY_EXISTS", message));
    }
    world.kms.rotate(&name)?;
    let primary = format!("{name}/cryptoKeyVersions/1");
    Ok(json!({"name": name, "purpose": "ENCRYPT_DECRYPT", "primary": {"name": primary, "state": "ENABLED"}}))
}

/// A field of bytes, checked against its CRC32C when that came along.
fn bytes(body: &Value, field: &str) -> Result<Vec<u8>, Refusal> {
    let text = body[field].as_str().unwrap_or_default();
    let bytes = base64_of_google(text).ok_or_else(|| {
        invalid(format!(
            "Invalid value at '{field}' (TYPE_BYTES), Base64 decoding failed."
        ))
    })?;
    let checksum = &body[format!("{field}Crc32c")];
    let number = checksum
        .as_str()
        .and_then(|text| text.parse().ok())
        .or_else(|| checksum.as_i64());
    if !checksum.is_null() && number != Some(i64::from(crc32c::crc32c(&bytes))) {
        return Err(invalid(format!(
            "The checksum in field {field}_crc32c did not match the data in field {field}."
        )));
    }
    Ok(bytes)
}

fn crc32c_text(bytes: &[u8]) -> String {
    crc32c::crc32c(bytes).to_string()
}

fn encrypt(name: &str, key: &Key, body: &Value, additional: &[u8]) -> Result<Value, Refusal> {
    let mut sealed = bytes(body, "plaintext")?;
    if sealed.is_empty() || sealed.len() > LARGEST_PLAINTEXT {
        return Err(invalid("The plaintext must have 1 byte to 64 KiB."));
    }
    let version = key.versions.len();
    let failed = || Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL", "Internal error.");
    let primary = key.versions.last().ok_or_else(failed)?;
    let nonce = primary
        .key
        .seal_in_place_append_tag(Aad::from(additional), &mut sealed)
        .map_err(|_| failed())?;
    let mut ciphertext = key.id.to_vec();
    ciphertext.extend(u32::try_from(version).unwrap_or(u32::MAX).to_be_bytes());
    ciphertext.extend(nonce.as_ref());
    ciphertext.extend(sealed);
    Ok(json!({
        "name": format!("{name}/cryptoKeyVersions/{version}"),
        "ciphertext": to_base64(&ciphertext),
        "ciphertextCrc32c": crc32c_text(&ciphertext),
        "verifiedPlaintextCrc32c": !body["plaintextCrc32c"].is_null(),
        "verifiedAdditionalAuthenticatedDataCrc32c": !body["additionalAuthenticatedDataCrc32c"].is_null(),
        "protectionLevel": "SOFTWARE",
    }))
}

fn decrypt(key: &Key, body: &Value, additional: &[u8]) -> Result<Value, Refusal> {
    let failed = || invalid("Decryption failed: the ciphertext is invalid.");
    let other_key = || invalid("Decryption failed: verify that 'name' refers to the correct CryptoKey.");
    let ciphertext = bytes(body, "ciphertext")?;
    let (id, rest) = ciphertext.split_first_chunk::<KEY_ID_LENGTH>().ok_or_else(failed)?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(failed)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or_else(failed)?;
    let version = usize::try_from(u32::from_be_bytes(*version)).map_err(|_| failed())?;
    if *id != key.id {
        return Err(other_key());
    }
    let used = version.checked_sub(1).and_then(|index| key.versions.get(index));
    let mut plaintext = sealed.to_vec();
    let length = used
        .ok_or_else(failed)?
        .key
        .open_in_place(Nonce::from(nonce), Aad::from(additional), &mut plaintext)
        .map_err(|_| failed())?
        .len();
    plaintext.truncate(length);
    Ok(json!({
        "plaintext": to_base64(&plaintext),
        "plaintextCrc32c": crc32c_text(&plaintext),
        "usedPrimary": version == key.versions.len(),
        "protectionLevel": "SOFTWARE",
    }))
}
