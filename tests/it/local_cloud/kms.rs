//! Cloud KMS: what was sealed opens with the same additional data and nothing else, checksums both ways.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Fixture, answer};

const KEY: &str = "projects/local-project/locations/global/keyRings/r/cryptoKeys/k";
const OTHER: &str = "projects/local-project/locations/global/keyRings/r/cryptoKeys/other";
const NONE: &str = "projects/local-project/locations/global/keyRings/r/cryptoKeys/none";

#[tokio::test]
async fn seals_with_additional_data_and_checksums() {
    let cloud = Fixture::start().await;
    cloud.cloud.rotate_kms_key(KEY).unwrap();
    let create = format!(
        "{}/v1/{}?cryptoKeyId=other",
        cloud.cloud.urls().kms,
        OTHER.trim_end_matches("/other")
    );
    let (status, made) = answer(cloud.post(create.clone()).json(&json!({"purpose": "ENCRYPT_DECRYPT"}))).await;
    assert_eq!((status.as_u16(), &made["name"]), (200, &json!(OTHER)));
    assert_eq!(answer(cloud.post(create).json(&json!({}))).await.0, 409);
    let call = async |key: &str, verb: &str, body: Value| {
        answer(
            cloud
                .post(format!("{}/v1/{key}:{verb}", cloud.cloud.urls().kms))
                .json(&body),
        )
        .await
    };
    let (plaintext, additional) = (STANDARD.encode("123456789"), STANDARD.encode("gs://b/o"));
    // The check value of CRC-32C.
    let body =
        json!({"plaintext": plaintext, "plaintextCrc32c": "3808858755", "additionalAuthenticatedData": additional});
    let (status, sealed) = call(KEY, "encrypt", body.clone()).await;
    assert_eq!(status, 200, "{sealed}");
    assert_eq!(sealed["verifiedPlaintextCrc32c"], true);
    assert_eq!(sealed["name"], format!("{KEY}/cryptoKeyVersions/1"));
    let open = |ciphertext: &Value, additional: &str| json!({"ciphertext": ciphertext, "additionalAuthenticatedData": additional});
    cloud.cloud.rotate_kms_key(KEY).unwrap();
    let (status, opened) = call(KEY, "decrypt", open(&sealed["ciphertext"], &additional)).await;
    assert_eq!(status, 200, "{opened}");
    assert_eq!(
        (&opened["plaintext"], &opened["plaintextCrc32c"]),
        (&json!(plaintext), &json!("3808858755"))
    );
    assert_eq!(opened["usedPrimary"], false, "a new version is the primary one");
    let wrong = STANDARD.encode("gs://b/p");
    assert_eq!(call(KEY, "decrypt", open(&sealed["ciphertext"], &wrong)).await.0, 400);
    assert_eq!(call(KEY, "decrypt", open(&sealed["ciphertext"], "")).await.0, 400);
    assert_eq!(
        call(OTHER, "decrypt", open(&sealed["ciphertext"], &additional)).await.0,
        400
    );
    assert_eq!(
        call(NONE, "decrypt", open(&sealed["ciphertext"], &additional)).await.0,
        404
    );
    let mut bytes = STANDARD.decode(sealed["ciphertext"].as_str().unwrap()).unwrap();
    for index in 0..bytes.len() {
        bytes[index] ^= 1;
        let (status, _) = call(KEY, "decrypt", open(&json!(STANDARD.encode(&bytes)), &additional)).await;
        assert_eq!(status, 400, "byte {index}");
        bytes[index] ^= 1;
    }
    let mut body = body;
    body["plaintextCrc32c"] = json!("3808858754");
    assert_eq!(call(KEY, "encrypt", body).await.0, 400);
    let mut request = open(&sealed["ciphertext"], &additional);
    request["ciphertextCrc32c"] = json!(0);
    assert_eq!(call(KEY, "decrypt", request).await.0, 400);
}
