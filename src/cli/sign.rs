//! `platen sign`: a V4 signed URL from the command line.

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use percent_encoding::percent_decode_str;

use super::Failure;
use super::output::say;
use crate::config::{Environment, SignConfig, parse};
use crate::deliver::sign::{Endpoint, Request, SignError, Style, UNIVERSE_DOMAIN, prepare};
use crate::deliver::{Discovered, NoSigner};
use crate::google::Kind;
use crate::job::is_bucket_name;
use crate::units::duration;

/// Print a V4 signed URL: whoever holds it may do what it says until it ends.
///
/// Example: platen sign gs://out/reports/q3.pdf --ttl 15m --query response-content-type=application%2Fpdf
/// Example: platen sign gs://in/upload.docx --method PUT --header content-type:application/msword
///
/// Who signs: --key-file, else --signer, else SIGNER_SERVICE_ACCOUNT, else the key of the credentials if they hold one,
/// else their own account. All but the keys sign through the IAM Credentials API. The URL is the last line of stdout.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The object, or the bucket. The name is taken as it is, nothing in it is decoded.
    #[arg(value_name = "gs://BUCKET[/OBJECT]", value_parser = target)]
    target: Target,
    /// What the URL is good for.
    #[arg(long, default_value = "GET", ignore_case = true, value_parser = ["GET", "HEAD", "PUT", "POST", "DELETE"])]
    method: String,
    /// For how long: to 12h, with a key to 7d.
    #[arg(long, value_name = "DUR", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
    /// A header that the user of the URL has to send, such as content-type:text/plain. Again for more.
    #[arg(long = "header", value_name = "NAME:VALUE", value_parser = header, allow_hyphen_values = true)]
    headers: Vec<(String, String)>,
    /// A query parameter, name and value percent-encoded, such as prefix=a%2Fb. Again for more.
    #[arg(long, value_name = "NAME=VALUE", value_parser = query, allow_hyphen_values = true)]
    query: Vec<(String, String)>,
    /// Where the bucket stands: in the path, before the host, or nowhere, when the host is the bucket's own.
    #[arg(long, value_enum, default_value_t = StyleName::Path, requires_if("bucket-bound", "hostname"))]
    style: StyleName,
    /// The host, instead of Google's or of STORAGE_EMULATOR_HOST.
    #[arg(long, value_name = "HOST[:PORT]", value_parser = host)]
    hostname: Option<String>,
    /// The scheme [default: https, or that of STORAGE_EMULATOR_HOST].
    #[arg(long, value_parser = ["https", "http"])]
    scheme: Option<String>,
    /// The universe, for its host: storage.DOMAIN [default: that of the credentials, mostly googleapis.com].
    #[arg(long, value_name = "DOMAIN", value_parser = host)]
    universe_domain: Option<String>,
    /// From when on it is good [default: now].
    #[arg(long, value_name = "RFC3339", value_parser = time)]
    at: Option<DateTime<Utc>>,
    /// A service account's key file to sign with; nobody is asked.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The service account to sign as, through the IAM Credentials API.
    #[arg(long, value_name = "EMAIL", conflicts_with = "key_file", value_parser = email)]
    signer: Option<String>,
    /// Print the canonical request and the string to sign on stderr.
    #[arg(long)]
    explain: bool,
}

