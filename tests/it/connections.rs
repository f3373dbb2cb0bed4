//! Connections and bodies that come slowly, half, in thousands, or never end: none of them keeps a job out, and all of
//! them together take a bounded part of the worker.

use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{World, notification, until};

const INVOICE: &str = "documents/plain/invoice.docx";
/// More than there may be.
const CROWD: usize = 1500;
/// The largest body.
const LARGEST: usize = 16 << 20;

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.worker.url.trim_start_matches("http://"))
        .await
        .unwrap()
}

fn head(world: &World, length: usize) -> Vec<u8> {
    let token = world.token();
    format!("POST / HTTP/1.1\r\nHost: w\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n")
        .into_bytes()
}

/// Descriptors of the worker that are sockets.
fn sockets(world: &World) -> usize {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", world.worker.pid())).unwrap();
    entries
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter(|target| target.to_string_lossy().starts_with("socket:"))
        .count()
}

/// Bytes of memory that the worker has.
fn resident(world: &World) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{}/statm", world.worker.pid())).unwrap();
    text.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn converts(world: &World, object: &str) {
    let generation = world.upload_fixture(INVOICE, object).await;
    let answer = world.post(&notification(object, &generation)).await;
    assert_eq!(answer.status(), 204, "{}", world.worker.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_idle_connections_make_room_for_a_job() {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let wanted = CROWD as u64 + 1000;
    if hard < wanted {
        println!("skipped: this process may open {hard} files only");
        return;
    }
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(wanted), hard).unwrap();
    let world = World::start().await;
    let before = resident(&world);
    let mut crowd = Vec::new();
    for number in 0..CROWD {
        let mut stream = connect(&world).await;
        if number % 2 == 0 {
            stream
                .write_all(b"POST / HTTP/1.1\r\nHost: w\r\nx-slow: ")
                .await
                .unwrap();
        }
        crowd.push(stream);
    }
    converts(&world, "a.docx").await;
    // The first ones went, without an answer and long before their time.
    let mut first = crowd.remove(0);
    let mut answer = Vec::new();
    let _reset = first.read_to_end(&mut answer).await;
    assert_eq!(String::from_utf8_lossy(&answer), "");
    // Each may have a second descriptor; beside them are Google's.
    assert!(sockets(&world) < 2 * 1024 + 100, "{}", sockets(&world));
    let grown = resident(&world).saturating_sub(before);
    assert!(grown < 128 << 20, "{grown} bytes for {CROWD} connections");
    drop(crowd);
    until("all are closed", || (sockets(&world) < 50).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_announced_and_never_come_take_nothing() {
    let world = World::with(&[("CONVERT_CONCURRENCY", "1")]).await;
    let mut half_open = Vec::new();
    for _ in 0..64 {
        let mut stream = connect(&world).await;
        stream.write_all(&head(&world, LARGEST)).await.unwrap();
        stream.write_all(b"{").await.unwrap();
        half_open.push(stream);
    }
    converts(&world, "a.docx").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_together_have_a_budget() {
    let world = World::start().await;
    let before = resident(&world);
    let most = vec![b' '; LARGEST - 1];
    // Up to their last byte: four of them are all there may be, less four bytes.
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut stream = connect(&world).await;
        stream.write_all(&head(&world, LARGEST)).await.unwrap();
        stream.write_all(&most).await.unwrap();
        held.push(stream);
    }
    let generation = world.upload_fixture(INVOICE, "a.docx").await;
    let event = notification("a.docx", &generation);
    // What has been sent may still be on its way.
    let started = std::time::Instant::now();
    let refused = loop {
        let answer = world.post(&event).await;
        if answer.status() == 429 {
            break answer;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{}", world.worker.log());
    };
    assert!(refused.headers().contains_key("retry-after"));
    until("it says why", || {
        world
            .worker
            .log()
            .contains("429: the bodies of the requests")
            .then_some(())
    })
    .await;
    let grown = resident(&world).saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes for 64 MiB of bodies");
    drop(held.pop());
    let started = std::time::Instant::now();
    while world.post(&event).await.status() != 204 {
        assert!(started.elapsed() < Duration::from_secs(20), "{}", world.worker.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_reads_an_answer_is_left() {
    let world = World::start().await;
    let before = resident(&world);
    let mut deaf = connect(&world).await;
    // As much as both sides' buffers take: the worker stops reading when its answers go nowhere.
    let many = b"GET /nowhere HTTP/1.1\r\nHost: w\r\n\r\n".repeat(1000);
    while tokio::time::timeout(Duration::from_secs(2), deaf.write_all(&many))
        .await
        .is_ok()
    {}
    converts(&world, "a.docx").await;
    let grown = resident(&world).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes for one client");
    // The kernel gives it up, and it finds its connection reset.
    let started = std::time::Instant::now();
    loop {
        if deaf
            .try_write(b" ")
            .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
        {
            break;
        }
        assert!(
            started.elapsed() < crate::harness::PATIENCE,
            "it still has its connection"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
