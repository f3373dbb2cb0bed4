//! ID tokens: who we are, signed by Google, for one audience. Not every kind of credentials may have one for any
//! audience; where Google gives none, the error says what to do instead.

use super::impersonated::Impersonated;
use super::{Source, Tokens};
use crate::google::retry::{self, Budget, Idempotency};
use crate::google::secret::Secret;
use crate::google::{Error, Kind};

const OPERATION: &str = "get an ID token";
/// The role that lets one identity have another account's ID tokens, and nothing else of it.
const ROLE: &str = "roles/iam.serviceAccountOpenIdTokenCreator";

impl Tokens {
    /// An ID token for `audience`, with our address in it when `include_email` (a key file's has it always). Not
    /// cached: it is good for an hour, and who uses it for longer asks again.
    ///
    /// # Errors
    /// `Invalid` for credentials that Google gives no such token, with the flag or role that makes it possible;
    /// `Forbidden` when we may not act as the account, with the command that grants it.
    pub async fn id_token(&self, audience: &str, include_email: bool) -> Result<Secret, Error> {
        retry::run(&Budget::default(), Idempotency::Always, || {
            self.ask(audience, include_email)
        })
        .await
    }

    async fn ask(&self, audience: &str, include_email: bool) -> Result<Secret, Error> {
        match &self.0.source {
            Source::Metadata(source) => match source.id_token(audience, include_email).await {
                // What Workload Identity of GKE answers where the pod has no account of Google's.
                Err(error) if error.kind == Kind::NotFound => Err(self.impossible(format!(
                    "the machine has no service account that could have one; {}",
                    self.instead().await
                ))),
                answer => answer,
            },
            Source::ServiceAccount(source) if source.is_self_signed() => {
                let (base, email) = (self.iam_credentials().await?, &source.key.client_email);
                let own = Impersonated::new(&self.0.http, self.clone(), &base, email, Vec::new())?;
                own.id_token(audience, include_email).await
            }
            Source::ServiceAccount(source) => source.id_token(audience).await,
            Source::User(source) if source.client_id == audience => source.id_token().await,
            Source::User(_) => Err(self.impossible(format!(
                "a user's own ID token is for the OAuth client that the user logged in with, so a private service \
                 refuses it; {}",
                self.instead().await
            ))),
            Source::Impersonated(source) => source.id_token(audience, include_email).await,
            Source::Federated(_) => Err(self.impossible(format!(
                "a federated identity has none of Google's; {}; or make the credentials file with --service-account",
                self.instead().await
            ))),
        }
    }

    async fn instead(&self) -> String {
        let role = match &self.0.source {
            Source::Federated(_) => "roles/iam.workloadIdentityUser",
            _ => ROLE,
        };
        format!(
            "name a service account with --impersonate EMAIL, on which you need {role}: gcloud iam service-accounts \
             add-iam-policy-binding EMAIL --member='{}' --role={role}",
            self.member().await
        )
    }

    fn impossible(&self, message: String) -> Error {
        Error::new(Kind::Invalid, OPERATION, self.source(), message)
    }
}
