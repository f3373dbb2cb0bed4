//! A job begins only if its worst case fits, a full worker says so at once, and what a job could take comes back however
//! it ends.

use std::time::Duration;

use nix::sys::signal::Signal;
use platen::local_cloud::{Effect, Fault, Peer};
use serde_json::{Value, json};

use crate::engine_limits::NEVER_ENDS;
use crate::harness::{PATIENCE, World, converting, notification, signal, until};

const INVOICE: &str = "documents/plain/invoice.docx";

/// The machine's memory in bytes. A control group may give less, and then even less fits.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// What is left of a disk, in bytes.
fn room(directory: &std::path::Path) -> u64 {
    let counted = nix::sys::statvfs::statvfs(directory).unwrap();
    counted.blocks_available() * counted.fragment_size()
}

/// Posts a job whose place must be free.
async fn post(world: &World, event: &Value) -> u16 {
    let status = world.post(event).await.status().as_u16();
    assert_ne!(status, 429, "refused for nothing\n{}", world.worker.log());
    status
}

/// Posts until the worker is not full any more: of a job whose caller has hung up, nobody hears the end.
async fn post_when_there_is_room(world: &World, event: &Value) -> u16 {
    let started = std::time::Instant::now();
    loop {
        let status = world.post(event).await.status().as_u16();
        if status != 429 {
            return status;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "the place never came back\n{}",
            world.worker.log()
        );
    }
}

/// Fails some calls, in a way that is not worth another try.
fn fails(path_prefix: &str, count: u32, status: u16) -> Fault {
    Fault {
        peer: Some(Peer::Storage),
        method: None,
        path_prefix: path_prefix.to_owned(),
        skip: 0,
        count,
        effect: Effect::Status {
            status,
            // More than any delivery has.
            retry_after: Some(3600),
        },
    }
}

/// Has one job under way, and does something meanwhile.
async fn while_one_is_under_way(world: &World, meanwhile: impl AsyncFnOnce()) {
    let generation = world.upload_fixture(INVOICE, "first.docx").await;
    let first = notification("first.docx", &generation);
    let zygote = world.worker.zygote().await;
    let meanwhile = async {
        let child = world.worker.stopped_child(zygote).await;
        meanwhile().await;
        assert!(signal(child, Signal::SIGCONT));
    };
    let (answer, ()) = tokio::join!(world.post(&first), meanwhile);
    assert_eq!(answer.status(), 204, "{}", world.worker.log());
}

