//! Whose rights are tried, and from where they come.

use super::patient::Reach;
use super::report::{Line, State};
use crate::google::token::{Settings, Tokens};

/// Whose identity it is, and from where.
pub(super) fn described(reach: &Reach) -> String {
    match &reach.tokens {
        Some(tokens) => format!("checking as {}, from {}", reach.member, tokens.source()),
        None => "checking without credentials, of which emulators ask for none".to_owned(),
    }
}

/// Whether it gets a token at all, and what about it should be otherwise. Without a token nothing else can be tried.
pub(super) async fn lines(reach: &Reach, credentials: &Settings) -> (Vec<Line>, bool) {
    let Some(tokens) = &reach.tokens else {
        return (Vec::new(), true);
    };
    let what = "get an access token";
    if let Err(error) = reach.within(tokens.source(), tokens.access_token()).await {
        return (vec![Line::new(State::Wrong, what, error.to_string())], false);
    }
    let mut lines = vec![Line::good(what)];
    if is_default(&reach.member) {
        lines.push(Line::new(
            State::Warning,
            "the worker's account",
            "it is the project's default one, which in most projects may edit all of it, and is shared with \
             everything else there: give the worker an account of its own, as deploy/setup.sh does",
        ));
    }
    if holds_key(reach) && on_google_cloud(reach, credentials).await {
        lines.push(Line::new(
            State::Warning,
            "the worker's key file",
            "this machine has an identity without one, of the metadata server: unset GOOGLE_APPLICATION_CREDENTIALS, \
             let the service run as the account, and delete the key",
        ));
    }
    (lines, true)
}

/// Compute Engine's, and App Engine's.
fn is_default(member: &str) -> bool {
    member.ends_with("-compute@developer.gserviceaccount.com") || member.ends_with("@appspot.gserviceaccount.com")
}

fn holds_key(reach: &Reach) -> bool {
    reach
        .cloud
        .tokens
        .as_ref()
        .is_some_and(|tokens| tokens.local_key().is_some())
}

/// Whether there would be credentials without any file.
async fn on_google_cloud(reach: &Reach, credentials: &Settings) -> bool {
    let without_files = Settings {
        credentials_file: None,
        well_known_file: None,
        ..credentials.clone()
    };
    let Ok(Some(tokens)) = Tokens::discover(reach.http.clone(), &without_files).await else {
        return false;
    };
    // Where a host is set, it is taken to be there.
    reach.within(tokens.source(), tokens.email()).await.is_ok()
}
