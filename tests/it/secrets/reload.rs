//! The reload: on the clock, all or nothing, and never worse than what is loaded.

use serde_json::{Value, json};

use super::{BUCKET, Effect, KEY, NAME, OBJECT, cloud, config, config_until, kms_fault, seal, seal_by_hand, worker};

fn of(password: &str) -> Value {
    json!({"passwords": {"contracts": password}})
}

#[tokio::test(flavor = "multi_thread")]
async fn another_generation_is_taken_up_on_the_clock_and_the_same_one_is_not_fetched_again() {
    let cloud = cloud().await;
    let first = seal(&cloud, &of("canary-1"));
    let mut world = worker(cloud, &[("CONFIG_RELOAD", "1s")], &[]).await;
    world.worker.ready().await;
    let before = config(&world).await;
    assert_eq!(before["generation"], first);
    // From here on Cloud KMS would answer nothing: as long as nothing has changed nobody asks it.
    world.cloud.add_fault(kms_fault(u32::MAX, Effect::status(500)));
    let looks = || world.worker.log().matches("has not changed since").count();
    crate::harness::until("it has looked three times", || (looks() >= 3).then_some(())).await;
    assert_eq!(config(&world).await, before);
    world.cloud.clear_faults();
    let second = seal(&world.cloud, &of("canary-2"));
    let after = config_until(&world, "the new generation is loaded", |config| {
        config["generation"] == second
    })
    .await;
    assert_eq!(after["lastError"], Value::Null);
    assert!(
        after["loadedAt"].as_str() > before["loadedAt"].as_str(),
        "{before} {after}"
    );
    assert!(!world.worker.log().contains("canary"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_that_fails_keeps_the_old_values_and_says_so_until_one_succeeds() {
    let cloud = cloud().await;
    let first = seal(&cloud, &of("canary-1"));
    let mut world = worker(cloud, &[("CONFIG_RELOAD", "1s")], &[]).await;
    world.worker.ready().await;
    let loaded_at = config(&world).await["loadedAt"].clone();
    let kept = |config: &Value| config["generation"] == first && config["loadedAt"] == loaded_at;
    let says = |config: &Value, what: &str| config["lastError"].as_str().is_some_and(|error| error.contains(what));

    // Sealed wrongly: for another place.
    seal_by_hand(&world.cloud, KEY, b"{}", Some("gs://config/other.enc")).await;
    let state = config_until(&world, "it says what is wrong", |config| says(config, "was not sealed")).await;
    assert!(kept(&state), "{state}");
    // What no start would take, whole or not at all.
    let wrong = json!({"passwords": {"contracts": "canary-2"}, "environment": {"MAX_PAGES": "canary-3"}});
    seal_by_hand(&world.cloud, KEY, wrong.to_string().as_bytes(), Some(OBJECT)).await;
    let state = config_until(&world, "it says which variable", |config| {
        says(config, "MAX_PAGES is '…'")
    })
    .await;
    assert!(kept(&state), "{state}");
    // Not there at all.
    world.delete(BUCKET, NAME).await;
    let state = config_until(&world, "it says that it is gone", |config| says(config, "is not there")).await;
    assert!(kept(&state), "{state}");
    // Cloud KMS is down. Repeating costs this reload its 20 seconds.
    world.cloud.add_fault(kms_fault(1000, Effect::status(403)));
    seal_elsewhere(&world.cloud, &of("canary-4")).await;
    let state = config_until(&world, "it says that it may not", |config| says(config, "HTTP 403")).await;
    assert!(kept(&state), "{state}");
    world.cloud.clear_faults();
    let state = config_until(&world, "all is well again", |config| config["lastError"].is_null()).await;
    assert_ne!(state["generation"], first);
    let log = world.worker.log();
    assert!(log.contains(&format!("the values of generation {first} stay")), "{log}");
    assert!(!log.contains("canary"), "{log}");
    // It has been ready all along.
    world.worker.ready().await;
}

/// Seals before faults can hit: with a ciphertext that was made for the place, uploaded by hand.
async fn seal_elsewhere(cloud: &platen::local_cloud::LocalCloud, contents: &Value) {
    cloud.clear_faults();
    seal_by_hand(cloud, KEY, contents.to_string().as_bytes(), Some(OBJECT)).await;
    cloud.add_fault(kms_fault(1000, Effect::status(403)));
}

#[tokio::test(flavor = "multi_thread")]
async fn variables_that_change_are_reported_by_name_and_take_a_restart() {
    let cloud = cloud().await;
    let environment = |pages: &str, size: &str| json!({"environment": {"MAX_PAGES": pages, "MAX_INPUT_SIZE": size, "MAX_OUTPUT_SIZE": size}});
    seal(&cloud, &environment("7", "1MiB"));
    // One that the process sets does not count in the object.
    let variables = [("CONFIG_RELOAD", "1s"), ("MAX_OUTPUT_SIZE", "9MiB")];
    let mut world = worker(cloud, &variables, &[]).await;
    world.worker.ready().await;
    let second = seal(&world.cloud, &environment("7", "2MiB"));
    config_until(&world, "it is loaded", |config| config["generation"] == second).await;
    let log = world.worker.log();
    let line = log
        .lines()
        .find(|line| line.contains("takes a restart"))
        .unwrap_or_else(|| panic!("{log}"));
    assert!(line.contains("MAX_INPUT_SIZE") && line.contains("WARN"), "{line}");
    assert!(
        !line.contains("MAX_PAGES") && !line.contains("MAX_OUTPUT_SIZE") && !line.contains("MiB"),
        "{line}"
    );
}
