//! What is said of a right that is missing: who lacks which permission on what, and what gives it and no more.
//!
//! The rights are those of deploy/policy.json, a test compares them. By hand they are given as deploy/setup.sh gives them:
//! by a custom role where Google's smallest is wider, since whoever obeys a message must not undo what was set up with care.

use std::time::Duration;

use super::token::Tokens;
use super::{Error, Kind};

/// How long the question who calls may hold up what is said.
const ASK: Duration = Duration::from_secs(1);
/// Who it is when nobody says it in time.
pub const UNKNOWN: &str = "serviceAccount:THE_WORKERS_ACCOUNT";

/// What gives a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A custom role of deploy/setup.sh: its id without the service's name, and what it holds.
    Custom(&'static str, &'static [&'static str]),
    /// One of Google's that holds what is needed and little else.
    Google(&'static str),
}

const OBJECT_READER: Role = Role::Custom("object_reader", &["storage.objects.get"]);
const OBJECT_WRITER: Role = Role::Custom(
    "object_writer",
    &[
        "storage.objects.create",
        "storage.objects.delete",
        "storage.objects.get",
    ],
);
const FONT_READER: Role = Role::Custom("font_reader", &["storage.objects.get", "storage.objects.list"]);
const URL_SIGNER: Role = Role::Custom("url_signer", &["iam.serviceAccounts.signBlob"]);
const INSPECTOR: Role = Role::Custom(
    "inspector",
    &["pubsub.subscriptions.get", "pubsub.topics.get", "storage.buckets.get"],
);

/// What a permission is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resource {
    Bucket(String),
    /// `projects/P/topics/T`.
    Topic(String),
    /// `projects/P/subscriptions/S`.
    Subscription(String),
    /// `projects/P/locations/L/keyRings/R/cryptoKeys/K`.
    Key(String),
    /// A service account's address.
    Account(String),
}

/// A permission on one resource, and what gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    permission: &'static str,
    role: Role,
    resource: Resource,
    /// The step of deploy/setup.sh that gives it.
    step: Option<&'static str>,
}

impl Grant {
    fn new(permission: &'static str, role: Role, resource: Resource, step: Option<&'static str>) -> Self {
        Self {
            permission,
            role,
            resource,
            step,
        }
    }

    /// To read the documents of a bucket.
    pub fn read_documents(bucket: &str) -> Self {
        let bucket = Resource::Bucket(bucket.to_owned());
        Self::new("storage.objects.get", OBJECT_READER, bucket, Some("grants"))
    }

    /// To read outputs, as a signer does for whoever has its link.
    pub fn read_outputs(bucket: &str) -> Self {
        Self::read_documents(bucket)
    }

    /// To store outputs: `permission` of `storage.objects.create`, `get` and `delete`, which replacing one takes.
    pub fn write_outputs(bucket: &str, permission: &'static str) -> Self {
        let bucket = Resource::Bucket(bucket.to_owned());
        Self::new(permission, OBJECT_WRITER, bucket, Some("grants"))
    }

    /// To find and read fonts: `permission` of `storage.objects.list` and `get`.
    pub fn read_fonts(bucket: &str, permission: &'static str) -> Self {
        let bucket = Resource::Bucket(bucket.to_owned());
        Self::new(permission, FONT_READER, bucket, Some("grants"))
    }

    /// To read the sealed configuration.
    pub fn read_configuration(bucket: &str) -> Self {
        let bucket = Resource::Bucket(bucket.to_owned());
        Self::new("storage.objects.get", OBJECT_READER, bucket, Some("secrets"))
    }

    /// To replace the sealed configuration, which is an operator's.
    pub fn write_configuration(bucket: &str) -> Self {
        let bucket = Resource::Bucket(bucket.to_owned());
        let role = Role::Google("roles/storage.objectUser");
        Self::new("storage.objects.create", role, bucket, None)
    }

    /// To open what was sealed.
    pub fn decrypt(key: &str) -> Self {
        let key = Resource::Key(key.to_owned());
        let role = Role::Google("roles/cloudkms.cryptoKeyDecrypter");
        Self::new("cloudkms.cryptoKeyVersions.useToDecrypt", role, key, Some("secrets"))
    }

    /// To seal, which is an operator's.
    pub fn encrypt(key: &str) -> Self {
        let key = Resource::Key(key.to_owned());
        let role = Role::Google("roles/cloudkms.cryptoKeyEncrypter");
        Self::new("cloudkms.cryptoKeyVersions.useToEncrypt", role, key, None)
    }

    /// To sign as an account.
    pub fn sign_as(email: &str) -> Self {
        let account = Resource::Account(email.to_owned());
        Self::new("iam.serviceAccounts.signBlob", URL_SIGNER, account, Some("grants"))
    }