/// There are slots, but nothing else for a second job.
async fn a_second_does_not_fit(variables: &[(&str, &str)], because: &str, remedy: &str) {
    let variables = [&[("CONVERT_CONCURRENCY", "4")], variables].concat();
    let world = World::with(&variables).await;
    until("the start says what fits", || {
        world.worker.log().contains("jobs at once: 1 at most").then_some(())
    })
    .await;
    let warning = until("and warns", || {
        let log = world.worker.log();
        let line = log
            .lines()
            .find(|line| line.contains("CONVERT_CONCURRENCY allows 4 jobs"))?;
        Some(line.to_owned())
    })
    .await;
    assert!(warning.contains(remedy), "{warning}");
    let generation = world.upload_fixture(INVOICE, "second.docx").await;
    let second = notification("second.docx", &generation);
    while_one_is_under_way(&world, async || {
        let answer = world.post(&second).await;
        assert_eq!(answer.status(), 429, "{}", world.worker.log());
        let wait: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=60).contains(&wait));
        let body: Value = answer.json().await.unwrap();
        assert_eq!(body["error"]["code"], "worker.busy");
        let line = format!("429: what is under way may take all the {because}");
        until("it says why", || world.worker.log().contains(&line).then_some(())).await;
    })
    .await;
    assert_eq!(post(&world, &second).await, 204);
    assert_eq!(world.outputs().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_for_one_is_not_for_two() {
    let memory = format!("{}B", memory() / 10 * 6);
    a_second_does_not_fit(&[("CONVERT_MEMORY", &memory)], "memory", "Lower CONVERT_MEMORY or").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_for_one_is_not_for_two() {
    // Each output may be there twice.
    let output = format!("{}B", room(&std::env::temp_dir()) / 10 * 3);
    a_second_does_not_fit(&[("MAX_OUTPUT_SIZE", &output)], "disk", "MAX_OUTPUT_SIZE").await;
}

/// D6a: it has a place already when it shows how much it needs.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_turns_out_too_large_is_refused_and_the_worker_goes_on() {
    // Each output may be there twice: two of the smallest jobs fit with room to spare, one of six outputs and another do not.
    let output = format!("{}B", room(&std::env::temp_dir()) / 10);
    let world = World::with(&[("CONVERT_CONCURRENCY", "4"), ("MAX_OUTPUT_SIZE", &output)]).await;
    world.upload_fixture(INVOICE, "second.docx").await;
    let outputs: Vec<_> = (0..6)
        .map(|number| json!({"format": "pdf", "name": format!("{{stem}}-{number}.{{ext}}")}))
        .collect();
    let source = format!("gs://{}/second.docx", crate::harness::INPUT);
    let many = crate::harness::job(&json!({"source": source, "outputs": outputs}));
    let one = crate::harness::job(&json!({"source": source}));
    let post = async |event: &Value| {
        tokio::time::timeout(PATIENCE, world.post(event))
            .await
            .expect("it hangs")
    };
    while_one_is_under_way(&world, async || {
        for _ in 0..2 {
            let answer = post(&many).await;
            assert_eq!(answer.status(), 429, "{}", world.worker.log());
            let body: Value = answer.json().await.unwrap();
            assert_eq!(body["error"]["code"], "worker.busy");
        }
        until("it says why", || {
            world.worker.log().contains("may take all the disk").then_some(())
        })
        .await;
        assert_eq!(post(&one).await.status(), 204, "{}", world.worker.log());
    })
    .await;
    assert_eq!(post_when_there_is_room(&world, &many).await, 204);
    assert_eq!(world.outputs().await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_memory_count_as_memory() {
    let shared = std::path::Path::new("/dev/shm");
    if nix::sys::statfs::statfs(shared).map(|of| of.filesystem_type()).ok() != Some(nix::sys::statfs::TMPFS_MAGIC)
        || room(shared) < memory() / 4
    {
        println!("skipped: /dev/shm is no tmpfs, or has no room");
        return;
    }
    let output = format!("{}B", memory() / 10 * 3);
    let variables = [("MAX_OUTPUT_SIZE", output.as_str()), ("TMPDIR", "/dev/shm")];
    a_second_does_not_fit(&variables, "memory", "MAX_OUTPUT_SIZE or CONVERT_CONCURRENCY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_worker_asks_google_nothing_and_still_acknowledges_what_is_not_for_it() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "1")]).await;
    let generation = world.upload_fixture(INVOICE, "done.docx").await;
    let done = notification("done.docx", &generation);
    assert_eq!(world.post(&done).await.status(), 204);
    let mut last = done.clone();
    last["deliveryAttempt"] = json!(5);
    let mut not_for_it = done.clone();
    not_for_it["message"]["attributes"]["eventType"] = json!("OBJECT_DELETE");
    while_one_is_under_way(&world, async || {
        assert_eq!(world.post(&not_for_it).await.status(), 204);
        assert_eq!(
            world.post(&last).await.status(),
            204,
            "the last delivery reports what is done"
        );
        world
            .cloud
            .add_fault(fails("/storage/v1/b/input/o/done", Fault::ENDLESS, 503));
        assert_eq!(world.post(&done).await.status(), 429, "it looked");
        world.cloud.clear_faults();
    })
    .await;
    assert_eq!(post(&world, &done).await, 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_one_message_take_one_place() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "1")]).await;
    let generation = world.upload_fixture(INVOICE, "a.docx").await;
    let event = notification("a.docx", &generation);
    let answers = futures_util::future::join_all((0..20).map(|_| world.post(&event))).await;
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses, [204; 20]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_comes_back_however_its_job_ends() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "1"), ("CONVERT_TIMEOUT", "5s")]).await;
    let good = world.upload_fixture(INVOICE, "good.docx").await;
    let good = notification("good.docx", &good);
    // Each finds the one place free, and so does what comes after it.
    let zygote = world.worker.zygote().await;
    let ends: [(&str, &[u8]); 2] = [
        ("damaged.docx", b"PK\x03\x04 and no more"),
        ("endless.fods", NEVER_ENDS),
    ];
    for (name, bytes) in ends {
        let generation = world.upload(name, bytes.to_vec()).await;
        assert_eq!(post(&world, &notification(name, &generation)).await, 204, "{name}");
        assert_eq!(world.result().await.data["status"], "failed", "{name}");
    }
    // Something cannot be fetched, or not be stored.
    for (path, status, answer) in [
        ("/download/", 404, 204),
        ("/download/", 503, 503),
        ("/upload/", 503, 503),
    ] {
        let name = format!("{status} of {path}.docx");
        let generation = world.upload_fixture(INVOICE, &name).await;
        world.cloud.add_fault(fails(path, 1, status));
        assert_eq!(post(&world, &notification(&name, &generation)).await, answer, "{name}");
        world.cloud.clear_faults();
    }
    // The engine is killed under a job.
    let killed = world.upload_fixture(INVOICE, "killed.docx").await;
    let killed = notification("killed.docx", &killed);
    let kill = async {
        let child = world.worker.stopped_child(zygote).await;
        assert!(signal(zygote, Signal::SIGKILL));
        // It goes with its zygote.
        until("the child is gone", || {
            (!signal(child, Signal::SIGCONT) || converting(zygote).is_empty()).then_some(())
        })
        .await;
    };
    let (status, ()) = tokio::join!(post(&world, &killed), kill);
    assert_eq!(status, 503);
    until("a new zygote", || {
        crate::harness::children(world.worker.pid())
            .first()
            .filter(|child| **child != zygote)
            .map(|_| ())
    })
    .await;
    let started = std::time::Instant::now();
    while post(&world, &killed).await != 204 {
        assert!(started.elapsed() < PATIENCE, "{}", world.worker.log());
    }
    // A caller hangs up.
    let zygote = world.worker.zygote().await;
    let left = world.upload_fixture(INVOICE, "left.docx").await;
    let left = notification("left.docx", &left);
    let hang_up = async {
        let child = world.worker.stopped_child(zygote).await;
        assert!(signal(child, Signal::SIGCONT));
    };
    tokio::select! {
        biased;
        () = hang_up => {}
        status = post(&world, &left) => assert_eq!(status, 204),
    }
    assert_eq!(post_when_there_is_room(&world, &good).await, 204);
    until("all directories are gone", || {
        world.worker.leftovers().is_empty().then_some(())
    })
    .await;
    // And the whole place: not less than before.
    while_one_is_under_way(&world, async || {
        tokio::time::timeout(Duration::from_secs(60), async {
            assert_eq!(world.post(&left).await.status(), 429);
        })
        .await
        .unwrap();
    })
    .await;
}

