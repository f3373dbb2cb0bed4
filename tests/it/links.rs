//! Signing is quota: however often a job is delivered, its link is signed once.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{World, notification};
use crate::keys::TestKey;
use crate::peer::{Peer, Reply};

#[tokio::test(flavor = "multi_thread")]
async fn a_redelivery_storm_costs_one_signature_an_output() {
    let key = TestKey::generate().signing_key("unused");
    let iam = Peer::start(move |request, _| {
        let payload = STANDARD.decode(request.json()["payload"].as_str().unwrap()).unwrap();
        Reply::json(
            200,
            json!({"keyId": "k1", "signedBlob": STANDARD.encode(key.sign(&payload).unwrap())}),
        )
    });
    let world = World::with(&[("IAM_CREDENTIALS_ENDPOINT", &iam.url)]).await;
    let generation = world.upload_fixture("documents/plain/note.rtf", "note.rtf").await;
    let deliver = async || {
        let answer = world
            .request(notification("note.rtf", &generation).to_string())
            .bearer_auth(world.token())
            .header("prefer", "return=representation")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{}", world.worker.log());
        answer.json::<Value>().await.unwrap()["outputs"][0].clone()
    };
    let first = deliver().await;
    for again in futures_util::future::join_all((0..20).map(|_| deliver())).await {
        assert_eq!(again["signedUrl"], first["signedUrl"]);
        assert_eq!(
            again["expiresAt"], first["expiresAt"],
            "the end that is told is the link's"
        );
    }
    assert_eq!(iam.requests().len(), 1);

    // Another lifetime, and so another link, once.
    let shorter = json!({"source": "gs://input/note.rtf", "generation": generation, "signedUrl": {"ttl": "60s"}});
    for _ in 0..3 {
        assert_eq!(world.post(&crate::harness::job(&shorter)).await.status(), 204);
    }
    assert_eq!(iam.requests().len(), 2);
}
