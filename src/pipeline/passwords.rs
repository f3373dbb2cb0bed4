//! From the names that jobs give to passwords to what is loaded under them now.
//!
//! The configuration may change at any time: where what is loaded does not do, it is looked at again before a job is
//! told so. A name that it does not have even then is the job's mistake (`option.invalid`), as an object that is not
//! there is; while it cannot be looked at, nobody knows whose, and the job waits.

use tokio::time::Instant;

use super::Context;
use crate::convert::{self, ConvertedFile, Document, OutputPasswords, Wanted};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step, Stop};
use crate::google::secret::Secret;
use crate::job::{OptionValue, Options, SecretName};
use crate::secrets::Secrets;

/// Fills in what the names among an output's options stand for. Of several passwords the first protects: the one that
/// is tried first, too.
pub(super) async fn of_output(secrets: &Secrets, options: &Options) -> Step<OutputPasswords> {
    let mut passwords = OutputPasswords::default();
    for (option, value) in options.iter() {
        if let OptionValue::Secret(name) = value {
            let password = named(secrets, option, name).await?.into_iter().next();
            match option {
                "userPassword" => passwords.user = password,
                _ => passwords.owner = password,
            }
        }
    }
    Ok(passwords)
}

/// Converts a document, with the passwords that the job names for it. One that none of them opens is tried again when
/// the configuration has others by now. What could end after `deadline` is not begun.
pub(super) async fn convert_with(
    context: &Context,
    name: &str,
    document: &mut Document,
    password: Option<&SecretName>,
    outputs: &[Wanted],
    deadline: Instant,
) -> Step<Vec<ConvertedFile>> {
    let (engine, deadline) = (&context.engine, Some(deadline));
    let Some(secret) = password else {
        return convert::run(engine, &context.limits, name, document, &[], outputs, deadline).await;
    };
    let passwords = named(&context.secrets, "password", secret).await?;
    let started = Instant::now();
    let first = convert::run(engine, &context.limits, name, document, &passwords, outputs, deadline).await;
    let wrong =
        |stop: &Stop| matches!(stop, Stop::Failed(failure) if failure.code == FailureCode::DocumentWrongPassword);
    match first {
        Err(stop) if wrong(&stop) => {
            let spent = started.elapsed();
            reload(&context.secrets, secret).await?;
            let now = named(&context.secrets, "password", secret).await?;
            let others: Vec<Secret> = now
                .into_iter()
                .filter(|password| !passwords.contains(password))
                .collect();
            if others.is_empty() {
                return Err(stop);
            }
            // Both tries together have the time of one. What the look at the configuration took is not the document's: a
            // slow answer of Google's must not be reported as a document that takes too long.
            let mut limits = context.limits;
            limits.time = limits.time.saturating_sub(spent);
            convert::run(engine, &limits, name, document, &others, outputs, deadline).await
        }
        done => done,
    }
}

async fn named(secrets: &Secrets, option: &str, name: &SecretName) -> Step<Vec<Secret>> {
    let loaded = || {
        secrets
            .passwords(name.as_str())
            .filter(|passwords| !passwords.is_empty())
    };
    if let Some(passwords) = loaded() {
        return Ok(passwords);
    }
    reload(secrets, name).await?;
    loaded().ok_or_else(|| {
        Failure::new(
            FailureCode::OptionInvalid,
            format!(
                "{option:?} names the password {:?}, and the worker's configuration has none of that name: add it under \"passwords\", or correct the name.",
                name.as_str()
            ),
        )
        .with("option", option)
        .with("secret", name.as_str())
        .into()
    })
}

async fn reload(secrets: &Secrets, name: &SecretName) -> Result<(), Refusal> {
    match secrets.reload().await {
        Ok(_) => Ok(()),
        Err(reason) => Err(Refusal::new(
            RefusalKind::Unavailable,
            format!(
                "the password {:?} does not do, and whether there is another cannot be told: {reason}",
                name.as_str()
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::json;

    use super::*;
    use crate::job::Format;

    fn secrets() -> Secrets {
        let list = |values: &[&str]| values.iter().map(|value| Secret::new(*value)).collect();
        Secrets::of_passwords(HashMap::from([
            ("rotated".to_owned(), list(&["new", "old"])),
            ("emptied".to_owned(), list(&[])),
        ]))
    }

    fn options(name: &str) -> Options {
        let given = json!({"userPassword": {"secret": name}});
        Options::parse(Format::Pdf, given.as_object().unwrap()).unwrap()
    }

    #[tokio::test]
    async fn the_first_of_several_protects() {
        let passwords = of_output(&secrets(), &options("rotated")).await.unwrap();
        assert_eq!(passwords.user, Some(Secret::new("new")));
        assert_eq!(passwords.owner, None);
    }

    #[tokio::test]
    async fn a_name_without_a_password_never_leaves_a_pdf_open() {
        for name in ["emptied", "unknown"] {
            let stop = of_output(&secrets(), &options(name)).await.unwrap_err();
            assert!(
                matches!(&stop, Stop::Failed(failure) if failure.code == FailureCode::OptionInvalid),
                "{stop:?}"
            );
        }
    }
}
