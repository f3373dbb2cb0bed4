//! `platen token`: an OIDC ID token from whatever credentials are there.

use super::Failure;
use super::cloud::{self, Cloud};
use super::output::say;

/// Print an OIDC ID token, for a private service or for anybody who trusts Google's.
///
/// Example: curl -H "Authorization: Bearer $(platen token --audience https://worker-abc.a.run.app --include-email)" ...
/// Example: platen token --audience https://worker-abc.a.run.app --impersonate caller@p.iam.gserviceaccount.com
///
/// Uses Application Default Credentials: GOOGLE_APPLICATION_CREDENTIALS, gcloud's, or the metadata server. Of a user's or
/// a federated identity's own, Google makes no token for an audience: name a service account with --impersonate.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// Whom the token is for; a private Cloud Run service takes its own URL.
    #[arg(long, value_name = "URL", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    audience: String,
    /// With the account's address in the token, where it is not there anyway.
    #[arg(long)]
    include_email: bool,
    /// As this service account, on which the credentials need roles/iam.serviceAccountOpenIdTokenCreator.
    #[arg(long, value_name = "EMAIL")]
    impersonate: Option<String>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = cloud::configure()?;
    super::runtime()?.block_on(async {
        let cloud = Cloud::connect(config).await?;
        let tokens = cloud.tokens_as(arguments.impersonate.as_deref()).await?;
        let token = tokens
            .id_token(&arguments.audience, arguments.include_email)
            .await
            .map_err(cloud::work)?;
        say(token.expose());
        Ok(())
    })
}
