//! Whether everything came out right, told from what was done, what was answered, and what is stored.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;

use futures_util::{StreamExt, stream};
use platen::local_cloud::{LocalCloud, Peer};
use serde_json::Value;

use super::ATTEMPTS;
use super::door::{Delivery, Door};
use super::feed::{Expected, Generation, Ledger, Said};
use super::fleet::Fleet;
use super::results::{Made, Record, Results};
use super::{call, http};
use crate::harness::{OUTPUT, encode, pdf_text};

const EXHAUSTED: &str = "attempts.exhausted";
const BAD_LUCK: &str = "bad luck";
/// Of how many links one is followed.
const LINKS: usize = 25;

/// Which way messages took, and what is wrong with any.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) counts: BTreeMap<String, usize>,
    pub(super) repeated_results: usize,
    pub(super) problems: Vec<String>,
}

pub(super) fn messages(ledger: &Ledger, results: &Results<'_>, door: &Door) -> Ways {
    let mut ways = Ways::default();
    for (number, said) in ledger.messages.iter().enumerate() {
        let records = results.records.get(&said.id).map_or(&[][..], Vec::as_slice);
        let given_up = results.given_up.get(&number).copied();
        let deliveries = door.deliveries(&said.id);
        ways.repeated_results += records.len().saturating_sub(1);
        for record in records {
            if let Err(problem) = judge(ledger, said, record, given_up.is_some()) {
                ways.problems
                    .push(format!("{problem}: {record:?} of {said:?} after {deliveries:?}"));
            }
        }
        match way(ledger, said, records, given_up, &deliveries) {
            Ok(way) => *ways.counts.entry(way).or_default() += 1,
            Err(problem) => ways
                .problems
                .push(format!("{problem}: {said:?}, {records:?} after {deliveries:?}")),
        }
    }
    let known: BTreeSet<&str> = ledger.messages.iter().map(|said| said.id.as_str()).collect();
    for id in results.records.keys() {
        if !known.contains(id.as_str()) {
            ways.problems.push(format!("a result of no message: {id}"));
        }
    }
    // Faults are rare enough that next to no message meets one at every delivery; what always fails is no bad luck.
    let unlucky: usize = ways
        .counts
        .iter()
        .filter(|(way, _)| way.contains(BAD_LUCK))
        .map(|(_, count)| count)
        .sum();
    if unlucky > 2 + ledger.messages.len() / 100 {
        ways.problems.push(format!(
            "{unlucky} messages were given up that could be done: {:?}",
            ways.counts
        ));
    }
    for (status, count) in door.answers() {
        if ![0, 204, 429, 503].contains(&status) {
            ways.problems.push(format!("{count} times a worker answered {status}"));
        }
    }
    ways
}

/// How a message ended.
fn way(
    ledger: &Ledger,
    said: &Said,
    records: &[Record],
    given_up: Option<u32>,
    deliveries: &[Delivery],
) -> Result<String, &'static str> {
    let ignored = matches!(said.expected, Expected::Ignored);
    let acknowledged = deliveries.iter().any(|delivery| delivery.status == Some(204));
    let conclusive = |record: &&Record| record.code.as_deref() != Some(EXHAUSTED);
    // `attempts.exhausted` is of a delivery that was refused: it is no result to acknowledge another one with.
    if acknowledged && !ignored && !records.iter().any(|record| conclusive(&record)) {
        return Err("acknowledged without a result");
    }
    if let Some(deliveries_made) = given_up {
        if deliveries_made < ATTEMPTS {
            return Err("given up too early");
        }
        let refused_at_last = deliveries.iter().any(|delivery| {
            delivery.attempt >= u64::from(ATTEMPTS) && matches!(delivery.status, Some(429 | 500 | 503))
        });
        let reported = records.iter().any(|record| !conclusive(&record));
        return match (reported, refused_at_last) {
            (false, true) if !ignored => Err("refused for the last time without attempts.exhausted"),
            (reported, _) => Ok(format!(
                "given up, {}, {}",
                if cursed(ledger, said) {
                    "not allowed to be read"
                } else {
                    "bad luck"
                },
                if reported {
                    EXHAUSTED
                } else {
                    "the last delivery reached no worker that lived to refuse it"
                }
            )),
        };
    }
    if ignored {
        return Ok("ignored".to_owned());
    }
    if cursed(ledger, said) {
        return Err("a source that cannot be read, and the message was not given up");
    }
    let first = records
        .iter()
        .filter(conclusive)
        .min_by_key(|record| record.attempt)
        .ok_or("neither a result nor a dead letter")?;
    Ok(match (first.status.as_str(), &first.code, first.attempt) {
        ("succeeded", _, 1) => "succeeded, delivery 1".to_owned(),
        ("succeeded", _, 2) => "succeeded, delivery 2".to_owned(),
        ("succeeded", _, 3..=5) => "succeeded, delivery 3 to 5".to_owned(),
        ("succeeded", ..) => "succeeded, delivery 6 or later".to_owned(),
        (_, Some(code), _) => format!("failed, {code}"),
        (status, ..) => status.to_owned(),
    })
}