#[derive(Debug, Clone)]
struct Target {
    bucket: String,
    object: Option<String>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum StyleName {
    Path,
    VirtualHosted,
    BucketBound,
}

impl From<StyleName> for Style {
    fn from(name: StyleName) -> Self {
        match name {
            StyleName::Path => Self::Path,
            StyleName::VirtualHosted => Self::VirtualHosted,
            StyleName::BucketBound => Self::BucketBound,
        }
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = SignConfig::load(&Environment)?;
    super::runtime()?.block_on(sign(arguments, &config))
}

async fn sign(arguments: &Arguments, config: &SignConfig) -> Result<(), Failure> {
    let found = signer(arguments, config).await?;
    let endpoint = endpoint(arguments, config, found.universe_domain.as_deref());
    let request = Request {
        method: &arguments.method.to_ascii_uppercase(),
        bucket: &arguments.target.bucket,
        object: arguments.target.object.as_deref(),
        headers: &arguments.headers,
        query: &arguments.query,
        style: arguments.style.into(),
        endpoint: &endpoint,
        at: arguments.at.unwrap_or_else(Utc::now),
        ttl: arguments.ttl,
    };
    if arguments.explain {
        let unsigned = prepare(&request, found.signer.email()).map_err(refused)?;
        eprintln!("canonical request:\n{}\n", unsigned.canonical_request);
        eprintln!("string to sign:\n{}\n", unsigned.string_to_sign);
    }
    match found.signer.sign(&request).await {
        Ok(signed) => {
            say(signed.url.expose());
            Ok(())
        }
        Err(error @ SignError::Refused(_)) => Err(refused(error)),
        Err(error) => Err(Failure::Work(Some(found.advice(&error).await))),
    }
}

/// What was asked for cannot be signed by anybody.
#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn refused(error: SignError) -> Failure {
    Failure::Usage(Some(error.to_string()))
}

async fn signer(arguments: &Arguments, config: &SignConfig) -> Result<Discovered, Failure> {
    if let Some(file) = &arguments.key_file {
        return Discovered::from_key_file(file).map_err(|message| Failure::Usage(Some(message)));
    }
    let named = arguments.signer.as_deref().or(config.signer_service_account.as_deref());
    let universe = arguments.universe_domain.as_deref();
    let iam = |domain: &str| config.iam_credentials(domain);
    Discovered::from_environment(&config.credentials, universe, iam, named)
        .await
        .map_err(|error| match error {
            NoSigner::NoCredentials => Failure::Usage(Some(
                "nobody can sign: there are no credentials; name a key file with --key-file, set \
                 GOOGLE_APPLICATION_CREDENTIALS, or run 'gcloud auth application-default login'"
                    .to_owned(),
            )),
            // The file that is named is not there, or none.
            NoSigner::Google(error)
                if config.credentials.credentials_file.is_some()
                    && matches!(error.kind, Kind::Invalid | Kind::NotFound) =>
            {
                Failure::Usage(Some(format!("{error}; --signer EMAIL names who signs")))
            }
            NoSigner::Google(error) => Failure::Work(Some(format!("{error}; --signer EMAIL names who signs"))),
        })
}

/// By precedence: --hostname, --universe-domain, `STORAGE_EMULATOR_HOST`, the universe of the credentials, Google's. The
/// emulator's scheme comes with its host, and --scheme beats both.
fn endpoint(arguments: &Arguments, config: &SignConfig, own_universe: Option<&str>) -> Endpoint {
    let found = match (
        &arguments.hostname,
        &arguments.universe_domain,
        &config.storage_emulator,
    ) {
        (Some(host), _, _) => Endpoint {
            scheme: "https".to_owned(),
            host: host.clone(),
        },
        (None, Some(domain), _) => Endpoint::universe(domain),
        (None, None, Some(emulator)) => Endpoint::parse(emulator, "http"),
        (None, None, None) => Endpoint::universe(own_universe.unwrap_or(UNIVERSE_DOMAIN)),
    };
    Endpoint {
        scheme: arguments.scheme.clone().unwrap_or(found.scheme),
        host: found.host,
    }
}

fn target(text: &str) -> Result<Target, String> {
    let Some(rest) = text.strip_prefix("gs://") else {
        return Err("write gs://BUCKET/OBJECT, or gs://BUCKET".to_owned());
    };
    // The first slash ends the bucket; all others are the name's.
    let (bucket, object) = match rest.split_once('/') {
        Some((bucket, object)) => (bucket, Some(object).filter(|object| !object.is_empty())),
        None => (rest, None),
    };
    if !is_bucket_name(bucket) {
        return Err(format!("{bucket:?} is not a bucket's name"));
    }
    if let Some(object) = object.filter(|object| object.len() > 1024) {
        return Err(format!(
            "the object's name has {} bytes, and Cloud Storage takes 1,024",
            object.len()
        ));
    }
    Ok(Target {
        bucket: bucket.to_owned(),
        object: object.map(str::to_owned),
    })
}

fn ttl(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        ttl if ttl.subsec_nanos() == 0 => Ok(ttl),
        _ => Err(format!("is '{text}': write whole seconds")),
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or("write NAME:VALUE, such as content-type:text/plain")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Percent-encoded, so that a name may hold `=` too. A `+` is a plus.
fn query(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    Ok((decoded(name)?, decoded(value)?))
}

fn decoded(text: &str) -> Result<String, String> {
    let hexadecimal = |digits: &str| {
        digits
            .get(..2)
            .is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    if !text.split('%').skip(1).all(hexadecimal) {
        return Err("it has to be percent-encoded: write %25 for a percent sign".to_owned());
    }
    percent_decode_str(text)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| "its percent-encoded bytes are not UTF-8".to_owned())
}

fn host(text: &str) -> Result<String, String> {
    parse::host(text)
        .ok()
        .filter(|host| host.is_ascii())
        .ok_or_else(|| "write HOST or HOST:PORT; the scheme is --scheme's".to_owned())
}

fn time(text: &str) -> Result<DateTime<Utc>, String> {
    DateTime::parse_from_rfc3339(text)
        .map(|time| time.with_timezone(&Utc))
        .map_err(|_| "write it as 2026-11-21T23:06:47Z".to_owned())
}

fn email(text: &str) -> Result<String, String> {
    parse::email(text).map_err(|_| "write a service account's address".to_owned())
}
