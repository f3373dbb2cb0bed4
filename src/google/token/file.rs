//! Credentials files: which kind they are, what goes with every kind, and which URLs in them are called.
//!
//! A credentials file decides where tokens are sent and may name a program to run, so it is to be trusted like a
//! program: Google says so for federation files that come from somebody else
//! (cloud.google.com/docs/authentication/external/externally-sourced-credentials). What is checked here keeps mistakes and
//! clumsy forgeries out: tokens travel encrypted, and those of a federation only to the universe that the file names.

use reqwest::Url;
use serde::Deserialize;

use super::impersonated::ImpersonatedFile;
use super::{About, DISCOVER, Settings, Source, Tokens, UNIVERSE_DOMAIN, external, service_account, user};
use crate::google::http::Http;
use crate::google::{Error, Kind};

#[derive(Deserialize)]
struct Typed {
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Common {
    quota_project_id: Option<String>,
    universe_domain: Option<String>,
}

/// Reads a credentials file of any kind; an impersonation file holds another one inside.
pub(super) fn read(http: &Http, settings: &Settings, text: &[u8], shown: &str) -> Result<Tokens, Error> {
    let Typed { kind } = serde_json::from_slice(text).map_err(|_| {
        refused(
            shown,
            "is no credentials file: it has to be a JSON object with a `type`",
        )
    })?;
    let common: Common = fields(text, shown)?;
    let universe = common.universe_domain.filter(|domain| !domain.is_empty());
    let universe = universe.unwrap_or_else(|| UNIVERSE_DOMAIN.to_owned());
    if !is_domain(&universe) {
        return Err(refused(shown, "names a universe_domain that is no domain"));
    }
    let quota_project = common.quota_project_id.filter(|id| !id.is_empty());
    if quota_project.as_deref().is_some_and(|id| !is_project(id)) {
        return Err(refused(shown, "names a quota_project_id that is no project"));
    }
    let context = Context {
        http,
        settings,
        shown,
        universe: &universe,
    };
    let (source, kind) = match kind.as_str() {
        "service_account" => {
            let source = service_account::ServiceAccount::new(&context, text)?;
            (Source::ServiceAccount(source), "service_account")
        }
        "authorized_user" => (Source::User(user::User::new(&context, text)?), "authorized_user"),
        "impersonated_service_account" => {
            let source = ImpersonatedFile::read(&context, text)?;
            (Source::Impersonated(Box::new(source)), "impersonated_service_account")
        }
        "external_account" => (external::read(&context, text)?, "external_account"),
        other => {
            let other: String = other.chars().filter(|c| !c.is_control()).take(40).collect();
            return Err(refused(
                shown,
                format!(
                    "holds credentials of type {other}, which Platen cannot use; use one of service_account, \
                     authorized_user, impersonated_service_account, external_account or the metadata server"
                ),
            ));
        }
    };
    let about = About {
        described: format!("{kind} in {shown}"),
        quota_project,
        universe_domain: Some(universe.clone()),
    };
    Ok(Tokens::new(http, settings, source, about))
}

/// What every kind is read with.
pub(super) struct Context<'a> {
    pub(super) http: &'a Http,
    pub(super) settings: &'a Settings,
    /// The file, as errors name it.
    pub(super) shown: &'a str,
    pub(super) universe: &'a str,
}

impl Context<'_> {
    pub(super) fn refused(&self, message: impl Into<String>) -> Error {
        refused(self.shown, message)
    }

    /// A URL of the file that gets a secret: encrypted, or on this machine.
    pub(super) fn url(&self, field: &str, text: &str) -> Result<Url, Error> {
        self.url_or(field, text, |_| false)
    }

    /// The same, or whatever else `plain` allows to be reached without encryption.
    pub(super) fn url_or(&self, field: &str, text: &str, plain: impl Fn(&Url) -> bool) -> Result<Url, Error> {
        let url = Url::parse(text).ok().filter(|url| {
            url.username().is_empty() && url.password().is_none() && url.fragment().is_none() && url.has_host()
        });
        match url {
            Some(url) if url.scheme() == "https" || url.scheme() == "http" && (is_loopback(&url) || plain(&url)) => {
                Ok(url)
            }
            _ => Err(self.refused(format!(
                "its {field} is no URL that a secret may be sent to: https://, or http:// on this machine"
            ))),
        }
    }

    /// A URL of Google's own in the file's universe, or on this machine: nobody else can serve it.
    pub(super) fn url_of_google(&self, field: &str, text: &str) -> Result<Url, Error> {
        let url = self.url(field, text)?;
        let host = url.host_str().unwrap_or_default();
        let own = host
            .strip_suffix(self.universe)
            .is_some_and(|before| before.ends_with('.'));
        if own || is_loopback(&url) {
            return Ok(url);
        }
        Err(self.refused(format!(
            "its {field} is not a host of {}, so no token is sent there; where that is a private endpoint of your own, \
             name it in STS_ENDPOINT or IAM_CREDENTIALS_ENDPOINT instead",
            self.universe
        )))
    }
}