fn cursed(ledger: &Ledger, said: &Said) -> bool {
    match said.expected {
        Expected::Notification { source, .. } | Expected::Job { source, .. } => ledger.sources[source].cursed,
        _ => false,
    }
}

/// Whether a result is one that its message may have.
fn judge(ledger: &Ledger, said: &Said, record: &Record, given_up: bool) -> Result<(), &'static str> {
    let status = record.status.as_str();
    let code = record.code.as_deref();
    if code == Some(EXHAUSTED) {
        return if given_up { Ok(()) } else { Err("not exhausted at all") };
    }
    let right = |right: bool, problem| if right { Ok(()) } else { Err(problem) };
    match &said.expected {
        Expected::Ignored => Err("a result of a message that is to be ignored"),
        Expected::Failure(expected) => right(code == Some(expected), "another failure than the poison has"),
        Expected::Gone => right(status == "superseded", "a generation that never was"),
        Expected::Notification { source, generation } => {
            let source = &ledger.sources[*source];
            let it = source.generation(*generation).unwrap();
            match (status, code) {
                ("succeeded", _) => {
                    right(
                        it.nature.code().is_none() && !source.foreign && !source.cursed,
                        "cannot succeed",
                    )?;
                    right(
                        record.source.as_ref() == Some(&source.name) && record.generation == Some(*generation),
                        "another source",
                    )?;
                    let names: Vec<&str> = record.outputs.iter().map(|output| output.name.as_str()).collect();
                    right(names == [source.output()], "another output")
                }
                ("superseded", _) => right(overtaken(it, record), "superseded by nothing"),
                (_, Some("output.conflict")) => right(source.contended, "nobody else has that name"),
                (_, code) => right(code.is_some() && code == it.nature.code(), "not what is wrong with it"),
            }
        }
        Expected::Job {
            source,
            generation,
            outputs,
            user_data,
        } => {
            let source = &ledger.sources[*source];
            right(record.user_data == *user_data, "other user data")?;
            let known = generation.or(record.generation).map(|number| {
                source
                    .generation(number)
                    .expect("a generation that was there when it was looked at")
            });
            match (status, code, known) {
                ("succeeded", _, Some(it)) => {
                    right(it.nature.code().is_none(), "cannot succeed")?;
                    right(record.generation == Some(it.number), "another generation")?;
                    let names: Vec<&String> = record.outputs.iter().map(|output| &output.name).collect();
                    right(names.into_iter().eq(outputs), "other outputs")
                }
                ("superseded", _, Some(it)) => right(overtaken(it, record), "superseded by nothing"),
                (_, Some("source.not_found"), None) => right(
                    source.deleted_after.is_some_and(|moment| moment < record.number),
                    "it was there all the time",
                ),
                (_, code, Some(it)) => right(code.is_some() && code == it.nature.code(), "not what is wrong with it"),
                _ => Err("not a way for a job"),
            }
        }
    }
}

/// Whether the source was replaced or deleted before the result was out.
fn overtaken(generation: &Generation, record: &Record) -> bool {
    generation.gone_after.is_some_and(|moment| moment < record.number)
}

/// Whether the storm was one: what is checked after it says little of what met no fault and lost no worker.
pub(super) fn exercised(cloud: &LocalCloud, fleet: &Fleet, is_whole: bool) {
    assert!(fleet.kills > 0, "no worker was killed");
    let hits = cloud.fault_hits();
    // A status may be what the cursed sources meet.
    let met = |peer: Peer| {
        hits.iter()
            .any(|((hit, effect), count)| *hit == peer && *effect != "status" && *count > 0)
    };
    let usual = [Peer::Storage, Peer::Push];
    // These are asked so seldom that a short storm may pass them by.
    let rare = [Peer::Pubsub, Peer::Iam, Peer::Metadata, Peer::Jwks];
    for peer in usual.into_iter().chain(rare.into_iter().filter(|_| is_whole)) {
        assert!(met(peer), "{peer:?} met no fault: {hits:?}");
    }
}

/// One generation of an output.
struct Version {
    generation: i64,
    live: bool,
    job: String,
    source: usize,
    made_from: i64,
    pages: Option<u64>,
    crc32c: String,
}

