//! Uploads against a bucket that breaks at every moment: what is in it afterwards, and how many requests it took.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use platen::google::http::{Http, Timeouts};
use platen::google::retry::Budget;
use platen::google::storage::{Object, Storage, Upload};
use platen::google::token::{Settings, Tokens};
use platen::google::{Error, Kind};

use crate::breaking_bucket::{Bucket, Fault, Fault::*, SECRET};
use crate::peer::{Peer, Reply};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Above what goes in one request.
const LARGE: usize = 20 * MIB;

/// Bytes that differ from place to place, so that a piece in the wrong place shows.
fn bytes(size: usize) -> Vec<u8> {
    (0..size).map(|at| (at % 251) as u8 ^ (at / 65_536) as u8).collect()
}

fn client(bucket: &Bucket, silence: Duration) -> Storage {
    let timeouts = Timeouts {
        connect: Duration::from_secs(5),
        progress: silence,
    };
    Storage::new(Http::with(timeouts).unwrap(), &bucket.url, None)
}

/// Longer than any pause of a busy machine, so that no request is made for want of patience.
const PATIENT: Duration = Duration::from_secs(60);

async fn upload_with(client: &Storage, content: &[u8], if_generation_match: i64) -> Result<Object, Error> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(content).unwrap();
    let metadata = BTreeMap::from([("platen-job".to_owned(), "j".to_owned())]);
    let outcome = client
        .upload(&Upload {
            bucket: "out",
            name: "big.pdf",
            content_type: "application/pdf",
            content_disposition: None,
            metadata: &metadata,
            file: file.path(),
            size: content.len() as u64,
            crc32c: crc32c::crc32c(content),
            if_generation_match,
        })
        .await;
    if let Err(error) = &outcome {
        let said = format!("{error} {error:?}");
        assert!(!said.contains(SECRET) && !said.contains("upload_id"), "{said}");
    }
    outcome
}

async fn upload(bucket: &Bucket, content: &[u8]) -> Result<Object, Error> {
    upload_with(&client(bucket, PATIENT), content, 0).await
}

/// The upload succeeds, its bytes are there once, and these were the requests.
async fn succeeds(size: usize, faults: Vec<Fault>, requests: &[&str]) {
    let (content, shown) = (bytes(size), format!("{size} bytes, {faults:?}"));
    let bucket = Bucket::start(faults);
    let object = upload(&bucket, &content)
        .await
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    assert_eq!(bucket.requests(), requests, "{shown}");
    let stored = bucket.objects();
    assert_eq!(stored.len(), 1, "{shown}");
    assert_eq!(object.generation, stored[0].0, "{shown}");
    assert!(stored[0].1 == content, "{shown}: other bytes");
}

#[tokio::test]
async fn what_fits_in_one_request_goes_in_one() {
    succeeds(1, vec![], &["multipart"]).await;
    succeeds(8 * MIB, vec![], &["multipart"]).await;
    succeeds(8 * MIB + 1, vec![], &["start", "send 0"]).await;
    succeeds(LARGE, vec![], &["start", "send 0"]).await;
}

#[tokio::test]
async fn one_request_that_breaks_is_sent_again_whole() {
    for fault in [
        ResetAt(0),
        ResetAt(5 * MIB),
        StatusAt(503, 256 * KIB),
        Status(408),
        Status(429),
        Status(502),
        Damage,
    ] {
        succeeds(8 * MIB, vec![fault], &["multipart", "multipart"]).await;
    }
}

#[tokio::test]
async fn a_start_that_breaks_is_made_again() {
    for fault in [ResetAt(0), Status(503), Status(429), LoseAnswer] {
        succeeds(LARGE, vec![fault], &["start", "start", "send 0"]).await;
    }
}

#[tokio::test]
async fn what_breaks_goes_on_where_the_bucket_has_it() {
    let (quarter, all_of_8) = ("send 262144", "send 8388608");
    for (fault, then) in [
        (ResetAt(0), "send 0"),
        (ResetAt(100 * KIB), "send 0"),
        (ResetAt(300 * KIB), quarter),
        (StatusAt(503, 256 * KIB), quarter),
        (StatusAt(503, 8 * MIB), all_of_8),
        (StatusAt(500, 9 * MIB - 1), "send 9175040"),
        (Status(408), "send 0"),
        (Status(429), "send 0"),
        (Status(504), "send 0"),
    ] {
        succeeds(LARGE, vec![Served, fault], &["start", "send 0", "ask", then]).await;
    }
    // Without a break: the bucket takes less than it was sent, and says so.
    succeeds(LARGE, vec![Served, Keep(9 * MIB)], &["start", "send 0", "send 9437184"]).await;
}

