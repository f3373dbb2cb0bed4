//! The Cloud KMS client against a peer that is scripted byte for byte: what is sent, and what of an answer is believed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::google::Kind;
use platen::google::http::Http;
use platen::google::kms::{Kms, LARGEST_PLAINTEXT};
use serde_json::{Value, json};

use super::{KEY, OBJECT};
use crate::peer::{Peer, Reply};

/// The check value of CRC-32C, as Google's JSON has 64-bit integers: a string.
const DIGITS: &[u8] = b"123456789";
const DIGITS_CRC32C: &str = "3808858755";

fn kms(peer: &Peer) -> Kms {
    Kms::new(Http::new().unwrap(), &peer.url, None)
}

fn encrypted(changes: &Value) -> Reply {
    let mut answer = json!({
        "name": format!("{KEY}/cryptoKeyVersions/1"), "ciphertext": STANDARD.encode(DIGITS), "ciphertextCrc32c": DIGITS_CRC32C,
        "verifiedPlaintextCrc32c": true, "verifiedAdditionalAuthenticatedDataCrc32c": true, "protectionLevel": "SOFTWARE",
    });
    merge(&mut answer, changes);
    Reply::json(200, answer)
}

fn decrypted(changes: &Value) -> Reply {
    let mut answer =
        json!({"plaintext": STANDARD.encode(DIGITS), "plaintextCrc32c": DIGITS_CRC32C, "protectionLevel": "SOFTWARE"});
    merge(&mut answer, changes);
    Reply::json(200, answer)
}

/// A null takes the field away.
fn merge(answer: &mut Value, changes: &Value) {
    let fields = answer.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        fields.insert(name.clone(), value.clone());
    }
    fields.retain(|_, value| !value.is_null());
}

#[tokio::test]
async fn every_field_of_bytes_is_sent_with_its_checksum() {
    let peer = Peer::start(|request, _| match request.target.ends_with(":encrypt") {
        true => encrypted(&json!({})),
        false => decrypted(&json!({})),
    });
    let sealed = kms(&peer).encrypt(KEY, DIGITS, OBJECT.as_bytes()).await.unwrap();
    assert_eq!(sealed, DIGITS);
    let opened = kms(&peer).decrypt(KEY, DIGITS, OBJECT.as_bytes()).await.unwrap();
    assert_eq!(*opened, DIGITS);
    kms(&peer).decrypt(KEY, DIGITS, b"").await.unwrap();
    let requests = peer.requests();
    let additional = (
        json!(STANDARD.encode(OBJECT)),
        json!(crc32c::crc32c(OBJECT.as_bytes()).to_string()),
    );
    for (request, verb, field) in [
        (&requests[0], "encrypt", "plaintext"),
        (&requests[1], "decrypt", "ciphertext"),
    ] {
        assert_eq!(request.method, "POST");
        assert_eq!(request.target, format!("/v1/{KEY}:{verb}"));
        let body = request.json();
        assert_eq!(body[field], STANDARD.encode(DIGITS));
        assert_eq!(body[format!("{field}Crc32c")], DIGITS_CRC32C);
        assert_eq!(body["additionalAuthenticatedData"], additional.0);
        assert_eq!(body["additionalAuthenticatedDataCrc32c"], additional.1);
        assert_eq!(body.as_object().unwrap().len(), 4, "{body}");
    }
    assert_eq!(requests[2].json().as_object().unwrap().len(), 2);
}

#[tokio::test]
async fn an_answer_that_is_damaged_is_asked_for_again_and_never_believed() {
    let damages = [
        json!({"ciphertextCrc32c": "0"}),
        json!({"ciphertextCrc32c": null}),
        json!({"ciphertextCrc32c": "3808858754"}),
        json!({"ciphertext": STANDARD.encode(b"123456780")}),
        json!({"ciphertext": "!"}),
        json!({"verifiedPlaintextCrc32c": false}),
        json!({"verifiedPlaintextCrc32c": null}),
        json!({"verifiedAdditionalAuthenticatedDataCrc32c": null}),
    ];
    for damage in damages {
        let once = Peer::replies(vec![encrypted(&damage), encrypted(&json!({}))]);
        assert_eq!(kms(&once).encrypt(KEY, DIGITS, b"a").await.unwrap(), DIGITS, "{damage}");
        let always = Peer::replies(vec![encrypted(&damage)]);
        let error = kms(&always).encrypt(KEY, DIGITS, b"a").await.unwrap_err();
        assert_eq!((error.kind, always.requests().len()), (Kind::Corrupt, 3), "{damage}");
    }
    let damages = [
        json!({"plaintextCrc32c": "0"}),
        json!({"plaintextCrc32c": null}),
        json!({"plaintextCrc32c": "x"}),
        json!({"plaintext": STANDARD.encode(b"canary-123")}),
        json!({"plaintext": null}),
        json!({"plaintext": "canary!"}),
    ];
    for damage in damages {
        let once = Peer::replies(vec![
            decrypted(&damage),
            decrypted(&json!({"plaintextCrc32c": 3_808_858_755_u32})),
        ]);
        assert_eq!(
            *kms(&once).decrypt(KEY, DIGITS, b"a").await.unwrap(),
            DIGITS,
            "{damage}"
        );
        let always = Peer::replies(vec![decrypted(&damage)]);
        let error = kms(&always).decrypt(KEY, DIGITS, b"a").await.unwrap_err();
        assert_eq!((error.kind, always.requests().len()), (Kind::Corrupt, 3), "{damage}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error:?}");
    }
}

#[tokio::test]
async fn what_is_not_a_key_or_too_large_is_never_sent() {
    let peer = Peer::replies(vec![encrypted(&json!({}))]);
    let version = format!("{KEY}/cryptoKeyVersions/1");
    let error = kms(&peer).encrypt(&version, DIGITS, b"a").await.unwrap_err();
    assert_eq!(error.kind, Kind::Invalid);
    let error = kms(&peer)
        .encrypt(KEY, &vec![0; LARGEST_PLAINTEXT + 1], b"a")
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::TooLarge);
    assert!(peer.requests().is_empty());
}