#[derive(Debug, Default)]
pub(super) struct Outputs {
    pub(super) names: usize,
    pub(super) versions: usize,
    pub(super) links: usize,
    pub(super) problems: Vec<String>,
}

pub(super) async fn outputs(cloud: &LocalCloud, ledger: &Ledger, results: &Results<'_>) -> Outputs {
    let mut found = Outputs::default();
    let mut versions: BTreeMap<String, Vec<Version>> = BTreeMap::new();
    let sources: HashMap<&str, usize> = (0..)
        .zip(&ledger.sources)
        .map(|(index, source)| (source.name.as_str(), index))
        .collect();
    let mut foreign = Vec::new();
    let listed = list(cloud).await;
    let mut read = stream::iter(&listed)
        .map(|object| async move { (object, text(cloud, object).await) })
        .buffer_unordered(4);
    while let Some((object, text)) = read.next().await {
        let name = object["name"].as_str().unwrap().to_owned();
        let generation = number(&object["generation"]);
        if object["metadata"].is_null() {
            foreign.push((name, generation));
            continue;
        }
        match version(ledger, &sources, object, &text) {
            Ok(version) => versions.entry(name).or_default().push(version),
            Err(problem) => found
                .problems
                .push(format!("{problem}: {object} with the text {text:?}")),
        }
    }
    drop(read);
    foreign.sort();
    if foreign != ledger.foreign {
        found
            .problems
            .push(format!("somebody else's objects are touched: {foreign:?}"));
    }
    for (name, versions) in &mut versions {
        versions.sort_by_key(|version| version.generation);
        found.problems.extend(history(ledger, name, versions));
    }
    found.names = versions.len();
    found.versions = versions.values().map(Vec::len).sum();
    found.problems.extend(promised(results, &versions));
    found.problems.extend(newest(ledger, results, &versions));
    follow_links(results, &versions, &mut found).await;
    found
}

/// All that was ever written to the output bucket.
async fn list(cloud: &LocalCloud) -> Vec<Value> {
    let (http, mut all, mut page) = (http(), Vec::new(), String::new());
    loop {
        let url = format!("{}/storage/v1/b/{OUTPUT}/o?versions=true{page}", cloud.urls().storage);
        let request = http.get(url);
        let mut answer = call(request, cloud).await;
        if let Value::Array(items) = answer["items"].take() {
            all.extend(items);
        }
        match answer["nextPageToken"].as_str() {
            Some(next) => page = format!("&pageToken={}", encode(next)),
            None => return all,
        }
    }
}

/// What can be read in an output; of somebody else's object, nothing.
async fn text(cloud: &LocalCloud, object: &Value) -> String {
    if object["metadata"].is_null() {
        return String::new();
    }
    let url = format!(
        "{}/storage/v1/b/{OUTPUT}/o/{}?alt=media&generation={}",
        cloud.urls().storage,
        encode(object["name"].as_str().unwrap()),
        object["generation"].as_str().unwrap()
    );
    let request = http().get(url).bearer_auth(cloud.access_token(crate::harness::USER));
    let answer = request.send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let bytes = answer.bytes().await.unwrap();
    if object["contentType"] != "application/pdf" {
        return String::from_utf8(bytes.to_vec()).unwrap();
    }
    tokio::task::spawn_blocking(move || {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        pdf_text(file.path())
    })
    .await
    .unwrap()
}

fn number(value: &Value) -> i64 {
    value.as_str().unwrap().parse().unwrap()
}

/// Whether what is stored is what its metadata says, and of a source that may have that name.
fn version(
    ledger: &Ledger,
    sources: &HashMap<&str, usize>,
    object: &Value,
    text: &str,
) -> Result<Version, &'static str> {
    let metadata = |name: &str| object["metadata"][name].as_str();
    let (source, made_from) = metadata("platen-source")
        .and_then(|source| source.strip_prefix("gs://")?.split_once('/')?.1.rsplit_once('#'))
        .ok_or("no source in the metadata")?;
    let index = *sources.get(source).ok_or("no such source")?;
    let source = &ledger.sources[index];
    let whole = format!("gs://{}/{}#{made_from}", source.bucket, source.name);
    if metadata("platen-source") != Some(&whole) {
        return Err("another bucket");
    }
    let generation = source
        .generation(made_from.parse().map_err(|_| "no generation")?)
        .ok_or("no such generation")?;
    let name = object["name"].as_str().unwrap();
    let stem = source.output().trim_end_matches("pdf").to_owned();
    let extension = name.strip_prefix(&stem).ok_or("another's name")?;
    if extension != "pdf" && !extension.starts_with("job") {
        return Err("another's name");
    }
    if metadata("platen-version") != Some(env!("CARGO_PKG_VERSION")) {
        return Err("no version");
    }
    let kind = if name.ends_with(".pdf") {
        "application/pdf"
    } else {
        "text/plain; charset=utf-8"
    };
    let disposition = object["contentDisposition"].as_str().unwrap_or_default();
    if object["contentType"] != kind || !disposition.starts_with("attachment") {
        return Err("another content type or disposition");
    }
    if text.matches("storm").count() != 1 || !text.contains(&generation.marker) {
        return Err("not the text of that generation");
    }
    Ok(Version {
        generation: number(&object["generation"]),
        live: object["timeDeleted"].is_null(),
        job: metadata("platen-job").ok_or("no job")?.to_owned(),
        source: index,
        made_from: generation.number,
        pages: metadata("platen-pages").and_then(|pages| pages.parse().ok()),
        crc32c: object["crc32c"].as_str().unwrap().to_owned(),
    })
}

