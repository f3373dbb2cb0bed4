//! What must hold once all is over, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::number_of;
use serde_json::{Value, json};

use super::lane::{Lane, Run, USER};
use super::plan::Asks;
use crate::harness::{INPUT, OUTPUT, pdf_text};

/// A result as it stood on the topic.
struct Published {
    /// Which of all messages it was.
    number: u64,
    data: Value,
}

/// Judges a run that has come to its end.
pub(super) async fn judge(lane: &Lane, run: &Run) {
    assert_eq!(
        lane.cloud().unconditional_writes(OUTPUT).unwrap(),
        0,
        "an output was written whatever was there"
    );
    let versions = versions(lane, &format!("run{}/", run.plan.seed)).await;
    outputs_are_right(lane, run, &versions).await;
    let results = results(lane).await;
    let mut jobs = BTreeMap::new();
    let acknowledged = lane.cloud().acknowledgements(&lane.push).unwrap();
    for (id, asks) in &run.published {
        let of_the_message: Vec<_> = results
            .iter()
            .filter(|result| result.data["messageId"] == **id)
            .collect();
        assert!(
            !of_the_message.is_empty(),
            "message {id} ({asks:?}) was acknowledged without a result"
        );
        let acknowledgements: Vec<_> = acknowledged.iter().filter(|ack| ack.message_id == *id).collect();
        assert_eq!(acknowledgements.len(), 1, "message {id}");
        assert!(
            of_the_message
                .iter()
                .any(|result| result.number <= acknowledgements[0].published),
            "message {id} ({asks:?}) was acknowledged before its result was on the topic"
        );
        for result in of_the_message {
            let status = result.data["status"].as_str().unwrap();
            let overtaken = *asks == Asks::Old && status == "superseded" && result.number > run.replaced_after;
            assert!(status == "succeeded" || overtaken, "{asks:?}: {}", result.data);
            let source = &result.data["source"]["name"];
            assert_eq!(*source, run.object(*asks), "{}", result.data);
            // What a message names is what is read, or nothing.
            let generations = &run.generations[&run.object(*asks)];
            let pinned = if *asks == Asks::New {
                generations.last()
            } else {
                generations.first()
            };
            let generation = result.data["source"]["generation"].as_str().map(str::to_owned);
            assert_eq!(generation.as_ref(), pinned, "{asks:?}: {}", result.data);
            let job = result.data["jobId"].as_str().unwrap().to_owned();
            assert_eq!(
                *jobs.entry(*asks).or_insert_with(|| job.clone()),
                job,
                "one job has two ids"
            );
            if status == "succeeded" {
                assert_eq!(
                    result.data["outputs"].as_array().unwrap().len(),
                    names(run, *asks).len()
                );
                promises_hold(&result.data, &versions);
            }
        }
    }
    let known: BTreeSet<&str> = run.published.iter().map(|(id, _)| id.as_str()).collect();
    for result in &results {
        let id = result.data["messageId"].as_str().unwrap();
        assert!(known.contains(id), "a result for no message: {}", result.data);
    }
}

/// Where the outputs of a job go.
fn names(run: &Run, asks: Asks) -> Vec<String> {
    let object = run.object(asks);
    let stem = object.strip_suffix(".txt").unwrap();
    let archive = (asks == Asks::Two).then(|| format!("{stem}-archive.pdf"));
    [Some(format!("{stem}.pdf")), archive].into_iter().flatten().collect()
}

/// Every name has one live object of the newest source, and had no other but of older sources.
async fn outputs_are_right(lane: &Lane, run: &Run, versions: &[Value]) {
    let mut by_name: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for version in versions {
        by_name
            .entry(version["name"].as_str().unwrap())
            .or_default()
            .push(version);
    }
    let mut expected = BTreeSet::new();
    for asks in [Asks::One, Asks::Two, Asks::New] {
        let generations = &run.generations[&run.object(asks)];
        for name in names(run, asks) {
            let there = by_name
                .get(name.as_str())
                .unwrap_or_else(|| panic!("{name} was not made"));
            // In the order they were written, each from a newer source than the one before.
            let mut made_from: Vec<_> = there
                .iter()
                .map(|version| {
                    let source = version["metadata"]["platen-source"].as_str().unwrap();
                    let generation = source
                        .strip_prefix(&format!("gs://{INPUT}/{}#", run.object(asks)))
                        .unwrap_or_else(|| panic!("{name} is of {source}"));
                    generations.iter().position(|known| known == generation).unwrap()
                })
                .collect();
            assert_eq!(
                made_from.pop(),
                Some(generations.len() - 1),
                "{name} is not of the newest source"
            );
            assert!(
                made_from.is_sorted_by(|older, newer| older < newer),
                "{name} was written twice: {there:?}"
            );
            assert!(made_from.len() < generations.len());
            let live: Vec<_> = there
                .iter()
                .filter(|version| version.get("timeDeleted").is_none())
                .collect();
            assert_eq!(live.len(), 1, "{name}: {there:?}");
            assert_eq!(live[0]["generation"], there[there.len() - 1]["generation"]);
            reads_well(lane, live[0], &name, &run.text(asks)).await;
            expected.insert(name);
        }
    }
    let found: BTreeSet<String> = by_name.keys().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, expected);
}

