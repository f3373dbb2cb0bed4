//! What else is in `deploy/`: the table of sizes, and that every command is one that gcloud has.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::gcloud::Gcloud;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// In MiB.
fn size(text: &str) -> u64 {
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit()).unwrap());
    let number: u64 = number.parse().unwrap();
    match unit {
        "Gi" | "GiB" => number * 1024,
        "Mi" | "MiB" => number,
        other => panic!("{other}"),
    }
}

#[test]
fn every_size_holds_what_it_runs_at_once() {
    let table = std::fs::read_to_string(root().join("deploy/sizing.tsv")).unwrap();
    let rows: Vec<Vec<&str>> = table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split('\t').collect())
        .collect();
    assert_eq!(rows.len(), 3);
    for row in &rows {
        let [name, cpu, memory, slots, each, timeout, least, most] = row[..] else {
            panic!("{row:?}")
        };
        let slots: u64 = slots.parse().unwrap();
        assert_eq!(
            cpu.parse::<u64>().unwrap(),
            slots,
            "{name}: a conversion has a processor of its own"
        );
        // The worker, the warm engine and the child that waits; then for each slot the conversion, and the largest
        // document and output, which lie in memory because Cloud Run's disk is memory.
        let needed = 256 + slots * (size(each) + 100 + 500);
        assert!(needed <= size(memory), "{name}: {needed} MiB in {memory}");
        assert!(
            timeout.strip_suffix('s').unwrap().parse::<u64>().unwrap() * 2 < 600,
            "{name}: two tries fit in a push"
        );
        assert!(least.parse::<u64>().unwrap() <= most.parse::<u64>().unwrap());
    }
}

/// gcloud's own parser, where gcloud is installed: every command and every flag exists.
#[test]
fn every_command_is_one_of_gclouds() {
    let gcloud = Gcloud::start();
    let everything = [
        ("DOCTOR", "yes"),
        ("DEPLOYER", super::DEPLOYER),
        ("CMEK_KEY", super::CMEK_KEY),
        (
            "REBUILD_REPOSITORY",
            "projects/my-project/locations/europe-west1/connections/c/repositories/r",
        ),
    ];
    gcloud.with(|cloud| {
        cloud
            .resources
            .insert("key/own/data".to_owned(), std::collections::BTreeMap::new())
    });
    gcloud.script("setup.sh", &[], &everything).good();
    gcloud.script("setup.sh", &[], &[("MAX_DELIVERY_ATTEMPTS", "7")]).good();
    gcloud
        .script("grant-caller.sh", &["a@b.iam.gserviceaccount.com"], &[])
        .good();
    gcloud
        .script("grant-caller.sh", &["a@b.iam.gserviceaccount.com", "--revoke"], &[])
        .good();
    gcloud.script("cleanup.sh", &["--yes"], &everything).good();
    if Command::new("gcloud").arg("--version").output().is_err() {
        println!("skipped: no gcloud here to ask whether it has these commands");
        return;
    }
    let commands: Vec<Value> = gcloud.with(|cloud| {
        cloud
            .commands
            .iter()
            // What the linter does not take: a word after a flag without a value, and quotes.
            .map(|words| words.iter().map(|word| word.replace('"', "")).collect::<Vec<_>>())
            .map(|words| json!({"command_string": format!("gcloud {}", quoted(&words))}))
            .collect()
    });
    assert!(commands.len() > 200);
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("commands.json");
    std::fs::write(&list, Value::from(commands).to_string()).unwrap();
    let output = Command::new("gcloud")
        .args(["meta", "lint-gcloud-commands"])
        .arg(format!("--commands-file={}", list.display()))
        .env("CLOUDSDK_CONFIG", directory.path())
        .env("CLOUDSDK_CORE_DISABLE_PROMPTS", "1")
        .output()
        .unwrap();
    let verdicts: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert!(verdicts.len() > 100, "{}", String::from_utf8_lossy(&output.stderr));
    let wrong: Vec<String> = verdicts
        .iter()
        .filter(|verdict| verdict["success"] != true)
        .map(|verdict| format!("{}: {}", verdict["command_string"], verdict["error_message"]))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn quoted(words: &[String]) -> String {
    words
        .iter()
        .map(|word| format!("'{word}'"))
        .collect::<Vec<_>>()
        .join(" ")
}
