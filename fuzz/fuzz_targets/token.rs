//! Tokens: nobody without the issuer's key gets in, and behind Cloud Run only whoever the claims say may.
//!
//! The first byte chooses: its lowest bit who checks the signature, the next one whether the rest is the header's value
//! as it is or a token's header, a line end and its claims, to be encoded, and the third how it is signed.
#![no_main]

use std::io::{Read as _, Write as _};

use axum::http::{HeaderMap, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::DateTime;
use libfuzzer_sys::fuzz_target;
use platen::accept::verify::{Mode, Verifier, VerifyRules};
use platen::error::RefusalKind;
use platen::google::http::Http;
use platen::google::keys::KeySet;
use serde_json::Value;

const NOW: i64 = 1_795_303_686;
const AUDIENCE: &str = "https://w";
const EMAIL: &str = "p@x";

struct World {
    runtime: tokio::runtime::Runtime,
    oidc: Verifier,
    cloud_run_iam: Verifier,
}

/// A key set with one key, whose private half nobody has.
fn key_server() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        let mut modulus = [0xa5; 256];
        modulus[255] = 0x77;
        let body = format!(
            r#"{{"keys":[{{"kid":"k1","kty":"RSA","alg":"RS256","use":"sig","e":"AQAB","n":"{}"}}]}}"#,
            URL_SAFE_NO_PAD.encode(modulus)
        );
        for mut stream in listener.incoming().flatten() {
            // Whoever is gone needs no answer.
            let _request = stream.read(&mut [0; 4096]);
            let _gone = write!(
                stream,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
    url
}

impl World {
    fn new() -> Self {
        let keys = KeySet::new(Http::new().expect("a client"), key_server());
        let verifier = |mode| {
            let rules = VerifyRules {
                mode,
                audiences: vec![AUDIENCE.to_owned()],
                emails: vec![EMAIL.to_owned()],
            };
            Verifier::new(rules, keys.clone())
        };
        Self {
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime"),
            oidc: verifier(Mode::Oidc),
            cloud_run_iam: verifier(Mode::CloudRunIam),
        }
    }
}

thread_local! {
    static WORLD: World = World::new();
}

fuzz_target!(|data: &[u8]| {
    let Some((&choice, rest)) = data.split_first() else {
        return;
    };
    let (cloud_run, encode, removed) = (choice & 1 != 0, choice & 2 != 0, choice & 4 != 0);
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let claims = rest.get(end + 1..).unwrap_or_default();
    let value = if encode {
        let signature = if removed {
            "SIGNATURE_REMOVED_BY_GOOGLE".to_owned()
        } else {
            URL_SAFE_NO_PAD.encode([claims, &[1; 256]].concat().get(..256).unwrap_or_default())
        };
        let (head, claims) = (URL_SAFE_NO_PAD.encode(&rest[..end]), URL_SAFE_NO_PAD.encode(claims));
        format!("Bearer {head}.{claims}.{signature}").into_bytes()
    } else {
        rest.to_vec()
    };
    let Ok(value) = HeaderValue::from_bytes(&value) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value);
    let now = DateTime::from_timestamp(NOW, 0).expect("a time");
    let outcome = WORLD.with(|world| {
        let verifier = if cloud_run { &world.cloud_run_iam } else { &world.oidc };
        world.runtime.block_on(verifier.verify(&headers, now))
    });
    match outcome {
        Ok(caller) => {
            assert!(cloud_run, "a token without a signature was taken");
            assert_eq!(caller.email, EMAIL);
            if encode {
                let claims: Value = serde_json::from_slice(claims).expect("claims that were taken are JSON");
                assert!(claims["aud"] == AUDIENCE || claims["aud"] == serde_json::json!([AUDIENCE]));
                assert_eq!(
                    (&claims["email"], &claims["email_verified"]),
                    (&EMAIL.into(), &true.into())
                );
                assert!(claims["exp"].as_i64().is_some_and(|exp| exp + 10 > NOW));
                assert!(claims["iat"].as_i64().is_some_and(|iat| iat <= NOW + 10));
            }
        }
        // A good token of somebody else: without the key, only where the platform has checked it.
        Err(refusal) if refusal.kind == RefusalKind::WrongCaller => assert!(cloud_run),
        Err(refusal) => assert!(matches!(
            refusal.kind,
            RefusalKind::Unauthenticated | RefusalKind::Unavailable
        )),
    }
});
