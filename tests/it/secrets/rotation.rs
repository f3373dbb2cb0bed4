//! Passwords by name, used by jobs while they change: nobody waits for the clock, and nobody is told a lie.

use platen::local_cloud::Effect;
use serde_json::{Value, json};

use super::{KEY, OBJECT, cloud, config, kms_fault, seal, seal_by_hand, worker};
use crate::harness::{INPUT, World, job};

const LOCKED: &str = "documents/hostile/password.docx";
const PASSWORD: &str = "correct horse";

async fn post(world: &World, secret: &str, revision: &str) -> u16 {
    let job = job(&json!({
        "source": format!("gs://{INPUT}/locked.docx"), "password": {"secret": secret}, "revision": revision,
    }));
    world.post(&job).await.status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn old_and_new_passwords_overlap_and_a_change_is_seen_when_the_old_one_fails() {
    let cloud = cloud().await;
    let first = seal(&cloud, &json!({"passwords": {"contracts": "canary-old"}}));
    let mut world = worker(cloud, &[], &[]).await;
    world.worker.ready().await;
    world.upload_fixture(LOCKED, "locked.docx").await;

    // Not the one: looked at again, and told so, because nothing has changed.
    assert_eq!(post(&world, "contracts", "1").await, 204);
    let result = world.result().await.data;
    assert_eq!(result["error"]["code"], "document.wrong_password", "{result}");
    assert_eq!(config(&world).await["generation"], first);

    // The change is taken up by the next job, long before the clock.
    let second = seal(
        &world.cloud,
        &json!({"passwords": {"contracts": [PASSWORD, "canary-old"]}}),
    );
    assert_eq!(post(&world, "contracts", "1").await, 204);
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{result}\n{}", world.worker.log());
    assert_eq!(config(&world).await["generation"], second);

    // A newer one goes before it: documents of both open.
    seal(
        &world.cloud,
        &json!({"passwords": {"contracts": ["canary-new", PASSWORD]}}),
    );
    assert_eq!(post(&world, "contracts", "2").await, 204);
    assert_eq!(world.result().await.data["status"], "succeeded");
    let log = world.worker.log();
    assert!(!log.contains("canary") && !log.contains(PASSWORD), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_look_takes_nothing_of_the_conversions_time() {
    let cloud = cloud().await;
    seal(&cloud, &json!({"passwords": {"contracts": "canary-old"}}));
    let mut world = worker(cloud, &[("CONVERT_TIMEOUT", "10s")], &[]).await;
    world.worker.ready().await;
    world.upload_fixture(LOCKED, "locked.docx").await;
    seal(&world.cloud, &json!({"passwords": {"contracts": PASSWORD}}));
    // Asked again after longer than a conversion may take.
    let busy = Effect::Status {
        status: 503,
        retry_after: Some(11),
    };
    world.cloud.add_fault(kms_fault(1, busy));
    assert_eq!(post(&world, "contracts", "1").await, 204);
    let result = world.result().await.data;
    assert_eq!(result["status"], "succeeded", "{result}\n{}", world.worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_cannot_be_looked_at_a_job_that_needs_it_waits_and_others_go_on() {
    let cloud = cloud().await;
    seal(&cloud, &json!({"passwords": {"contracts": PASSWORD}}));
    let mut world = worker(cloud, &[], &[]).await;
    world.worker.ready().await;
    world.upload_fixture(LOCKED, "locked.docx").await;
    let later = json!({"passwords": {"contracts": PASSWORD, "later": PASSWORD}});
    seal_by_hand(&world.cloud, KEY, later.to_string().as_bytes(), Some(OBJECT)).await;
    world.cloud.add_fault(kms_fault(u32::MAX, Effect::status(403)));

    assert_eq!(post(&world, "later", "1").await, 503, "{}", world.worker.log());
    assert!(
        world.pull().await.is_none(),
        "a retry can fix it: it must not be reported"
    );
    let error = config(&world).await["lastError"].clone();
    assert!(
        error.as_str().unwrap().contains("roles/cloudkms.cryptoKeyDecrypter"),
        "{error}"
    );
    assert_eq!(post(&world, "contracts", "1").await, 204);
    assert_eq!(world.result().await.data["status"], "succeeded");

    world.cloud.clear_faults();
    let started = std::time::Instant::now();
    while post(&world, "later", "2").await != 204 {
        assert!(started.elapsed() < crate::harness::PATIENCE, "{}", world.worker.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(world.result().await.data["status"], "succeeded");
    assert_eq!(config(&world).await["lastError"], Value::Null);
    // A name that is not there even now is the job's mistake.
    assert_eq!(post(&world, "never", "1").await, 204);
    let result = world.result().await.data;
    assert_eq!(result["error"]["code"], "option.invalid", "{result}");
}
