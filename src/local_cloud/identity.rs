//! Who is who: service accounts and their keys, access tokens, and the key that signs OIDC ID tokens.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der},
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, UnparsedPublicKey},
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    clock::Clock,
    data::{DataDirectory, Kept, NotKept, Table},
    federation::Providers,
    roles::Grants,
    server::lock,
};

/// How long Google's OIDC ID tokens live.
const ID_TOKEN_LIFETIME: TimeDelta = TimeDelta::hours(1);

/// An RSA key and its name.
pub(super) struct RsaKey {
    pub(super) id: String,
    pair: RsaKeyPair,
}

impl RsaKey {
    pub(super) fn generate() -> io::Result<Self> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
        Ok(Self {
            id: random_hex(20),
            pair,
        })
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256: RS256, and GOOG4-RSA-SHA256.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        match self
            .pair
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
        {
            Ok(()) => signature,
            // An empty signature verifies nowhere, which is what a client must then notice.
            Err(_) => Vec::new(),
        }
    }

    /// `RSAPublicKey` of RFC 8017, DER.
    pub(super) fn public_der(&self) -> Vec<u8> {
        self.pair.public_key().as_ref().to_vec()
    }

    fn private_pem(&self) -> io::Result<String> {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().map_err(io::Error::other)?;
        let text = STANDARD.encode(der.as_ref());
        let mut pem = String::from("-----BEGIN PRIVATE KEY-----\n");
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        Ok(pem)
    }

    /// The JSON Web Key, as in Google's key set.
    pub(super) fn jwk(&self) -> Value {
        let (modulus, exponent) = modulus_and_exponent(&self.public_der()).unwrap_or_default();
        json!({
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": self.id,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode(exponent),
        })
    }

    /// A JWT with these claims.
    pub(super) fn jwt(&self, claims: &Value) -> String {
        let header = json!({"alg": "RS256", "kid": self.id, "typ": "JWT"});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = URL_SAFE_NO_PAD.encode(self.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

impl std::fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaKey").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Reads `SEQUENCE { modulus INTEGER, publicExponent INTEGER }`, both without their sign byte.
fn modulus_and_exponent(der: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (body, _) = element(der, 0x30)?;
    let (modulus, rest) = element(body, 0x02)?;
    let (exponent, _) = element(rest, 0x02)?;
    let unsigned = |bytes: &[u8]| bytes.strip_prefix(&[0]).unwrap_or(bytes).to_vec();
    Some((unsigned(modulus), unsigned(exponent)))
}

/// One DER element with this tag: its content, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.split_first()?;
    let (&length, mut rest) = rest.split_first()?;
    let mut size = usize::from(length);
    if length & 0x80 != 0 {
        let (digits, after) = rest.split_at_checked(usize::from(length & 0x7f))?;
        size = digits.iter().fold(0, |size, digit| (size << 8) | usize::from(*digit));
        rest = after;
    }
    (first == tag).then(|| rest.split_at_checked(size)).flatten()
}

pub(super) fn random_hex(bytes: usize) -> String {
    let mut random = vec![0; bytes];
    // The random source of the operating system does not fail once the machine is up.
    let _ = aws_lc_rs::rand::fill(&mut random);
    random.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Clone, Serialize, Deserialize)]
struct Account {
    /// The 21 digits that `sub` and `azp` hold.
    unique_id: String,
    /// The Google-managed key that `signBlob` signs with: made at the first use, because making one takes a while.
    #[serde(with = "as_pkcs8")]
    managed: Option<Arc<RsaKey>>,
    /// Public keys that verify for this account, by key id.
    public_keys: Vec<(String, Vec<u8>)>,
}

/// A key in the journal: its name and PKCS #8 in base64.
mod as_pkcs8 {
    use std::sync::Arc;

    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rsa::KeyPair as RsaKeyPair,
    };
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};

    use super::RsaKey;

    pub(super) fn serialize<S: Serializer>(key: &Option<Arc<RsaKey>>, serializer: S) -> Result<S::Ok, S::Error> {
        let parts = key.as_ref().map(|key| {
            let der: Pkcs8V1Der<'_> = key.pair.as_der().map_err(ser::Error::custom)?;
            Ok((&key.id, STANDARD.encode(der.as_ref())))
        });
        parts.transpose()?.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Arc<RsaKey>>, D::Error> {
        let Some((id, der)) = Option::<(String, String)>::deserialize(deserializer)? else {
            return Ok(None);
        };
        let der = STANDARD.decode(der).map_err(de::Error::custom)?;
        let pair = RsaKeyPair::from_pkcs8(&der).map_err(de::Error::custom)?;
        Ok(Some(Arc::new(RsaKey { id, pair })))
    }
}

/// A person who has logged in with an OAuth client.
#[derive(Clone)]
pub(super) struct User {
    pub(super) email: String,
    pub(super) client_id: String,
    pub(super) client_secret: String,
}

struct AccessToken {
    email: String,
    expires: DateTime<Utc>,
}

