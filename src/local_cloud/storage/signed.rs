//! Verifies V4 signatures (GOOG4-RSA-SHA256) from nothing but the received request and the accounts' public keys.
//!
//! Written from Google's description of canonical requests and its conformance vectors, apart from the signer in this
//! package, so that a mistake in one shows as a refusal here.

use axum::http::{StatusCode, header};
use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use percent_encoding::{AsciiSet, percent_decode_str, percent_encode};
use sha2::{Digest, Sha256};

use super::{
    super::{World, server::Request},
    resource::COMPONENT,
    xml::XmlError,
};

const ALGORITHM: &str = "GOOG4-RSA-SHA256";
const PATH: &AsciiSet = &COMPONENT.remove(b'/');
const LONGEST_EXPIRY: i64 = 604_800;
/// How far ahead of this clock a signer's may be.
const SKEW: TimeDelta = TimeDelta::minutes(15);

/// Whether the query claims a V4 signature, well-formed or not.
pub(super) fn is_signed(request: &Request) -> bool {
    request.query.split('&').any(|pair| {
        let name = pair.split('=').next().unwrap_or_default().to_ascii_lowercase();
        matches!(
            name.as_str(),
            "x-goog-algorithm" | "x-goog-credential" | "x-goog-signature" | "x-goog-signedheaders"
        )
    })
}

/// What the query says about its signature.
struct Claim {
    email: String,
    scope: String,
    date: String,
    signed_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    signed_headers: Vec<String>,
    signature: Vec<u8>,
}

/// Whose signature that is, or why it is none, as Google's XML API says it.
pub(super) fn verify(world: &World, request: &Request) -> Result<String, XmlError> {
    let claim = claim(request)?;
    let now = world.clock.now();
    if now > claim.expires_at {
        let details = format!(
            "The provided token has expired. Request signature expired at: {}",
            claim.expires_at.format("%Y-%m-%dT%H:%M:%S+00:00")
        );
        return Err(XmlError::new(StatusCode::BAD_REQUEST, "ExpiredToken", "Invalid argument.").details(details));
    }
    if now + SKEW < claim.signed_at {
        let message = "The difference between the request time and the server's time is too large.";
        return Err(XmlError::new(StatusCode::FORBIDDEN, "RequestTimeTooSkewed", message));
    }
    if !world.identity.knows(&claim.email) {
        let message = "The User Id you provided does not exist in our records.";
        return Err(XmlError::new(StatusCode::FORBIDDEN, "InvalidAccessKeyId", message)
            .details(format!("GoogleAccessId: {}", claim.email)));
    }
    all_signed(request, &claim)?;
    // The conformance vectors sign the host without its port, some clients with it; the service takes both.
    let host = request.host();
    let bare = host.rsplit_once(':').map_or(host, |(name, _)| name);
    for host in [host, bare] {
        let to_sign = string_to_sign(&claim, &canonical_request(request, &claim.signed_headers, host)?);
        if world
            .identity
            .verifies(&claim.email, None, to_sign.as_bytes(), &claim.signature)
        {
            payload_matches(request, &claim)?;
            return Ok(claim.email);
        }
    }
    let canonical = canonical_request(request, &claim.signed_headers, bare)?;
    let details = "The request signature we calculated does not match the signature you provided. Check your Google \
                   secret key and signing method.";
    Err(
        XmlError::new(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", "Access denied.")
            .details(details)
            .with("StringToSign", string_to_sign(&claim, &canonical))
            .with("CanonicalRequest", canonical),
    )
}

fn claim(request: &Request) -> Result<Claim, XmlError> {
    let invalid = |details: String| {
        XmlError::new(StatusCode::BAD_REQUEST, "InvalidArgument", "Invalid argument.").details(details)
    };
    let pairs = query_pairs(request);
    // Google's names are written in capitals by its libraries and without by gcloud.
    let value = |name: &str| -> Result<String, XmlError> {
        let mut values = pairs
            .iter()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(String::from_utf8_lossy(value).into_owned()),
            (None, _) => Err(invalid(format!("Missing query parameter: {name}"))),
            (Some(_), Some(_)) => Err(invalid(format!("Query parameter given twice: {name}"))),
        }
    };
    let algorithm = value("X-Goog-Algorithm")?;
    if algorithm != ALGORITHM {
        return Err(invalid(format!("Unsupported X-Goog-Algorithm: {algorithm}")));
    }
    let credential = value("X-Goog-Credential")?;
    let (email, scope) = match credential.rsplitn(5, '/').collect::<Vec<_>>()[..] {
        ["goog4_request", "storage", location, day, email] if !location.is_empty() && !email.is_empty() => {
            (email.to_owned(), format!("{day}/{location}/storage/goog4_request"))
        }
        _ => return Err(invalid(format!("Malformed X-Goog-Credential: {credential}"))),
    };
    let date = value("X-Goog-Date")?;
    let signed_at = NaiveDateTime::parse_from_str(&date, "%Y%m%dT%H%M%SZ")
        .map_err(|_| invalid(format!("Malformed X-Goog-Date: {date}")))?
        .and_utc();
    if date.get(..8) != scope.get(..8) {
        return Err(invalid(
            "The date of X-Goog-Credential is not that of X-Goog-Date.".to_owned(),
        ));
    }
    let expires = value("X-Goog-Expires")?;
    let seconds = expires
        .parse()
        .ok()
        .filter(|seconds| (1..=LONGEST_EXPIRY).contains(seconds));
    let seconds = seconds.ok_or_else(|| {
        invalid(format!(
            "X-Goog-Expires must be between 1 and {LONGEST_EXPIRY} seconds, not {expires}"
        ))
    })?;
    let signed_headers: Vec<String> = value("X-Goog-SignedHeaders")?.split(';').map(str::to_owned).collect();
    if !signed_headers.iter().any(|name| name == "host") || !signed_headers.is_sorted() {
        return Err(invalid(
            "X-Goog-SignedHeaders must be sorted and contain host.".to_owned(),
        ));
    }
    let signature = value("X-Goog-Signature")?;
    let signature = hex(&signature).ok_or_else(|| invalid("X-Goog-Signature is not hexadecimal.".to_owned()))?;
    let expires_at = signed_at + TimeDelta::seconds(seconds);
    Ok(Claim {
        email,
        scope,
        date,
        signed_at,
        expires_at,
        signed_headers,
        signature,
    })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits = text
        .bytes()
        .map(|byte| char::from(byte).to_digit(16))
        .collect::<Option<Vec<_>>>()?;
    let bytes = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from((high << 4) | low).ok(),
        _ => None,
    });
    bytes.collect()
}