    /// To publish on a topic.
    pub fn publish(topic: &str) -> Self {
        let topic = Resource::Topic(topic.to_owned());
        let role = Role::Google("roles/pubsub.publisher");
        Self::new("pubsub.topics.publish", role, topic, Some("grants"))
    }

    /// To look at a subscription's settings.
    pub fn look_at_subscription(name: &str) -> Self {
        let subscription = Resource::Subscription(name.to_owned());
        Self::new("pubsub.subscriptions.get", INSPECTOR, subscription, None)
    }

    /// Whether this refusal is for want of the right. An API that was never switched on answers 403 as well, and says how
    /// to switch it on; so is a refused impersonation, which says what it takes.
    pub fn is_about(&self, error: &Error) -> bool {
        let said = &error.message;
        error.kind == Kind::Forbidden
            && !said.contains("has not been used in project")
            && !said.contains("add-iam-policy-binding")
    }

    /// The same role, for the one of its permissions that Google's words name.
    #[must_use]
    pub fn named_by(mut self, error: &Error) -> Self {
        if let Role::Custom(_, permissions) = self.role
            && let Some(named) = permissions
                .iter()
                .find(|permission| error.message.contains(**permission))
        {
            self.permission = named;
        }
        self
    }

    /// Who lacks what, and what gives it: the step of the deployment that does, and a command.
    pub fn remedy(&self, member: &str) -> String {
        let Self { permission, step, .. } = self;
        let resource = self.resource.shown();
        let redo = match step {
            Some(step) if member.starts_with("serviceAccount:") => format!(
                "Deployed by deploy/setup.sh: PROJECT_ID={} deploy/setup.sh --only {step}. ",
                self.project(member)
            ),
            _ => String::new(),
        };
        format!(
            "{member} lacks {permission} on {resource}. {redo}By hand: {}",
            self.command(member)
        )
    }

    /// What gives the permission by hand. Of two commands the first fails where the role is there, and the second does
    /// its work all the same.
    pub fn command(&self, member: &str) -> String {
        let (create, role) = match self.role {
            Role::Google(role) => (String::new(), role.to_owned()),
            Role::Custom(id, permissions) => {
                let project = self.project(member);
                let create = format!(
                    "gcloud iam roles create platen_{id} --project={project} --permissions={} --stage=GA; ",
                    permissions.join(",")
                );
                (create, format!("projects/{project}/roles/platen_{id}"))
            }
        };
        format!(
            "{create}gcloud {} --member={} --role={role}",
            self.resource.binding(),
            shell(member)
        )
    }

    /// The project of what it is for, which is the one whose custom roles can be granted there. A bucket does not say
    /// its own: it is taken to be the caller's.
    fn project<'a>(&'a self, member: &'a str) -> &'a str {
        let of_member = member.split_once(':').and_then(|(_, email)| project_of_account(email));
        self.resource.project().or(of_member).unwrap_or("PROJECT")
    }
}

impl Resource {
    fn name(&self) -> &str {
        let (Self::Bucket(name) | Self::Topic(name) | Self::Subscription(name) | Self::Key(name) | Self::Account(name)) =
            self;
        name
    }

    fn shown(&self) -> String {
        match self {
            Self::Bucket(name) => format!("gs://{name}"),
            _ => self.name().to_owned(),
        }
    }

    fn project(&self) -> Option<&str> {
        match self {
            Self::Bucket(_) => None,
            Self::Topic(name) | Self::Subscription(name) | Self::Key(name) => {
                name.strip_prefix("projects/")?.split('/').next()
            }
            Self::Account(email) => project_of_account(email),
        }
    }

    /// gcloud's words for a binding on it.
    fn binding(&self) -> String {
        const BIND: &str = "add-iam-policy-binding";
        let parts: Vec<&str> = self.name().split('/').collect();
        match (self, &parts[..]) {
            (Self::Bucket(name), _) => format!("storage buckets {BIND} {}", shell(&format!("gs://{name}"))),
            (Self::Topic(_), [_, project, _, topic]) => {
                format!("pubsub topics {BIND} {} --project={project}", shell(topic))
            }
            (Self::Topic(name), _) => format!("pubsub topics {BIND} {}", shell(name)),
            (Self::Subscription(_), [_, project, _, subscription]) => {
                format!(
                    "pubsub subscriptions {BIND} {} --project={project}",
                    shell(subscription)
                )
            }
            (Self::Subscription(name), _) => format!("pubsub subscriptions {BIND} {}", shell(name)),
            (Self::Key(_), [_, project, _, location, _, ring, _, key]) => {
                format!("kms keys {BIND} {key} --keyring={ring} --location={location} --project={project}")
            }
            (Self::Key(name), _) => format!("kms keys {BIND} {}", shell(name)),
            (Self::Account(email), _) => match project_of_account(email) {
                Some(project) => format!("iam service-accounts {BIND} {email} --project={project}"),
                None => format!("iam service-accounts {BIND} {}", shell(email)),
            },
        }
    }
}

