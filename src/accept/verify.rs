//! Who sent this request: an OIDC ID token in `Authorization`, checked claim by claim.
//!
//! The rules are RFC 8725's, narrowed to what Google issues: RS256, one issuer, an exact audience, an exact and verified
//! address. Whatever proves nothing is refused in the same words; only a good token of somebody else is told apart.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::verified::{Known, Times, Verified};
use crate::error::{Refusal, RefusalKind};
use crate::google::keys::{KeyError, KeySet, PublicKey};

/// What Cloud Run puts in the place of the signature once it has checked it.
/// Source: cloud.google.com/run/docs/troubleshooting#signature-removed.
const REMOVED_SIGNATURE: &str = "SIGNATURE_REMOVED_BY_GOOGLE";
/// Cloud Run checks this header instead of `Authorization` when both are there, so the other one is unchecked.
const UNCHECKED: &str = "x-serverless-authorization";
/// Google's are 40 characters.
const KEY_ID_LIMIT: usize = 256;
const ISSUERS: [&str; 2] = ["https://accounts.google.com", "accounts.google.com"];
/// Header fields that bring their own key or change what is signed.
const FORBIDDEN_HEADERS: [&str; 7] = ["crit", "b64", "jwk", "jku", "x5u", "x5c", "zip"];

/// Who has checked the token's signature (`PUSH_AUTH`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Nobody but us.
    Oidc,
    /// The platform in front of us, which then removes the signature. Only ever chosen by configuration: on a service
    /// that is open to all, anybody can send a token with a removed signature.
    CloudRunIam,
}

/// Whose tokens are good.
#[derive(Debug, Clone)]
pub struct VerifyRules {
    /// Who checks the signature.
    pub mode: Mode,
    /// Accepted `aud`, exact.
    pub audiences: Vec<String>,
    /// Accepted `email`, exact.
    pub emails: Vec<String>,
}

/// A caller that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The service account's address.
    pub email: String,
    /// Its unique id.
    pub subject: String,
}

/// Finds out who sends requests.
pub struct Verifier {
    rules: VerifyRules,
    keys: KeySet,
    verified: Verified,
}

impl Verifier {
    /// Accepts what these rules say, proved by these keys.
    pub fn new(rules: VerifyRules, keys: KeySet) -> Self {
        Self {
            rules,
            keys,
            verified: Verified::new(),
        }
    }

    /// Finds out who sent a request with these headers. A token that has been verified before is looked up: it costs a
    /// hash, and its key and its times are checked again.
    ///
    /// # Errors
    /// `Unauthenticated` for a token that is missing or proves nothing (the message is for the log only), `WrongCaller`
    /// for a good token of another audience or account, `Unavailable` when the keys cannot be had.
    pub async fn verify(&self, headers: &HeaderMap, now: DateTime<Utc>) -> Result<Caller, Refusal> {
        if self.rules.mode == Mode::CloudRunIam && headers.contains_key(UNCHECKED) {
            return Err(unauthenticated(
                "X-Serverless-Authorization is there, so the platform has not checked Authorization",
            ));
        }
        let text = bearer(headers).map_err(unauthenticated)?;
        let digest = Verified::digest(text);
        if let Some(known) = self.verified.get(&digest)
            && known.times.check(now.timestamp()).is_ok()
            && self.key(&known.key_id).await? == known.key
        {
            return Ok(known.caller.clone());
        }
        let token = Token::parse(text).map_err(unauthenticated)?;
        let removed = self.rules.mode == Mode::CloudRunIam && token.signature == REMOVED_SIGNATURE;
        let key = if removed {
            None
        } else {
            Some(self.check_signature(&token).await?)
        };
        let claims: Claims = serde_json::from_value(token.claims)
            .map_err(|_| unauthenticated("a claim is missing or of the wrong type"))?;
        check_issue(&claims).map_err(unauthenticated)?;
        let times = claims.times;
        times.check(now.timestamp()).map_err(unauthenticated)?;
        let caller = check_caller(claims, &self.rules)?;
        // A token whose signature was not ours to check is not remembered: nothing about it was costly.
        if let Some(key) = key {
            let known = Known {
                key_id: token.key_id,
                key,
                times,
                caller: caller.clone(),
            };
            self.verified.insert(digest, known, now.timestamp());
        }
        Ok(caller)
    }

    /// How many verified tokens are remembered now.
    pub fn remembered(&self) -> usize {
        self.verified.len()
    }