/// Names and values, percent-decoded; a `+` is a plus.
fn query_pairs(request: &Request) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = request.query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (percent_decode_str(name).collect(), percent_decode_str(value).collect())
        })
        .collect()
}

fn canonical_request(request: &Request, signed_headers: &[String], host: &str) -> Result<String, XmlError> {
    let path: Vec<u8> = percent_decode_str(&request.path).collect();
    let path = percent_encode(&path, PATH);
    let mut query: Vec<String> = query_pairs(request)
        .iter()
        .filter(|(name, _)| !name.eq_ignore_ascii_case(b"x-goog-signature"))
        .map(|(name, value)| {
            format!(
                "{}={}",
                percent_encode(name, COMPONENT),
                percent_encode(value, COMPONENT)
            )
        })
        .collect();
    query.sort();
    let mut headers = String::new();
    let mut payload = "UNSIGNED-PAYLOAD".to_owned();
    for name in signed_headers {
        let value = if name == "host" {
            host.to_owned()
        } else {
            header_value(request, name)?
        };
        headers.push_str(&format!("{name}:{value}\n"));
        if name == "x-goog-content-sha256" {
            payload = value;
        }
    }
    let (method, query, names) = (&request.method, query.join("&"), signed_headers.join(";"));
    Ok(format!("{method}\n{path}\n{query}\n{headers}\n{names}\n{payload}"))
}

/// All values of a header joined by commas, white space trimmed and collapsed.
fn header_value(request: &Request, name: &str) -> Result<String, XmlError> {
    let values: Vec<String> = request
        .headers
        .get_all(name)
        .iter()
        .map(|value| {
            String::from_utf8_lossy(value.as_bytes())
                .split_ascii_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    if values.is_empty() {
        return Err(malformed(
            name,
            "Header was included in signedheaders, but not in the request.",
        ));
    }
    Ok(values.join(","))
}

/// In the words that Google has for it in 2026: the sentence that was the message once begins the details.
fn malformed(header: &str, why: &str) -> XmlError {
    XmlError::new(StatusCode::BAD_REQUEST, "MalformedSecurityHeader", "Invalid argument.")
        .details(format!("Your request has a malformed header. {why}"))
        .with("ParameterName", header)
}

/// Every header of Google's own that a request carries must be signed.
fn all_signed(request: &Request, claim: &Claim) -> Result<(), XmlError> {
    let mut names = request.headers.keys().map(header::HeaderName::as_str);
    let unsigned =
        names.find(|name| name.starts_with("x-goog-") && !claim.signed_headers.iter().any(|signed| signed == name));
    unsigned.map_or(Ok(()), |name| Err(malformed(name, "Header must be signed.")))
}

fn string_to_sign(claim: &Claim, canonical: &str) -> String {
    let digest: String = Sha256::digest(canonical)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{ALGORITHM}\n{}\n{}\n{digest}", claim.date, claim.scope)
}

/// A signed payload hash is that of the body.
fn payload_matches(request: &Request, claim: &Claim) -> Result<(), XmlError> {
    if !claim.signed_headers.iter().any(|name| name == "x-goog-content-sha256") {
        return Ok(());
    }
    let digest: String = Sha256::digest(&request.body)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match request.header("x-goog-content-sha256") {
        Some(value) if value == digest || value == "UNSIGNED-PAYLOAD" => Ok(()),
        _ => Err(XmlError::new(
            StatusCode::BAD_REQUEST,
            "BadDigest",
            "The x-goog-content-sha256 you specified did not match what we received.",
        )),
    }
}