/// The project of `NAME@PROJECT.iam.gserviceaccount.com`.
pub fn project_of_account(email: &str) -> Option<&str> {
    email.split_once('@')?.1.strip_suffix(".iam.gserviceaccount.com")
}

/// Who calls with these credentials, as policies name members; a word in capitals where that cannot be found out now. It
/// is asked for once, and waited for no longer than a second.
pub async fn member_of(tokens: Option<&Tokens>) -> String {
    match tokens {
        Some(tokens) => tokio::time::timeout(ASK, tokens.member())
            .await
            .unwrap_or_else(|_| UNKNOWN.to_owned()),
        None => UNKNOWN.to_owned(),
    }
}

/// A word for a POSIX shell.
pub fn shell(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    if text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKER: &str = "serviceAccount:worker@p.iam.gserviceaccount.com";

    /// Every right that is named is one of deploy/policy.json, and its role holds what the file's holds.
    #[test]
    fn roles_hold_what_the_policy_says() {
        let policy: serde_json::Value = serde_json::from_str(include_str!("../../deploy/policy.json")).unwrap();
        for grant in [
            Grant::read_documents("b"),
            Grant::write_outputs("b", "storage.objects.delete"),
            Grant::read_fonts("b", "storage.objects.list"),
            Grant::read_configuration("b"),
            Grant::decrypt("k"),
            Grant::sign_as("a"),
            Grant::publish("t"),
            Grant::look_at_subscription("s"),
        ] {
            let held = match grant.role {
                Role::Custom(id, permissions) => {
                    assert_eq!(policy["roles"][id], serde_json::json!(permissions), "{id}");
                    &policy["roles"][id]
                }
                Role::Google(role) => &policy["google_roles"][role],
            };
            let held = held.as_array().unwrap();
            assert!(held.contains(&grant.permission.into()), "{grant:?}");
        }
    }

    #[test]
    fn what_is_said_can_be_obeyed() {
        let documents = Grant::read_documents("in");
        assert_eq!(
            documents.remedy(WORKER),
            "serviceAccount:worker@p.iam.gserviceaccount.com lacks storage.objects.get on gs://in. Deployed by \
             deploy/setup.sh: PROJECT_ID=p deploy/setup.sh --only grants. By hand: gcloud iam roles create \
             platen_object_reader --project=p --permissions=storage.objects.get --stage=GA; gcloud storage buckets \
             add-iam-policy-binding gs://in --member=serviceAccount:worker@p.iam.gserviceaccount.com \
             --role=projects/p/roles/platen_object_reader"
        );
        // A person is none that setup.sh made; whose project it is nobody knows.
        let said = documents.remedy("user:YOUR_ADDRESS");
        assert!(
            !said.contains("setup.sh") && said.contains("--project=PROJECT "),
            "{said}"
        );
        let said = Grant::publish("projects/q/topics/t").remedy(UNKNOWN);
        assert!(
            said.contains("PROJECT_ID=q ") && said.contains(" topics add-iam-policy-binding t --project=q "),
            "{said}"
        );
        let said = documents.command("principalSet://pool/*");
        assert!(said.contains("--member='principalSet://pool/*'"), "{said}");
    }

    #[test]
    fn the_permission_is_the_one_that_google_names() {
        let error = |message: &str| Error::new(Kind::Forbidden, "storage.objects.insert", "gs://o/a", message);
        let grant = || Grant::write_outputs("o", "storage.objects.create");
        let named = grant().named_by(&error("w does not have storage.objects.delete access"));
        assert_eq!(named.permission, "storage.objects.delete");
        assert_eq!(grant().named_by(&error("no")).permission, "storage.objects.create");
        assert!(grant().is_about(&error("no")));
        assert!(!grant().is_about(&error("API has not been used in project 7 before")));
    }

    /// Who does not say who it is holds nothing up.
    #[tokio::test(start_paused = true)]
    async fn nobody_is_waited_for() {
        assert_eq!(member_of(None).await, UNKNOWN);
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let settings = crate::google::token::Settings {
            metadata_host: Some(silent.local_addr().unwrap().to_string()),
            ..crate::google::token::Settings::default()
        };
        let http = crate::google::http::Http::new().unwrap();
        let tokens = Tokens::discover(http, &settings).await.unwrap();
        assert_eq!(member_of(tokens.as_ref()).await, UNKNOWN);
    }
}