/// The live object is a PDF that says what its source says, under the right headers.
async fn reads_well(lane: &Lane, object: &Value, name: &str, text: &str) {
    let bytes = content(lane, object).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &bytes).unwrap();
    assert_eq!(pdf_text(file.path()).trim(), text, "{name}");
    assert_eq!(object["crc32c"], STANDARD.encode(crc32c::crc32c(&bytes).to_be_bytes()));
    assert_eq!(object["size"], bytes.len().to_string());
    assert_eq!(object["contentType"], "application/pdf");
    let file_name = name.rsplit('/').next().unwrap();
    let disposition = object["contentDisposition"].as_str().unwrap();
    assert!(disposition.contains(&format!("\"{file_name}\"")), "{disposition}");
}

/// What a result says is there, is or was there, made by this job.
fn promises_hold(result: &Value, versions: &[Value]) {
    for output in result["outputs"].as_array().unwrap() {
        let there = versions
            .iter()
            .find(|version| version["name"] == output["name"] && version["generation"] == output["generation"])
            .unwrap_or_else(|| panic!("there never was {output}"));
        for field in ["bucket", "size", "crc32c", "contentType"] {
            assert_eq!(there[field], output[field], "{field}: {output}");
        }
        assert_eq!(there["metadata"]["platen-job"], result["jobId"], "{result}");
        assert!(
            output["signedUrl"]
                .as_str()
                .unwrap()
                .contains(output["generation"].as_str().unwrap())
        );
    }
}

/// Every generation that was ever under the prefix, in the order of names and times.
async fn versions(lane: &Lane, prefix: &str) -> Vec<Value> {
    let answer = lane
        .http
        .get(format!(
            "{}/storage/v1/b/{OUTPUT}/o?versions=true&prefix={prefix}",
            lane.cloud().urls().storage
        ))
        .bearer_auth(lane.cloud().access_token(USER))
        .send()
        .await
        .unwrap();
    let list: Value = answer.json().await.unwrap();
    let mut versions = list["items"].as_array().cloned().unwrap_or_default();
    let generation = |version: &Value| version["generation"].as_str().unwrap().parse::<u64>().unwrap();
    versions.sort_by_key(generation);
    versions
}

async fn content(lane: &Lane, object: &Value) -> Vec<u8> {
    let name = object["name"].as_str().unwrap();
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    let answer = lane
        .http
        .get(format!(
            "{}/storage/v1/b/{OUTPUT}/o/{encoded}?alt=media",
            lane.cloud().urls().storage
        ))
        .bearer_auth(lane.cloud().access_token(USER))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    answer.bytes().await.unwrap().to_vec()
}

/// Everything on the result topic since the run before.
async fn results(lane: &Lane) -> Vec<Published> {
    let call = async |verb: &str, body: Value| {
        let project = &lane.cloud().settings().project;
        let url = format!(
            "{}/v1/projects/{project}/subscriptions/results:{verb}",
            lane.cloud().urls().pubsub
        );
        let token = lane.cloud().access_token(USER);
        let answer = lane.http.post(url).bearer_auth(token).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json::<Value>().await.unwrap()
    };
    let mut results = Vec::new();
    loop {
        let pulled = call("pull", json!({"maxMessages": 1000, "returnImmediately": true})).await;
        let Some(received) = pulled["receivedMessages"]
            .as_array()
            .filter(|received| !received.is_empty())
        else {
            return results;
        };
        for message in received {
            let data = STANDARD.decode(message["message"]["data"].as_str().unwrap()).unwrap();
            results.push(Published {
                number: number_of(message["message"]["messageId"].as_str().unwrap()).unwrap(),
                data: serde_json::from_slice(&data).unwrap(),
            });
        }
        let ids: Vec<_> = received.iter().map(|message| message["ackId"].clone()).collect();
        call("acknowledge", json!({"ackIds": ids})).await;
    }
}
