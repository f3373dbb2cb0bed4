//! Where a federation file says the subject token is: in a file, at a URL, or what a program prints.

use std::path::PathBuf;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::file::Context;
use super::executable::{Executable, ExecutableFile};
use crate::google::http::{self, Http};
use crate::google::secret::Secret;
use crate::google::{Error, Kind};

const OPERATION: &str = "read the subject token";
/// SAML assertions with many attributes stay far below.
const LIMIT: usize = 1024 * 1024;

/// Without one of these, Google's metadata server gives nothing. With them, a file that names another universe would
/// have the machine's own access token sent there, and no federation needs it: a machine of Google's has an account.
/// Source: cloud.google.com/compute/docs/metadata/querying-metadata.
const OF_GOOGLES_METADATA: [&str; 2] = ["metadata-flavor", "x-google-metadata-request"];

#[derive(Deserialize)]
pub(super) struct CredentialSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: std::collections::BTreeMap<String, Secret>,
    executable: Option<ExecutableFile>,
    #[serde(default)]
    format: Format,
    environment_id: Option<String>,
    certificate: Option<IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Format {
    #[default]
    Text,
    Json {
        subject_token_field_name: String,
    },
}

/// For whom the subject token is.
pub(super) struct Subject<'a> {
    pub(super) audience: &'a str,
    pub(super) token_type: &'a str,
    /// The service account that is impersonated in the end.
    pub(super) account: Option<&'a str>,
}

/// Who gives the token, asked anew for every exchange: these tokens are short-lived.
pub(super) enum SubjectToken {
    File {
        path: PathBuf,
        format: FormatOf,
    },
    Url {
        url: Url,
        headers: HeaderMap,
        format: FormatOf,
    },
    Executable(Executable),
}

/// The field that holds the token; none where all of the text is the token.
pub(super) type FormatOf = Option<String>;

impl CredentialSource {
    pub(super) fn read(self, context: &Context<'_>, subject: &Subject<'_>) -> Result<SubjectToken, Error> {
        if self.environment_id.is_some() {
            return Err(context.refused(
                "is for a workload on AWS by its signed requests, which Platen does not make: use a file, url or \
                 executable source (on EKS the pod's own OIDC token in a file), or a service account",
            ));
        }
        if self.certificate.is_some() {
            return Err(context.refused(
                "is for a workload with an X.509 certificate, which Platen does not present: use a file, url or \
                 executable source",
            ));
        }
        let format = match self.format {
            Format::Text => None,
            Format::Json {
                subject_token_field_name,
            } => Some(subject_token_field_name),
        };
        match (self.file, self.url, self.executable) {
            (Some(path), None, None) => Ok(SubjectToken::File { path, format }),
            (None, Some(url), None) => {
                // Azure's metadata server, which gives the tokens of machines there, has no certificate.
                let url = context.url_or("credential_source.url", &url, is_link_local)?;
                let headers = headers(&self.headers)
                    .ok_or_else(|| context.refused("has credential_source.headers that cannot be sent"))?;
                if OF_GOOGLES_METADATA.iter().any(|name| headers.contains_key(*name)) {
                    return Err(context.refused(
                        "asks Google's metadata server for its token, which is this machine's own: remove the \
                         credentials file, and the machine's account is used",
                    ));
                }
                Ok(SubjectToken::Url { url, headers, format })
            }
            (None, None, Some(executable)) => Ok(SubjectToken::Executable(executable.read(context, subject)?)),
            _ => Err(context.refused("needs one of file, url and executable in its credential_source")),
        }
    }
}

impl SubjectToken {
    pub(super) async fn get(&self, http: &Http) -> Result<Secret, Error> {
        match self {
            Self::File { path, format } => {
                let shown = path.display().to_string();
                let text = tokio::fs::read(path).await.map_err(|error| {
                    let message = format!("cannot be read ({error}); see the credential_source of the credentials");
                    Error::new(Kind::Invalid, OPERATION, shown.clone(), message)
                })?;
                token(&text, format.as_deref(), &shown)
            }
            Self::Url { url, headers, format } => {
                // Without its query: that may be a secret.
                let shown = format!("{}{}", url.origin().ascii_serialization(), url.path());
                let request = http.request(Method::GET, url.as_str()).headers(headers.clone());
                let response = http::send(OPERATION, &shown, request).await?;
                let text = http::body(OPERATION, &shown, response, LIMIT).await?;
                token(&text, format.as_deref(), &shown)
            }
            Self::Executable(executable) => executable.run().await,
        }
    }
}

fn token(text: &[u8], field: Option<&str>, shown: &str) -> Result<Secret, Error> {
    let found = match field {
        None => std::str::from_utf8(text).ok().map(|text| text.trim().to_owned()),
        Some(field) => serde_json::from_slice::<serde_json::Value>(text)
            .ok()
            .and_then(|json| json[field].as_str().map(str::to_owned)),
    };
    found.filter(|token| !token.is_empty()).map(Secret::new).ok_or_else(|| {
        let message = match field {
            None => "holds no text that could be a token".to_owned(),
            Some(field) => format!("is no JSON object with a token in {field:?}"),
        };
        Error::new(Kind::Invalid, OPERATION, shown, message)
    })
}

fn headers(given: &std::collections::BTreeMap<String, Secret>) -> Option<HeaderMap> {
    let header = |(name, value): (&String, &Secret)| {
        let mut value = HeaderValue::from_str(value.expose()).ok()?;
        value.set_sensitive(true);
        Some((name.parse::<HeaderName>().ok()?, value))
    };
    given.iter().map(header).collect()
}

fn is_link_local(url: &Url) -> bool {
    url.host_str()
        .and_then(|host| host.parse::<std::net::Ipv4Addr>().ok())
        .is_some_and(|address| address.is_link_local())
}