/// Who may do what, and proves it how.
pub(super) struct Identity {
    clock: Clock,
    project: String,
    accounts: Kept<Table<Account>>,
    access_tokens: Mutex<HashMap<String, AccessToken>>,
    /// Who may act as whom.
    pub(super) grants: Grants,
    /// By refresh token.
    users: Mutex<HashMap<String, User>>,
    /// Whom the pools trust.
    pub(super) providers: Providers,
    /// The current key first; the others are still published.
    oidc_keys: Mutex<Vec<Arc<RsaKey>>>,
}

impl Identity {
    /// With what a directory has: accounts and the keys that signatures of them verify with. The keys of ID tokens are made anew,
    /// like the URLs that such tokens are for.
    pub(super) fn open(clock: Clock, project: String, data: Option<&DataDirectory>) -> io::Result<Self> {
        let journal = data.map(|data| &data.journal);
        Ok(Self {
            clock,
            project,
            accounts: Kept::restored(journal, "account/", Table::default())?,
            access_tokens: Mutex::default(),
            grants: Grants::default(),
            users: Mutex::default(),
            providers: Providers::default(),
            oidc_keys: Mutex::new(vec![Arc::new(RsaKey::generate()?)]),
        })
    }

    pub(super) fn add_account(&self, email: &str) {
        // What cannot be kept is said where that is found out; the account is not there then.
        let _not_kept = self.accounts.change(|accounts| {
            if !accounts.contains_key(email) {
                let number = accounts.len() + 1;
                let account = Account {
                    unique_id: format!("10000000000000{number:07}"),
                    managed: None,
                    public_keys: Vec::new(),
                };
                accounts.insert(email.to_owned(), account);
            }
            Ok::<_, NotKept>(())
        });
    }

    pub(super) fn knows(&self, email: &str) -> bool {
        self.accounts.look().contains_key(email)
    }

    pub(super) fn unique_id(&self, email: &str) -> Option<String> {
        let accounts = self.accounts.look();
        accounts.get(email).map(|account| account.unique_id.clone())
    }

    /// Registers a public key (`RSAPublicKey`, DER) of an account, which is made if need be.
    pub(super) fn add_public_key(&self, email: &str, key_id: &str, public_der: Vec<u8>) -> io::Result<()> {
        self.add_account(email);
        let added = self.accounts.change(|accounts| {
            if let Some(account) = accounts.get_mut(email) {
                account.public_keys.push((key_id.to_owned(), public_der));
            }
            Ok::<_, NotKept>(())
        });
        added.map_err(io::Error::other)
    }

    pub(super) fn managed_key(&self, email: &str) -> Option<Arc<RsaKey>> {
        let there = self.accounts.look().get(email).map(|account| account.managed.clone())?;
        if there.is_some() {
            return there;
        }
        let made = self.accounts.change(|accounts| {
            let Some(account) = accounts.get_mut(email) else {
                return Ok(None);
            };
            if account.managed.is_none() {
                let key = Arc::new(RsaKey::generate().map_err(|error| NotKept(error.to_string()))?);
                account.public_keys.push((key.id.clone(), key.public_der()));
                account.managed = Some(key);
            }
            Ok::<_, NotKept>(account.managed.clone())
        });
        made.ok().flatten()
    }

    /// Replaces the Google-managed key; what the old one signed no longer verifies.
    pub(super) fn rotate_managed_key(&self, email: &str) {
        let _not_kept = self.accounts.change(|accounts| {
            if let Some(account) = accounts.get_mut(email)
                && let Some(old) = account.managed.take()
            {
                account.public_keys.retain(|(id, _)| *id != old.id);
            }
            Ok::<_, NotKept>(())
        });
    }

    /// Makes a user-managed key and the file that Google hands out for it.
    pub(super) fn key_file(&self, email: &str, token_uri: &str) -> io::Result<Value> {
        let key = RsaKey::generate()?;
        let pem = key.private_pem()?;
        self.add_public_key(email, &key.id, key.public_der())?;
        Ok(json!({
            "type": "service_account",
            "project_id": self.project,
            "private_key_id": key.id,
            "private_key": pem,
            "client_email": email,
            "client_id": self.unique_id(email),
            "auth_uri": "https://accounts.google.com/o/oauth2/auth",
            "token_uri": token_uri,
            "auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs",
            "universe_domain": "googleapis.com",
        }))
    }

