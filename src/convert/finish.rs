//! The options that are not LibreOffice's: what is done to a PDF after it was written.

use super::run::Wanted;
use crate::engine::{Changes, Finish, Password, Permissions, Printing, Protection};
use crate::error::{Failure, FailureCode, Refusal, RefusalKind, Step};
use crate::google::secret::Secret;
use crate::job::OptionValue;

/// Their names.
const OPTIONS: [&str; 6] = [
    "userPassword",
    "ownerPassword",
    "permitPrinting",
    "permitChanges",
    "permitCopying",
    "reproducible",
];

/// What the passwords of one output stand for: the values, where its options have the names.
#[derive(Debug, Clone, Default)]
pub struct OutputPasswords {
    /// Of `userPassword`.
    pub user: Option<Secret>,
    /// Of `ownerPassword`.
    pub owner: Option<Secret>,
}

/// Whether an option is one of these.
pub(super) fn is_ours(option: &str) -> bool {
    OPTIONS.contains(&option)
}

/// What an output's options ask for.
///
/// # Errors
/// `option.invalid`: a password that no reader of PDFs takes, or one that would lift its own restrictions.
pub(super) fn finish(wanted: &Wanted) -> Step<Option<Finish>> {
    let option = |name: &str| {
        wanted
            .options
            .iter()
            .find(|(option, _)| *option == name)
            .map(|(_, value)| value)
    };
    let word = |name: &str| match option(name) {
        Some(OptionValue::Text(word)) => word.as_str(),
        _ => "",
    };
    let user = password("userPassword", option("userPassword"), wanted.passwords.user.as_ref())?;
    let owner = password(
        "ownerPassword",
        option("ownerPassword"),
        wanted.passwords.owner.as_ref(),
    )?;
    if user.is_none() && owner.is_none() {
        let reproducible = option("reproducible") == Some(&OptionValue::Switch(true));
        return Ok(reproducible.then_some(Finish::Reproducible));
    }
    let same = match (&user, &owner) {
        (Some(user), Some(owner)) => user.protects_as(owner),
        _ => false,
    };
    if same {
        return Err(Failure::new(
            FailureCode::OptionInvalid,
            "The options \"userPassword\" and \"ownerPassword\" stand for the same password: who opens the PDF would be its owner. Give each its own, or leave one out.",
        )
        .with("option", "ownerPassword")
        .with("other", "userPassword")
        .into());
    }
    Ok(Some(Finish::Protected(Protection {
        user,
        owner,
        permissions: Permissions {
            printing: match word("permitPrinting") {
                "none" => Printing::None,
                "low" => Printing::Low,
                _ => Printing::High,
            },
            changes: match word("permitChanges") {
                "none" => Changes::None,
                "pages" => Changes::Pages,
                "forms" => Changes::Forms,
                "comments" => Changes::Comments,
                _ => Changes::All,
            },
            copying: option("permitCopying").is_none(),
        },
    })))
}

/// The value of a password that is asked for. One without a value would leave the PDF open.
fn password(name: &str, option: Option<&OptionValue>, value: Option<&Secret>) -> Step<Option<Password>> {
    match (option, value) {
        (None, _) => Ok(None),
        (Some(_), None) => Err(Refusal::new(RefusalKind::Bug, format!("{name} was not looked up")).into()),
        (Some(_), Some(value)) => {
            let password = Password::new(value.expose());
            if password.protects_pdfs() {
                return Ok(Some(password));
            }
            Err(Failure::new(
                FailureCode::OptionInvalid,
                format!("The password of the option {name:?} protects no PDF: it takes 1 to 127 bytes of UTF-8, without control characters, mixed directions of writing, and what Unicode has only since 2002, as emoji (RFC 4013)."),
            )
            .with("option", name)
            .into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stop;
    use crate::job::{Format, Options};

    fn wanted(options: &str, user: Option<&str>, owner: Option<&str>) -> Wanted {
        Wanted {
            format: Format::Pdf,
            options: Options::parse(Format::Pdf, &serde_json::from_str(options).unwrap()).unwrap(),
            passwords: OutputPasswords {
                user: user.map(Secret::new),
                owner: owner.map(Secret::new),
            },
        }
    }

    const BOTH: &str = r#"{"userPassword": {"secret": "u"}, "ownerPassword": {"secret": "o"}}"#;

    #[test]
    fn what_cannot_protect_is_refused_and_nothing_is_passed_on_open() {
        // The fourth is the same to every reader: a ligature is its letters.
        let long = "x".repeat(128);
        for (user, owner) in [
            ("same", "same"),
            ("", "x"),
            ("a\u{0}b", "x"),
            ("\u{fb01}t", "fit"),
            ("\u{1f600}", "x"),
            ("\u{5d0}1", "x"),
            (&long, "x"),
        ] {
            let stop = finish(&wanted(BOTH, Some(user), Some(owner))).unwrap_err();
            assert!(matches!(stop, Stop::Failed(failure) if failure.code == FailureCode::OptionInvalid));
        }
        let stop = finish(&wanted(BOTH, None, Some("x"))).unwrap_err();
        assert!(matches!(stop, Stop::Refused(_)));
        assert!(finish(&wanted("{}", None, None)).unwrap().is_none());
    }

    #[test]
    fn every_option_here_is_an_option() {
        for name in OPTIONS {
            let given = [(name.to_owned(), serde_json::Value::Null)].into_iter().collect();
            let failure = Options::parse(Format::Pdf, &given).unwrap_err();
            assert!(failure.message.contains("takes"), "{failure}");
        }
    }
}
