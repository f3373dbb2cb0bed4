//! What keeping a local cloud in a directory costs: the time of an upload, and of a publish and a pull with its acknowledgement in
//! a queue that is short and in one of 10,000 messages, in memory and with a directory, in turn.
//!
//! `cargo bench --bench local_data -- DIR`: the directory is made below DIR (the system's temporary one), whose disk decides. Medians
//! in microseconds, in this process: no HTTP, and no worker.

use std::path::Path;
use std::time::{Duration, Instant};

use platen::local_cloud::{DataDirectory, LocalCloud, Settings, Subscription};

const CALLS: usize = 500;
const LONG: usize = 10_000;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Microseconds.
fn median(mut times: Vec<Duration>) -> u128 {
    times.sort();
    times[times.len() / 2].as_micros()
}

/// Publishes, and pulls with acknowledgements.
async fn messages(cloud: &LocalCloud, subscription: &str) -> Outcome<[u128; 2]> {
    let (mut publishes, mut pulls) = (Vec::new(), Vec::new());
    for _ in 0..CALLS {
        let start = Instant::now();
        cloud.publish("topic", &[b'x'; 100], &[])?;
        publishes.push(start.elapsed());
        let start = Instant::now();
        cloud.receive(subscription, 1).await?;
        pulls.push(start.elapsed());
    }
    Ok([median(publishes), median(pulls)])
}

async fn measure(data: Option<&Path>) -> Outcome<()> {
    let directory = data.map(|data| DataDirectory::open(data, |what| eprintln!("{what}")));
    let cloud = LocalCloud::start_with(Settings::default(), directory.transpose()?).await?;
    cloud.create_bucket("bucket", false)?;
    cloud.create_topic("topic")?;
    let subscription = cloud.create_subscription(&Subscription {
        name: "subscription",
        topic: "topic",
        ..Subscription::default()
    })?;
    let mut uploads = Vec::new();
    for number in 0..CALLS {
        let start = Instant::now();
        cloud.put("bucket", &number.to_string(), "text/plain", vec![b'x'; 4096].into())?;
        uploads.push(start.elapsed());
    }
    let short = messages(&cloud, &subscription).await?;
    for _ in 0..LONG {
        cloud.publish("topic", &[b'x'; 100], &[])?;
    }
    let long = messages(&cloud, &subscription).await?;
    let place = if data.is_some() { "--data" } else { "memory" };
    println!(
        "{place}  upload {:5}   publish {:5}, with {LONG} messages {:5}   pull {:5}, with {LONG} messages {:5}",
        median(uploads),
        short[0],
        long[0],
        short[1],
        long[1]
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome<()> {
    // Cargo adds `--bench`.
    let below = std::env::args().skip(1).find(|argument| !argument.starts_with("--"));
    for _ in 0..3 {
        measure(None).await?;
        let parent = match &below {
            Some(below) => tempfile::tempdir_in(below)?,
            None => tempfile::tempdir()?,
        };
        measure(Some(&parent.path().join("data"))).await?;
    }
    Ok(())
}
