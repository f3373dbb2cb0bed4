//! Accounts of a cloud, their keys, tokens and rights, set by who runs it.

use std::io;

use serde_json::Value;

use super::{LocalCloud, Refusal, identity, roles::AccountRole};

impl LocalCloud {
    /// Makes a service account, if it is not there.
    pub fn create_service_account(&self, email: &str) {
        self.world.identity.add_account(email);
    }

    /// Makes a user-managed key: the JSON file that Google hands out, with `token_uri` on this cloud.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn create_key_file(&self, email: &str) -> io::Result<Value> {
        self.world
            .identity
            .key_file(email, &format!("{}/token", self.world.urls.iam))
    }

    /// Registers the public half of a private key in PEM (PKCS #8), as of a key file that was made elsewhere.
    ///
    /// # Errors
    ///
    /// When it is no RSA key in that form.
    pub fn register_key(&self, email: &str, key_id: &str, private_key_pem: &str) -> io::Result<()> {
        self.world
            .identity
            .add_public_key(email, key_id, identity::public_of_private(private_key_pem)?)
    }

    /// Grants `roles/iam.serviceAccountTokenCreator` on an account.
    pub fn allow_token_creator(&self, member: &str, account: &str) {
        self.grant(member, account, AccountRole::TokenCreator);
    }

    /// Takes that role away.
    pub fn deny_token_creator(&self, member: &str, account: &str) {
        self.world
            .identity
            .grants
            .revoke(member, account, AccountRole::TokenCreator);
    }

    /// Grants a role on an account, to the address of a user or account, to `principal://...` or `principalSet://.../*`.
    pub fn grant(&self, member: &str, account: &str, role: AccountRole) {
        self.world.identity.grants.grant(member, account, role);
    }

    /// Holds the deployment's accounts to the bindings of `deploy/policy.json`, as `deploy/setup.sh` would make them: from now on
    /// they may do nothing else. `names` says which resources here are those of the file: `("bucket/input", "documents")`,
    /// `("topic/results", "results")`, `("subscription/push", "push")`, `("key", "projects/...")`.
    ///
    /// # Errors
    ///
    /// When the file is not what it should be.
    pub fn enforce(&self, names: &[(&str, &str)]) -> io::Result<()> {
        let world = &self.world;
        let (worker, signer) = (
            &world.settings.worker_service_account,
            &world.settings.signer_service_account,
        );
        for account in [worker, signer] {
            world.identity.grants.revoke(worker, account, AccountRole::TokenCreator);
        }
        world.policies.enforce(&world.settings, names)?;
        world.pubsub.apply_policies(world);
        Ok(())
    }

    /// Takes one permission away from an account on a resource, all three as `deploy/policy.json` names them; whether it was
    /// there.
    pub fn take_away(&self, account: &str, permission: &str, resource: &str) -> bool {
        self.world.policies.take_away(account, permission, resource)
    }

    /// Gives an account of `deploy/policy.json` one permission more, on a resource of the file or on `bucket/NAME`.
    pub fn give(&self, account: &str, permission: &str, resource: &str) {
        self.world.policies.give(account, permission, resource);
    }

    /// Every right that is enforced: account, permission, resource, as `deploy/policy.json` names them.
    pub fn rights(&self) -> Vec<(String, String, String)> {
        self.world.policies.rights()
    }

    /// Logs a person in: the file that `gcloud auth application-default login` writes, with `token_uri` on this cloud.
    pub fn log_in(&self, email: &str) -> Value {
        self.world
            .identity
            .log_in(email, &format!("{}/token", self.world.urls.iam))
    }

    /// Makes a pool trust an identity provider: `audience` is
    /// `//iam.googleapis.com/projects/N/locations/global/workloadIdentityPools/POOL/providers/PROVIDER`, or a workforce
    /// pool's.
    ///
    /// # Errors
    ///
    /// When the provider's key cannot be made.
    pub fn federate(&self, audience: &str) -> io::Result<()> {
        self.world.identity.providers.add(audience)
    }

    /// A token of that provider, good for an hour.
    pub fn token_of_provider(&self, audience: &str, subject: &str) -> String {
        let now = self.world.clock.now();
        self.world.identity.providers.token(now, audience, subject)
    }

    /// An access token of an account.
    pub fn access_token(&self, email: &str) -> String {
        self.world
            .identity
            .new_access_token(email, self.world.settings.access_token_lifetime)
    }

    /// Whose access token that is, if it is one and good.
    pub fn caller(&self, access_token: &str) -> Option<String> {
        self.world.identity.caller(access_token)
    }

    /// Makes every access token invalid at once.
    pub fn revoke_access_tokens(&self) {
        self.world.identity.revoke_access_tokens();
    }

    /// The claims of an account's ID token for an audience, as Google words them, with the email: a test changes them
    /// as it likes.
    pub fn claims(&self, email: &str, audience: &str) -> Value {
        self.world.identity.claims(email, audience, true)
    }

    /// Signs claims, whatever they say, with the current OIDC key.
    pub fn id_token(&self, claims: &Value) -> String {
        self.world.identity.id_token(claims)
    }

    /// Makes a new OIDC key the current one. The one before stays in the key set, older ones leave it.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn rotate_keys(&self) -> io::Result<()> {
        self.world.identity.rotate_oidc_keys()
    }

    /// Retires the Google-managed key of an account: URLs that it signed stop working.
    pub fn rotate_managed_key(&self, email: &str) {
        self.world.identity.rotate_managed_key(email);
    }

    /// Makes a KMS key (`projects/P/locations/L/keyRings/R/cryptoKeys/K`), or a new primary version of it.
    ///
    /// # Errors
    ///
    /// When the key cannot be made.
    pub fn rotate_kms_key(&self, name: &str) -> Result<(), Refusal> {
        self.world.kms.rotate(name)
    }

    /// Takes from an account the right to `encrypt` or to `decrypt` with a KMS key.
    pub fn deny_kms(&self, member: &str, key: &str, verb: &'static str) {
        self.world.kms.deny(member, key, verb);
    }
}
