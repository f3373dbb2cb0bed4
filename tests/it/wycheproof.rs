//! Project Wycheproof's RS256 vectors: signatures that a verifier got wrong somewhere, against the very keys that the
//! key set hands out.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use platen::google::http::Http;
use platen::google::keys::{KeyError, KeySet, PublicKey};
use serde_json::json;
use wycheproof::TestResult;
use wycheproof::rsa_pkcs1_verify::{TestFlag, TestGroup, TestName, TestSet};

use crate::peer::{Peer, Reply};

/// The group's key, as a key set that has it alone gives it.
async fn key(group: &TestGroup) -> Result<PublicKey, KeyError> {
    let strip = |number: &[u8]| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        URL_SAFE_NO_PAD.encode(&number[zeros..])
    };
    let jwk = json!({
        "kid": "k", "kty": "RSA", "alg": "RS256", "use": "sig", "n": strip(&group.key.n), "e": strip(&group.key.e),
    });
    let peer = Peer::replies(vec![Reply::json(200, json!({"keys": [jwk]}))]);
    KeySet::new(Http::new().unwrap(), &peer.url).key("k").await
}

#[tokio::test]
async fn every_rs256_case_of_wycheproof_is_decided_right() {
    let (mut cases, mut forgeries, mut left_out) = (0, 0, 0);
    for name in [
        TestName::Rsa2048Sha256,
        TestName::Rsa3072Sha256,
        TestName::Rsa4096Sha256,
        TestName::Rsa8192Sha256,
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = match key(&group).await {
                Ok(key) => key,
                // Google's keys have the exponent 65537; no other one is taken.
                Err(_) if *group.key.e != [1, 0, 1] => {
                    left_out += group.tests.len();
                    continue;
                }
                Err(error) => panic!("{name:?}: {error}"),
            };
            for test in &group.tests {
                let verifies = key.verifies(&test.msg, &test.sig);
                // Where PKCS #1 leaves room (a digest's parameters left out), we leave none.
                let expected = test.result == TestResult::Valid;
                assert_eq!(verifies, expected, "{name:?} case {}: {}", test.tc_id, test.comment);
                assert!(!(verifies && test.flags.contains(&TestFlag::MissingNull)));
                cases += 1;
                forgeries += usize::from(!expected);
            }
        }
    }
    println!("{cases} cases, {forgeries} of them forgeries; {left_out} left out with their exponent");
    assert!(cases > 900 && forgeries > 850, "{cases} cases, {forgeries} forgeries");
}
