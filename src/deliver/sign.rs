//! V4 signed URLs for Cloud Storage: the canonical request and the string to sign are pure, the signature comes from a
//! local key or from signBlob.
//!
//! Source: cloud.google.com/storage/docs/authentication/canonical-requests and .../signatures; Google's 29 conformance
//! vectors are reproduced byte for byte in `tests/it/sign.rs`.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, SubsecRound as _, TimeDelta, Utc};
use sha2::{Digest as _, Sha256};

use crate::google::iam::{self, Iam};
use crate::google::retry::Budget;
use crate::google::secret::Secret;
use crate::google::signing::SigningKey;
use crate::google::{self, encode};

/// Google's universe; `storage.` before it is the default host.
pub const UNIVERSE_DOMAIN: &str = "googleapis.com";
/// The longest time with a key of one's own: seven days.
pub const LONGEST_WITH_KEY: Duration = Duration::from_secs(604_800);

const ALGORITHM: &str = "GOOG4-RSA-SHA256";
const SIGNATURE: &str = "X-Goog-Signature";

/// Where the bucket stands in the URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Style {
    /// `https://storage.googleapis.com/BUCKET/OBJECT`.
    #[default]
    Path,
    /// `https://BUCKET.storage.googleapis.com/OBJECT`.
    VirtualHosted,
    /// `https://HOSTNAME/OBJECT`, a host name that serves this bucket alone.
    BucketBound,
}

/// Scheme and host of the URL. The port is in the URL and not in the signed `host` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https` or `http`.
    pub scheme: String,
    /// `HOST` or `HOST:PORT`.
    pub host: String,
}

impl Endpoint {
    /// Google's own host in this universe.
    pub fn universe(domain: &str) -> Self {
        Self {
            scheme: "https".into(),
            host: format!("storage.{domain}"),
        }
    }

    /// From `HOST[:PORT]`, which gets `scheme`, or from a URL, whose own scheme wins.
    pub fn parse(text: &str, scheme: &str) -> Self {
        let (scheme, host) = text.split_once("://").unwrap_or((scheme, text));
        Self {
            scheme: scheme.to_owned(),
            host: host.split('/').next().unwrap_or_default().to_owned(),
        }
    }
}

impl Default for Endpoint {
    fn default() -> Self {
        Self::universe(UNIVERSE_DOMAIN)
    }
}

/// What the URL allows.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The HTTP method.
    pub method: &'a str,
    /// The bucket.
    pub bucket: &'a str,
    /// The object; without one the URL is the bucket's.
    pub object: Option<&'a str>,
    /// Headers that the user of the URL has to send.
    pub headers: &'a [(String, String)],
    /// Query parameters, not encoded.
    pub query: &'a [(String, String)],
    /// Where the bucket stands.
    pub style: Style,
    /// Scheme and host.
    pub endpoint: &'a Endpoint,
    /// From when on it is good, whole seconds.
    pub at: DateTime<Utc>,
    /// For how long, whole seconds.
    pub ttl: Duration,
}

/// Why a URL cannot be signed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SignError {
    /// What was asked for cannot be a signed URL. The sentence says why.
    #[error("{0}")]
    Refused(String),
    /// The signer does not sign.
    #[error(transparent)]
    Google(#[from] google::Error),
}

/// Everything but the signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsigned {
    /// What Google reconstructs from the request.
    pub canonical_request: String,
    /// What is signed: algorithm, time, scope, and the hash of the canonical request.
    pub string_to_sign: String,
    /// When the URL ends.
    pub expires_at: DateTime<Utc>,
    url: String,
}

impl Unsigned {
    /// The URL with this signature over [`Unsigned::string_to_sign`].
    pub fn with(&self, signature: &[u8]) -> Secret {
        Secret::new(format!("{}&{SIGNATURE}={}", self.url, hex(signature)))
    }
}

/// A URL that lets whoever holds it do what it says.
#[derive(Debug, Clone)]
pub struct SignedUrl {
    /// The URL.
    pub url: Secret,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// Who signs.
#[derive(Debug, Clone)]
pub enum Signer {
    /// A key of our own.
    Key(SigningKey),
    /// Google's key of this account, through signBlob.
    Blob {
        /// The API.
        iam: Iam,
        /// The account.
        email: String,
    },
}

impl Signer {
    /// The account whose right to the object the URL carries.
    pub fn email(&self) -> &str {
        match self {
            Self::Key(key) => &key.client_email,
            Self::Blob { email, .. } => email,
        }
    }

    /// The longest time that a URL of this signer may have.
    pub fn longest(&self) -> Duration {
        match self {
            Self::Key(_) => LONGEST_WITH_KEY,
            Self::Blob { .. } => iam::KEYS_HOLD,
        }
    }

    /// The same, with calls to Google counted against this budget.
    #[must_use]
    pub fn within(&self, budget: &Budget) -> Self {
        match self {
            Self::Key(key) => Self::Key(key.clone()),
            Self::Blob { iam, email } => Self::Blob {
                iam: iam.within(budget),
                email: email.clone(),
            },
        }
    }