#[tokio::test]
async fn several_breaks_of_one_upload_are_all_gone_on_from() {
    succeeds(
        LARGE,
        vec![
            Served,
            StatusAt(503, 8 * MIB),
            Status(503),
            ResetAt(0),
            Served,
            ResetAt(MIB),
            LoseAnswer,
        ],
        &[
            "start",
            "send 0",
            "ask",
            "ask",
            "ask",
            "send 8388608",
            "ask",
            "ask",
            "send 9437184",
        ],
    )
    .await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_found_by_asking() {
    succeeds(LARGE, vec![Served, LoseAnswer], &["start", "send 0", "ask"]).await;
    succeeds(
        LARGE,
        vec![Served, LoseAnswer, LoseAnswer],
        &["start", "send 0", "ask", "ask"],
    )
    .await;
}

#[tokio::test]
async fn a_session_that_has_all_and_has_not_finished_is_asked_again() {
    succeeds(LARGE, vec![Served, Unfinished], &["start", "send 0", "ask"]).await;
    succeeds(
        LARGE,
        vec![Served, Unfinished, Unfinished],
        &["start", "send 0", "ask", "ask"],
    )
    .await;
}

#[tokio::test]
async fn a_session_is_its_own_proof_and_gets_no_token() {
    let answer = serde_json::json!({"access_token": "t", "expires_in": 3600});
    let metadata = Peer::replies(vec![Reply::json(200, answer).with("Metadata-Flavor", "Google")]);
    let settings = Settings {
        metadata_host: Some(metadata.url.clone()),
        ..Settings::default()
    };
    let http = Http::new().unwrap();
    let tokens = Tokens::discover(http.clone(), &settings).await.unwrap();
    let (bucket, content) = (Bucket::start(vec![Served, ResetAt(MIB)]), bytes(LARGE));
    let client = Storage::new(http, &bucket.url, tokens);
    upload_with(&client, &content, 0).await.unwrap();
    assert_eq!(
        bucket.requests(),
        ["start with a token", "send 0", "ask", "send 1048576"]
    );
}

#[tokio::test]
async fn a_bucket_that_cannot_be_reached_was_sent_nothing_and_is_not_asked() {
    succeeds(LARGE, vec![GoAway], &["start", "send 0"]).await;
}

#[tokio::test]
async fn a_session_that_is_gone_begins_anew() {
    for status in [404, 410] {
        let requests = ["start", "send 0", "start", "send 0"];
        succeeds(LARGE, vec![Served, Forget(status)], &requests).await;
        let requests = ["start", "send 0", "ask", "start", "send 0"];
        succeeds(LARGE, vec![Served, ResetAt(9 * MIB), Forget(status)], &requests).await;
        let requests = ["start", "send 0", "ask", "send 9437184", "start", "send 0"];
        let faults = vec![Served, ResetAt(9 * MIB), Served, Forget(status)];
        succeeds(LARGE, faults, &requests).await;
    }
}

#[tokio::test]
async fn bytes_that_arrive_damaged_are_sent_again() {
    succeeds(LARGE, vec![Served, Damage], &["start", "send 0", "start", "send 0"]).await;
    for (size, faults) in [(MIB, vec![Damage; 9]), (LARGE, [Served, Damage].repeat(9))] {
        let bucket = Bucket::start(faults);
        let error = upload(&bucket, &bytes(size)).await.unwrap_err();
        assert_eq!((error.kind, error.is_transient()), (Kind::Corrupt, true), "{error}");
        assert_eq!(bucket.requests().len(), if size == MIB { 3 } else { 6 });
        assert!(bucket.objects().is_empty());
    }
}

#[tokio::test]
async fn a_precondition_fails_at_the_start_and_at_the_end() {
    let content = bytes(LARGE);
    let refused = |error: Error| assert_eq!(error.kind, Kind::PreconditionFailed, "{error}");
    for (faults, requests) in [
        (vec![Intrude], &["start"][..]),
        (vec![Served, Intrude], &["start", "send 0"]),
        (
            vec![Served, ResetAt(MIB), Intrude],
            &["start", "send 0", "ask", "send 1048576"],
        ),
    ] {
        let bucket = Bucket::start(faults);
        refused(upload(&bucket, &content).await.unwrap_err());
        assert_eq!(bucket.requests(), requests);
        assert_eq!(bucket.objects().len(), 1, "the intruder's alone");
        assert!(bucket.objects()[0].1 != content);
    }

    // A lost answer of one request, and of a session that is forgotten since: our own object is what is in the way.
    for (size, faults) in [(MIB, vec![LoseAnswer]), (LARGE, vec![Served, LoseAnswer, Forget(410)])] {
        let (bucket, content) = (Bucket::start(faults), bytes(size));
        refused(upload(&bucket, &content).await.unwrap_err());
        assert_eq!(bucket.objects().len(), 1);
        assert!(bucket.objects()[0].1 == content);
    }
}

#[tokio::test]
async fn an_older_generation_is_replaced_and_no_other() {
    let (bucket, content) = (Bucket::start(vec![Served, Served, StatusAt(503, MIB)]), bytes(LARGE));
    let older = bucket.write(b"older");
    let client = client(&bucket, PATIENT);
    let error = upload_with(&client, &content, older + 1).await.unwrap_err();
    assert_eq!(error.kind, Kind::PreconditionFailed);
    upload_with(&client, &content, older).await.unwrap();
    assert_eq!(bucket.requests(), ["start", "start", "send 0", "ask", "send 1048576"]);
    assert!(bucket.objects()[1].1 == content);
}

#[tokio::test]
async fn what_a_retry_cannot_mend_is_said_at_once() {
    for (status, kind) in [
        (400, Kind::Invalid),
        (401, Kind::Unauthenticated),
        (403, Kind::Forbidden),
    ] {
        for faults in [
            vec![Status(status)],
            vec![Served, Status(status)],
            vec![Served, ResetAt(0), Status(status)],
        ] {
            let (bucket, length) = (Bucket::start(faults.clone()), faults.len());
            let error = upload(&bucket, &bytes(LARGE)).await.unwrap_err();
            assert_eq!((error.kind, bucket.requests().len()), (kind, length), "{faults:?}");
            assert!(bucket.objects().is_empty());
        }
    }
}

#[tokio::test]
async fn a_session_on_another_host_gets_nothing() {
    let other = Bucket::start(vec![]);
    for place in [
        String::leak(other.url.clone()),
        "https://storage.googleapis.com",
        "http://127.0.0.1@storage.example",
        "",
    ] {
        let bucket = Bucket::start(vec![StartAt(place)]);
        let error = upload(&bucket, &bytes(LARGE)).await.unwrap_err();
        assert_eq!(error.kind, Kind::Invalid, "{place}: {error}");
        assert_eq!(bucket.requests(), ["start"]);
    }
    assert!(other.requests().is_empty());
}

#[tokio::test]
async fn a_wait_that_is_too_long_is_handed_on() {
    for (size, faults) in [
        (MIB, vec![RetryAfter(77)]),
        (LARGE, vec![RetryAfter(77)]),
        (LARGE, vec![Served, RetryAfter(77)]),
        (LARGE, vec![Served, ResetAt(0), RetryAfter(77)]),
    ] {
        let (bucket, length) = (Bucket::start(faults.clone()), faults.len());
        let error = upload(&bucket, &bytes(size)).await.unwrap_err();
        assert_eq!(error.retry_after, Some(Duration::from_secs(77)), "{faults:?}: {error}");
        assert_eq!(bucket.requests().len(), length, "{faults:?}");
    }
    // One that fits is waited for.
    succeeds(
        LARGE,
        vec![Served, RetryAfter(1)],
        &["start", "send 0", "ask", "send 0"],
    )
    .await;
}

#[tokio::test]
async fn what_stalls_is_left_and_gone_on_with() {
    for (fault, then) in [(StallAt(9 * MIB), "send 9437184"), (Silence, "send 0")] {
        let (bucket, content) = (Bucket::start(vec![Served, fault]), bytes(LARGE));
        upload_with(&client(&bucket, Duration::from_secs(2)), &content, 0)
            .await
            .unwrap();
        assert_eq!(bucket.requests()[..4], ["start", "send 0", "ask", then]);
        assert!(bucket.objects()[0].1 == content);
    }
}

#[tokio::test]
async fn an_upload_that_gets_nowhere_ends_with_its_budget() {
    for faults in [
        &[ResetAt(100 * KIB)][..],
        &[Status(503)],
        &[Keep(100 * KIB)],
        &[StatusAt(308, 0)],
        // The start that follows is served.
        &[Forget(410), Served],
    ] {
        let endless = std::iter::once(Served).chain(faults.iter().copied().cycle().take(300));
        let bucket = Bucket::start(endless.collect());
        let client = client(&bucket, PATIENT).within(&Budget::new(Duration::from_secs(2)));
        let error = upload_with(&client, &bytes(LARGE), 0).await.unwrap_err();
        assert!(
            matches!(error.kind, Kind::Unavailable | Kind::NotFound | Kind::Invalid),
            "{faults:?}: {error}"
        );
        // Pauses that double leave room for few.
        let requests = bucket.requests();
        let sent = requests.iter().filter(|request| request.starts_with("send")).count();
        assert!((1..14).contains(&sent), "{faults:?}: {requests:?}");
        assert!(bucket.objects().is_empty());
    }
}

#[tokio::test]
async fn an_upload_that_gets_on_is_not_starved() {
    // Forty breaks of half a mebibyte each: with pauses that grew, these alone would take minutes.
    let breaks = [ResetAt(512 * KIB), Served].repeat(39);
    let bucket = Bucket::start(std::iter::once(Served).chain(breaks).collect());
    let content = bytes(LARGE);
    upload(&bucket, &content).await.unwrap();
    assert_eq!(bucket.requests().len(), 1 + 2 * 39 + 1);
    assert!(bucket.objects()[0].1 == content);
}