/// A name belongs to one source for ever, goes from generation to newer generation, and none is written twice.
fn history(ledger: &Ledger, name: &str, versions: &[Version]) -> Vec<String> {
    let mut problems = Vec::new();
    for pair in versions.windows(2) {
        if pair[0].source != pair[1].source {
            problems.push(format!("{name} went from one source to another"));
        } else if pair[0].made_from >= pair[1].made_from {
            let source = &ledger.sources[pair[0].source].name;
            problems.push(format!(
                "{name} of {source} went from generation {} to {} (jobs {} and {})",
                pair[0].made_from, pair[1].made_from, pair[0].job, pair[1].job
            ));
        }
    }
    if versions.last().is_none_or(|last| !last.live) || versions.iter().filter(|version| version.live).count() != 1 {
        problems.push(format!("{name} has not one live generation, the last"));
    }
    problems
}

fn made<'a>(versions: &'a BTreeMap<String, Vec<Version>>, output: &Made) -> Option<&'a Version> {
    versions
        .get(&output.name)?
        .iter()
        .find(|version| version.generation == output.generation)
}

/// Every output of every result is there, as the result says.
fn promised(results: &Results<'_>, versions: &BTreeMap<String, Vec<Version>>) -> Vec<String> {
    let mut problems = Vec::new();
    for record in results.records.values().flatten() {
        for output in &record.outputs {
            let right = made(versions, output).is_some_and(|version| {
                record.job_id.as_ref() == Some(&version.job)
                    && record.generation == Some(version.made_from)
                    && output.crc32c.as_ref() == Some(&version.crc32c)
                    && output.pages == version.pages
            });
            if !right {
                problems.push(format!("a result promises what is not there: {output:?} of {record:?}"));
            }
        }
    }
    problems
}

/// The newest generation that is still there and was announced, is out.
fn newest(ledger: &Ledger, results: &Results<'_>, versions: &BTreeMap<String, Vec<Version>>) -> Vec<String> {
    let announced: BTreeSet<(usize, i64)> = ledger
        .messages
        .iter()
        .enumerate()
        .filter(|(number, _)| !results.given_up.contains_key(number))
        .filter_map(|(_, said)| match said.expected {
            Expected::Notification { source, generation } => Some((source, generation)),
            _ => None,
        })
        .collect();
    let mut problems = Vec::new();
    for (index, source) in ledger.sources.iter().enumerate() {
        let Some(newest) = source.newest() else { continue };
        let expected = newest.nature.code().is_none() && !source.foreign && announced.contains(&(index, newest.number));
        if !expected {
            continue;
        }
        let live = versions.get(&source.output()).and_then(|versions| versions.last());
        let right =
            live.is_some_and(|live| live.made_from == newest.number || source.contended && live.source != index);
        if !right {
            problems.push(format!(
                "{} is not the output of its newest generation",
                source.output()
            ));
        }
    }
    problems
}

/// Some of the links, as anybody could.
async fn follow_links(results: &Results<'_>, versions: &BTreeMap<String, Vec<Version>>, found: &mut Outputs) {
    let http = http();
    let outputs = results.records.values().flatten().flat_map(|record| &record.outputs);
    for output in outputs.step_by(LINKS) {
        let answer = http.get(&output.url).send().await.unwrap();
        let (status, bytes) = (answer.status(), answer.bytes().await.unwrap());
        let crc32c = base64::Engine::encode(
            &base64::engine::general_purpose::STANDARD,
            crc32c::crc32c(&bytes).to_be_bytes(),
        );
        let right = status == 200 && made(versions, output).is_some_and(|version| version.crc32c == crc32c);
        if !right {
            found
                .problems
                .push(format!("the link of {} gives {status}", output.name));
        }
        found.links += 1;
    }
}