fn refused(shown: &str, message: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, DISCOVER, shown, message)
}

fn is_loopback(url: &Url) -> bool {
    match url.host_str() {
        Some("localhost") => true,
        Some(host) => host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback()),
        None => false,
    }
}

pub(super) fn is_domain(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    text.len() <= 253 && text.contains('.') && text.split('.').all(part)
}

/// Whether this can stand in a header; whether it is a project, Google knows.
fn is_project(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte))
}

/// Reads the fields of one kind, naming the file and never its content.
pub(super) fn fields<'a, T: Deserialize<'a>>(text: &'a [u8], shown: &str) -> Result<T, Error> {
    serde_json::from_slice(text).map_err(|error| {
        // Of serde's messages only those about missing fields are free of the file's values.
        let why = match error.to_string() {
            message if message.starts_with("missing field") => message,
            _ => format!(
                "a field is not as expected at line {} column {}",
                error.line(),
                error.column()
            ),
        };
        refused(shown, format!("is not a complete credentials file: {why}"))
    })
}

/// The endpoint to call: the one that is named, or the one that was given in its place. A base URL without a path gets
/// the path of the one it replaces.
pub(super) fn endpoint(given: Option<&str>, named: &str) -> String {
    let Some(given) = given else {
        return named.to_owned();
    };
    let path = |url: &str| {
        url.split_once("://")
            .and_then(|(_, rest)| rest.find('/').map(|at| rest[at..].to_owned()))
    };
    match path(given).as_deref() {
        None | Some("/") => format!(
            "{}{}",
            given.trim_end_matches('/'),
            path(named).unwrap_or_else(|| "/token".into())
        ),
        Some(_) => given.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_travels_encrypted_or_not_at_all() {
        let http = Http::new().unwrap();
        let context = Context {
            http: &http,
            settings: &Settings::default(),
            shown: "f",
            universe: "googleapis.com",
        };
        for good in [
            "https://oauth2.googleapis.com/token",
            "http://127.0.0.1:9/token",
            "http://[::1]:9/t",
            "http://localhost/t",
        ] {
            assert!(context.url("token_uri", good).is_ok(), "{good}");
        }
        for bad in [
            "http://oauth2.googleapis.com/token",
            "http://127.0.0.1.evil.example/t",
            "http://localhost.evil.example/t",
            "https://user:pass@oauth2.googleapis.com/token",
            "ftp://localhost/t",
            "file:///etc/passwd",
            "/token",
            "",
        ] {
            assert!(context.url("token_uri", bad).is_err(), "{bad}");
        }
        assert!(
            context
                .url_of_google("token_url", "https://sts.us-east1.rep.googleapis.com/v1/token")
                .is_ok()
        );
        for bad in [
            "https://sts.googleapis.com.evil.example/v1/token",
            "https://evilgoogleapis.com/v1/token",
            "https://googleapis.com/v1/token",
        ] {
            let error = context.url_of_google("token_url", bad).unwrap_err().to_string();
            assert!(!error.contains("evil"), "{error}");
        }
    }

    #[test]
    fn a_base_url_keeps_the_path_of_what_it_replaces() {
        let named = "https://sts.googleapis.com/v1/token";
        assert_eq!(endpoint(None, named), named);
        assert_eq!(endpoint(Some("http://h:1"), named), "http://h:1/v1/token");
        assert_eq!(endpoint(Some("http://h:1/"), named), "http://h:1/v1/token");
        assert_eq!(endpoint(Some("http://h:1/own"), named), "http://h:1/own");
    }
}