    /// Signs the request.
    ///
    /// # Errors
    /// `Refused` for a lifetime under 1 s or over [`Signer::longest`] and for what [`prepare`] refuses; else what signBlob
    /// says.
    pub async fn sign(&self, request: &Request<'_>) -> Result<SignedUrl, SignError> {
        if request.ttl < Duration::from_secs(1) {
            return Err(SignError::Refused("a URL is good for 1 s at least".into()));
        }
        if request.ttl > self.longest() {
            return Err(SignError::Refused(match self {
                Self::Key(_) => "a URL is good for 7d at most".into(),
                Self::Blob { .. } => {
                    "a URL signed through signBlob is good for 12h at most, because Google may rotate \
                                      those keys after that; with a key file for 7d"
                        .into()
                }
            }));
        }
        let unsigned = prepare(request, self.email())?;
        let signature = match self {
            Self::Key(key) => key.sign(unsigned.string_to_sign.as_bytes())?,
            Self::Blob { iam, email } => iam.sign_blob(email, unsigned.string_to_sign.as_bytes()).await?.1,
        };
        let expires_at = request.at.trunc_subsecs(0) + Duration::from_secs(request.ttl.as_secs());
        Ok(SignedUrl {
            url: unsigned.with(&signature),
            expires_at,
        })
    }
}

/// Builds what has to be signed. `email` is the signer's.
///
/// # Errors
/// `Refused` for a header or query parameter that the signature itself sets, for a header that cannot be one, and for
/// two of one name.
pub fn prepare(request: &Request<'_>, email: &str) -> Result<Unsigned, SignError> {
    let start = request.at.trunc_subsecs(0);
    let ttl = i64::try_from(request.ttl.as_secs())
        .ok()
        .and_then(TimeDelta::try_seconds);
    let Some(expires_at) = ttl
        .and_then(|ttl| start.checked_add_signed(ttl))
        .filter(|end| start.year() >= 1970 && end.year() <= 9999)
    else {
        return Err(SignError::Refused(
            "the time that the URL is good for is not between 1970 and 9999".into(),
        ));
    };
    let (host, path) = place(request);
    let headers = headers(request, &host)?;
    let signed_headers = headers.keys().map(String::as_str).collect::<Vec<_>>().join(";");
    let date = request.at.format("%Y%m%d");
    let time = request.at.format("%Y%m%dT%H%M%SZ");
    let scope = format!("{date}/auto/storage/goog4_request");

    let own = [
        ("X-Goog-Algorithm", ALGORITHM.to_owned()),
        ("X-Goog-Credential", format!("{email}/{scope}")),
        ("X-Goog-Date", time.to_string()),
        ("X-Goog-Expires", request.ttl.as_secs().to_string()),
        ("X-Goog-SignedHeaders", signed_headers.clone()),
    ];
    let query = query(request, &own)?;
    let payload = headers
        .get("x-goog-content-sha256")
        .map_or("UNSIGNED-PAYLOAD", String::as_str);
    let canonical_headers: String = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}\n"))
        .collect();
    let canonical_request = format!(
        "{}\n{path}\n{query}\n{canonical_headers}\n{signed_headers}\n{payload}",
        request.method
    );
    let string_to_sign = format!(
        "{ALGORITHM}\n{time}\n{scope}\n{}",
        hex(&Sha256::digest(canonical_request.as_bytes()))
    );
    let url = format!("{}://{host}{path}?{query}", request.endpoint.scheme);
    Ok(Unsigned {
        canonical_request,
        string_to_sign,
        expires_at,
        url,
    })
}

/// Host (with its port) and path. Names are encoded byte by byte: nothing is normalised, no slash is dropped.
fn place(request: &Request<'_>) -> (String, String) {
    let host = &request.endpoint.host;
    let object = request.object.map(|object| format!("/{}", encode::path(object)));
    match request.style {
        Style::Path => (
            host.clone(),
            format!("/{}{}", encode::path(request.bucket), object.unwrap_or_default()),
        ),
        Style::VirtualHosted => (
            format!("{}.{host}", request.bucket),
            object.unwrap_or_else(|| "/".into()),
        ),
        Style::BucketBound => (host.clone(), object.unwrap_or_else(|| "/".into())),
    }
}

/// Lower-cased, trimmed, runs of spaces and tabs as one space, sorted; with `host`.
fn headers(request: &Request<'_>, host: &str) -> Result<BTreeMap<String, String>, SignError> {
    let mut headers = BTreeMap::from([("host".to_owned(), without_port(host).to_owned())]);
    for (name, value) in request.headers {
        let shown = name.escape_debug();
        // What could break out of a line of headers. A name that is no token of RFC 9110 is signed all the same: Google's
        // own vectors have one with a slash.
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_graphic() && c != ':') {
            return Err(SignError::Refused(format!("`{shown}` is no name of a header")));
        }
        if value.contains(|c: char| c.is_control() && c != '\t') {
            return Err(SignError::Refused(format!(
                "the value of the header {shown} holds a line break or another control character"
            )));
        }
        let value = value
            .split([' ', '\t'])
            .filter(|word| !word.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        if headers.insert(name.to_lowercase(), value).is_some() {
            return Err(SignError::Refused(format!(
                "the header {shown} is there twice, or set by the URL"
            )));
        }
    }
    Ok(headers)
}

/// A host without its port: `[::1]:80` is `[::1]`.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Encoded, then sorted. What the URL itself sets is refused in any spelling: no reader should have to choose.
fn query(request: &Request<'_>, own: &[(&str, String)]) -> Result<String, SignError> {
    let mut pairs: BTreeMap<String, String> = own
        .iter()
        .map(|(name, value)| (encode::component(name), encode::component(value)))
        .collect();
    for (name, value) in request.query {
        let mut reserved = own.iter().map(|(name, _)| *name).chain([SIGNATURE]);
        if name.is_empty()
            || reserved.any(|own| own.eq_ignore_ascii_case(name))
            || pairs
                .insert(encode::component(name), encode::component(value))
                .is_some()
        {
            let shown = name.escape_debug();
            return Err(SignError::Refused(format!(
                "the query parameter `{shown}` is there twice, or set by the URL"
            )));
        }
    }
    Ok(pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect::<Vec<_>>()
        .join("&"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
