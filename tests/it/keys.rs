//! Keys made for one test run: service account keys, JSON Web Keys, and tokens of any shape.

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::KeyPair as _;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use platen::google::signing::SigningKey;
use serde_json::{Value, json};

pub(crate) struct TestKey {
    pub(crate) pair: KeyPair,
}

impl TestKey {
    pub(crate) fn generate() -> Self {
        Self {
            pair: KeyPair::generate(KeySize::Rsa2048).unwrap(),
        }
    }

    /// As the `private_key` of a key file has it.
    pub(crate) fn pem(&self) -> String {
        let der: Pkcs8V1Der<'_> = self.pair.as_der().unwrap();
        let text = STANDARD.encode(der.as_ref());
        let lines: Vec<&str> = (0..text.len())
            .step_by(64)
            .map(|at| &text[at..text.len().min(at + 64)])
            .collect();
        format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        )
    }

    pub(crate) fn signing_key(&self, email: &str) -> SigningKey {
        SigningKey::from_pem(email, &self.pem()).unwrap()
    }

    pub(crate) fn modulus(&self) -> Vec<u8> {
        self.pair
            .public_key()
            .modulus()
            .big_endian_without_leading_zero()
            .to_vec()
    }

    /// As Google's key set has it.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let n = URL_SAFE_NO_PAD.encode(self.modulus());
        json!({"kid": kid, "kty": "RSA", "alg": "RS256", "use": "sig", "n": n, "e": "AQAB"})
    }

    /// A token of exactly these bytes, signed.
    pub(crate) fn token(&self, head: &str, claims: &str) -> String {
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.signing_key("unused").sign(message.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}