/// The place comes back before the answer, not some time after it: who waits for each answer has it for the next job.
#[tokio::test(flavor = "multi_thread")]
async fn as_many_senders_as_slots_are_never_refused() {
    const SENDERS: usize = 2;
    const ROUNDS: usize = 36;
    let world = World::with(&[("CONVERT_CONCURRENCY", &SENDERS.to_string())]).await;
    let sender = async |number: usize| {
        // All are there before the first is sent, so that each is sent as soon as the one before has its answer.
        let mut jobs = Vec::new();
        for round in 0..ROUNDS {
            let name = format!("{number}-{round}.docx");
            let (generation, status) = match round % 3 {
                0 => (world.upload_fixture(INVOICE, &name).await, 204),
                1 => (world.upload(&name, b"PK\x03\x04 and no more".to_vec()).await, 204),
                _ => {
                    let fault = fails(&format!("/download/storage/v1/b/input/o/{name}"), 1, 503);
                    world.cloud.add_fault(fault);
                    (world.upload_fixture(INVOICE, &name).await, 503)
                }
            };
            jobs.push((notification(&name, &generation), status));
        }
        for (job, status) in &jobs {
            assert_eq!(post(&world, job).await, *status, "{job}\n{}", world.worker.log());
        }
    };
    tokio::join!(sender(0), sender(1));
}
