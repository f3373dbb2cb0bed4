//! Who may act as which service account: roles, and the permissions that they hold.

use std::{collections::BTreeSet, sync::Mutex};

use super::server::lock;

/// A right on a service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permission {
    SignBlob,
    GetAccessToken,
    GetOpenIdToken,
    ImplicitDelegation,
}

impl Permission {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::SignBlob => "iam.serviceAccounts.signBlob",
            Self::GetAccessToken => "iam.serviceAccounts.getAccessToken",
            Self::GetOpenIdToken => "iam.serviceAccounts.getOpenIdToken",
            Self::ImplicitDelegation => "iam.serviceAccounts.implicitDelegation",
        }
    }
}

/// A role that lets somebody act as a service account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AccountRole {
    /// `roles/iam.serviceAccountTokenCreator`: all of it.
    TokenCreator,
    /// `roles/iam.serviceAccountOpenIdTokenCreator`: ID tokens alone.
    OpenIdTokenCreator,
    /// `roles/iam.workloadIdentityUser`: access tokens and ID tokens, no signatures.
    WorkloadIdentityUser,
}

impl AccountRole {
    fn holds(self, permission: Permission) -> bool {
        match self {
            Self::TokenCreator => true,
            Self::OpenIdTokenCreator => permission == Permission::GetOpenIdToken,
            Self::WorkloadIdentityUser => {
                matches!(permission, Permission::GetAccessToken | Permission::GetOpenIdToken)
            }
        }
    }
}

/// Member, account, and the role that the one has on the other.
#[derive(Default)]
pub(super) struct Grants(Mutex<BTreeSet<(String, String, AccountRole)>>);

impl Grants {
    pub(super) fn grant(&self, member: &str, account: &str, role: AccountRole) {
        lock(&self.0).insert((member.to_owned(), account.to_owned(), role));
    }

    pub(super) fn revoke(&self, member: &str, account: &str, role: AccountRole) {
        lock(&self.0).remove(&(member.to_owned(), account.to_owned(), role));
    }

    /// Whether a member has a permission on an account: by itself, or as one of a pool.
    pub(super) fn may(&self, member: &str, account: &str, permission: Permission) -> bool {
        let pool = member
            .strip_prefix("principal:")
            .and_then(|name| name.split_once("/subject/"))
            .map(|(pool, _)| format!("principalSet:{pool}/*"));
        lock(&self.0).iter().any(|(granted, on, role)| {
            let is_member = granted == member || pool.as_ref() == Some(granted);
            is_member && on == account && role.holds(permission)
        })
    }
}
