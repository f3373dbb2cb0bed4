//! The configuration's generation, age and failed reloads, as METRICS_PORT shows them.

use serde_json::json;

use super::{KEY, cloud, config, config_until, seal, seal_by_hand, worker};
use crate::harness::port;
use crate::metrics::scrape;

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_moves_the_generation_and_one_that_fails_is_counted_and_moves_nothing() {
    let cloud = cloud().await;
    let sealed = json!({"passwords": {"contracts": "canary-1"}});
    let first = seal(&cloud, &sealed);
    let (port, _held) = port();
    let port = port.to_string();
    let variables = [("CONFIG_RELOAD", "1s"), ("METRICS_PORT", port.as_str())];
    let mut world = worker(cloud, &variables, &[]).await;
    world.worker.ready().await;
    let before = scrape(&port).await;
    let generation = |generation: &str| generation.parse::<f64>().unwrap();
    assert_eq!(before["platen_configuration_generation"], generation(&first));
    let loaded_at = config(&world).await["loadedAt"].as_str().unwrap().to_owned();
    let loaded_at = chrono::DateTime::parse_from_rfc3339(&loaded_at).unwrap();
    let milliseconds = before["platen_configuration_loaded_timestamp_seconds"] * 1000.0;
    assert!(
        (milliseconds - loaded_at.timestamp_millis() as f64).abs() < 1.0,
        "{milliseconds}"
    );
    assert_eq!(before["platen_configuration_reload_failures_total"], 0.0);

    seal_by_hand(&world.cloud, KEY, b"{}", Some("gs://config/other.enc")).await;
    config_until(&world, "the reload has failed", |config| {
        config["lastError"].is_string()
    })
    .await;
    let failed = scrape(&port).await;
    assert!(failed["platen_configuration_reload_failures_total"] >= 1.0);
    assert_eq!(failed["platen_configuration_generation"], generation(&first));

    let second = seal(&world.cloud, &sealed);
    config_until(&world, "the new generation is loaded", |config| {
        config["generation"] == second
    })
    .await;
    let after = scrape(&port).await;
    assert_eq!(after["platen_configuration_generation"], generation(&second));
    assert!(
        after["platen_configuration_loaded_timestamp_seconds"]
            > before["platen_configuration_loaded_timestamp_seconds"]
    );
}