    /// Whether `signature` over `message` is by one of the account's keys: the one named, or any.
    pub(super) fn verifies(&self, email: &str, key_id: Option<&str>, message: &[u8], signature: &[u8]) -> bool {
        let accounts = self.accounts.look();
        accounts.get(email).is_some_and(|account| {
            account
                .public_keys
                .iter()
                .filter(|(id, _)| key_id.is_none_or(|wanted| wanted == id))
                .any(|(_, der)| {
                    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der)
                        .verify(message, signature)
                        .is_ok()
                })
        })
    }

    /// A person who has logged in: what gcloud then writes into its file of Application Default Credentials.
    pub(super) fn log_in(&self, email: &str, token_uri: &str) -> Value {
        self.add_account(email);
        let user = User {
            email: email.to_owned(),
            client_id: format!("{}.apps.googleusercontent.com", random_hex(8)),
            client_secret: format!("GOCSPX-{}", random_hex(12)),
        };
        let refresh_token = format!("1//{}", random_hex(32));
        let file = json!({
            "type": "authorized_user", "client_id": user.client_id, "client_secret": user.client_secret,
            "refresh_token": refresh_token, "token_uri": token_uri, "universe_domain": "googleapis.com", "account": "",
        });
        lock(&self.users).insert(refresh_token, user);
        file
    }

    pub(super) fn user(&self, refresh_token: &str) -> Option<User> {
        lock(&self.users).get(refresh_token).cloned()
    }

    pub(super) fn new_access_token(&self, email: &str, lifetime: TimeDelta) -> String {
        let token = format!("ya29.c.{}", random_hex(48));
        let now = self.clock.now();
        let expires = now + lifetime;
        let mut tokens = lock(&self.access_tokens);
        // A cloud that runs for long would otherwise remember every token that it ever gave.
        tokens.retain(|_, token| now < token.expires);
        tokens.insert(
            token.clone(),
            AccessToken {
                email: email.to_owned(),
                expires,
            },
        );
        token
    }

    /// Whose access token this is, if it is one and has not expired.
    pub(super) fn caller(&self, access_token: &str) -> Option<String> {
        let tokens = lock(&self.access_tokens);
        let Some(token) = tokens.get(access_token) else {
            return self.self_signed(access_token);
        };
        (self.clock.now() < token.expires).then(|| token.email.clone())
    }

    /// A service account may sign its own access token (google.aip.dev/auth/4111).
    fn self_signed(&self, token: &str) -> Option<String> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok() };
        let (header, claims) = (part(header)?, part(claims)?);
        let email = claims["iss"].as_str()?;
        let (issued, expires) = (claims["iat"].as_i64()?, claims["exp"].as_i64()?);
        let now = self.clock.now().timestamp();
        let for_apis = claims["scope"].as_str().is_some_and(|scope| !scope.is_empty());
        let good = header["alg"] == "RS256" && claims["sub"] == email && for_apis;
        let timely = issued <= now + 60 && now < expires && expires - issued <= 3600;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let proven = self.verifies(email, header["kid"].as_str(), signed.as_bytes(), &signature);
        (good && timely && proven).then(|| email.to_owned())
    }

    pub(super) fn revoke_access_tokens(&self) {
        lock(&self.access_tokens).clear();
    }

    /// The claims that Google puts into an account's ID token.
    pub(super) fn claims(&self, email: &str, audience: &str, with_email: bool) -> Value {
        let unique_id = self.unique_id(email).unwrap_or_default();
        let now = self.clock.now();
        let mut claims = json!({
            "aud": audience,
            "azp": unique_id,
            "exp": (now + ID_TOKEN_LIFETIME).timestamp(),
            "iat": now.timestamp(),
            "iss": "https://accounts.google.com",
            "sub": unique_id,
        });
        if with_email {
            claims["email"] = json!(email);
            claims["email_verified"] = json!(true);
        }
        claims
    }

    /// Signs claims, whatever they say, with the current OIDC key.
    pub(super) fn id_token(&self, claims: &Value) -> String {
        let key = lock(&self.oidc_keys).first().cloned();
        key.map(|key| key.jwt(claims)).unwrap_or_default()
    }

    /// A new current key; the one before it stays published, older ones go.
    pub(super) fn rotate_oidc_keys(&self) -> io::Result<()> {
        let key = Arc::new(RsaKey::generate()?);
        let mut keys = lock(&self.oidc_keys);
        keys.insert(0, key);
        keys.truncate(2);
        Ok(())
    }

    pub(super) fn oidc_keys(&self) -> Vec<Value> {
        lock(&self.oidc_keys).iter().map(|key| key.jwk()).collect()
    }

    /// Whether a JWT is signed by a published OIDC key; its claims.
    pub(super) fn verified_id_token(&self, token: &str) -> Option<Value> {
        verified(token, &lock(&self.oidc_keys))
    }
}

/// The claims of a JWT that one of the keys signed.
pub(super) fn verified(token: &str, keys: &[Arc<RsaKey>]) -> Option<Value> {
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, claims) = signed.split_once('.')?;
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    let key = keys
        .iter()
        .find(|key| header["kid"] == key.id && header["alg"] == "RS256")?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_der())
        .verify(signed.as_bytes(), &signature)
        .ok()?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// The public half of a PKCS#8 private key, PEM or DER, as `RSAPublicKey` in DER.
pub(super) fn public_of_private(pem: &str) -> io::Result<Vec<u8>> {
    let text: String = pem
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .flat_map(str::chars)
        .collect();
    let der = STANDARD.decode(text.trim()).map_err(io::Error::other)?;
    let pair = RsaKeyPair::from_pkcs8(&der).map_err(io::Error::other)?;
    Ok(pair.public_key().as_ref().to_vec())
}