    async fn key(&self, key_id: &str) -> Result<PublicKey, Refusal> {
        self.keys.key(key_id).await.map_err(|error| match error {
            KeyError::Unknown => unauthenticated("the token's key is not one of the issuer's"),
            KeyError::Unavailable(error) => Refusal {
                retry_after: error.retry_after,
                ..Refusal::new(
                    RefusalKind::Unavailable,
                    format!("the keys that verify tokens are not available: {error}"),
                )
            },
        })
    }

    /// The key whose signature it is.
    async fn check_signature(&self, token: &Token<'_>) -> Result<PublicKey, Refusal> {
        let key = self.key(&token.key_id).await?;
        // Without padding and without stray bits: one signature has one spelling.
        let signature = URL_SAFE_NO_PAD.decode(token.signature).unwrap_or_default();
        if key.verifies(token.signed.as_bytes(), &signature) {
            Ok(key)
        } else {
            Err(unauthenticated("the token's signature is wrong"))
        }
    }
}

fn unauthenticated(why: &'static str) -> Refusal {
    Refusal::new(RefusalKind::Unauthenticated, why)
}

/// The one bearer token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<&str, &'static str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err("there is not exactly one Authorization header");
    };
    let value = value.to_str().map_err(|_| "the Authorization header is not ASCII")?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token),
        _ => Err("the Authorization header is not `Bearer TOKEN`"),
    }
}

/// A JWS in compact form with an acceptable header. Nothing in it is proved yet.
struct Token<'a> {
    signed: &'a str,
    signature: &'a str,
    key_id: String,
    claims: Value,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Result<Self, &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("the token does not have three parts")?;
        let (head, claims) = signed.split_once('.').ok_or("the token does not have three parts")?;
        // Base64url has no dot, so a fourth part fails here.
        let mut head = object(head).ok_or("the token's header is not base64url of a JSON object without duplicates")?;
        let claims =
            object(claims).ok_or("the token's claims are not base64url of a JSON object without duplicates")?;
        if head.get("alg").and_then(Value::as_str) != Some("RS256") {
            return Err("the token's algorithm is not RS256");
        }
        if head
            .get("typ")
            .is_some_and(|typ| !typ.as_str().is_some_and(|typ| typ.eq_ignore_ascii_case("jwt")))
        {
            return Err("the token's type is not JWT");
        }
        if FORBIDDEN_HEADERS.iter().any(|name| head.contains_key(*name)) {
            return Err("the token's header brings its own key or extensions");
        }
        let Some(Value::String(key_id)) = head.remove("kid") else {
            return Err("the token names no key");
        };
        if key_id.is_empty() || key_id.len() > KEY_ID_LIMIT {
            return Err("the token's key id is empty or too long");
        }
        Ok(Self {
            signed,
            signature,
            key_id,
            claims: Value::Object(claims.into_iter().collect()),
        })
    }
}

/// The claims that count. Times are whole seconds, as Google writes them: a text or a fraction is refused.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    sub: String,
    #[serde(flatten)]
    times: Times,
    email: String,
    email_verified: bool,
}

/// RFC 7519 allows both forms. With several audiences the token could be used elsewhere too, so one is the most.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    List([String; 1]),
}

/// Issued by Google, for somebody.
fn check_issue(claims: &Claims) -> Result<(), &'static str> {
    if !ISSUERS.contains(&claims.iss.as_str()) {
        return Err("the token's issuer is not Google");
    }
    if !claims.email_verified {
        return Err("the token's email is not verified, so it names nobody");
    }
    Ok(())
}

/// Meant for us, and from an account that may call us.
fn check_caller(claims: Claims, rules: &VerifyRules) -> Result<Caller, Refusal> {
    let wrong = |why: &str| Err(Refusal::new(RefusalKind::WrongCaller, why));
    let (Audience::One(audience) | Audience::List([audience])) = claims.aud;
    if !rules.audiences.contains(&audience) {
        return wrong("the token is for another audience than PUSH_AUDIENCE");
    }
    if !rules.emails.contains(&claims.email) {
        return wrong("the token is of another account than PUSH_SERVICE_ACCOUNT");
    }
    Ok(Caller {
        email: claims.email,
        subject: claims.sub,
    })
}

/// A part of a token as the JSON object that it has to be.
fn object(part: &str) -> Option<BTreeMap<String, Value>> {
    let json = URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice::<Unique>(&json).ok().map(|object| object.0)
}

/// A JSON object in which no name comes twice: other readers of the same token could take the other value.
struct Unique(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = BTreeMap<String, Value>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = BTreeMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(de::Error::custom("a name comes twice"));
                    }
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Self)
    }
}
