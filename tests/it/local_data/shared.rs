//! A directory that is not this process's alone: with files of others, removed, put back, used by two, on a disk that is full.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use platen::local_cloud::{DataDirectory, LocalCloud, Refusal, Settings, Subscription};

use super::{cloud, directory, refused, start};

/// A cloud with a directory, and what it says of that.
async fn heard(data: &Path) -> (LocalCloud, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&heard);
    let directory = DataDirectory::open(data, move |what| said.lock().unwrap().push(what.to_owned()));
    let cloud = LocalCloud::start_with(Settings::default(), Some(directory.unwrap())).await;
    (cloud.unwrap(), heard)
}

fn unavailable<T: std::fmt::Debug>(result: Result<T, Refusal>) -> String {
    let refusal = result.unwrap_err();
    assert_eq!(refusal.code, 503, "{refusal}");
    refusal.message
}

/// Names that a first start leaves behind may be somebody's files too, or lead to them.
#[tokio::test]
async fn nothing_is_taken_for_the_remains_of_a_first_start_that_is_not() {
    let (parent, data) = directory();
    let precious = parent.path().join("precious");
    std::fs::write(&precious, "12\n").unwrap();
    std::fs::create_dir(&data).unwrap();
    for (name, content) in [("lock", "held by the baker"), ("journal.new", "Dear diary,\n")] {
        std::fs::write(data.join(name), content).unwrap();
        let output = refused(&data);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(64), "{message}");
        assert!(message.contains(&format!("'{name}'")), "{message}");
        assert_eq!(std::fs::read_to_string(data.join(name)).unwrap(), content);
        std::fs::remove_file(data.join(name)).unwrap();
        std::os::unix::fs::symlink(&precious, data.join(name)).unwrap();
        assert_eq!(refused(&data).status.code(), Some(64), "a link {name}");
        assert_eq!(std::fs::read_to_string(&precious).unwrap(), "12\n");
        std::fs::remove_file(data.join(name)).unwrap();
    }
    // These are remains.
    std::fs::write(data.join("lock"), "4711\n").unwrap();
    std::fs::write(data.join("journal.new"), "data of pl").unwrap();
    std::fs::create_dir(data.join("objects")).unwrap();
    drop(cloud(&data).await);
    assert!(!data.join("journal.new").exists());
    // And in a directory in use a link is not written through either.
    std::fs::remove_file(data.join("lock")).unwrap();
    std::os::unix::fs::symlink(&precious, data.join("lock")).unwrap();
    let output = refused(&data);
    assert_eq!(
        output.status.code(),
        Some(1),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(std::fs::read_to_string(&precious).unwrap(), "12\n");
}

/// What is beside the files of objects is not swept away with those that no object has, nor in the way.
#[tokio::test]
async fn what_else_is_among_the_objects_stays() {
    let (_parent, data) = directory();
    drop(cloud(&data).await);
    let objects = data.join("objects");
    let remains = objects.join("0123456789abcdef0123456789abcdef");
    std::fs::write(&remains, "of a process that was killed").unwrap();
    std::fs::write(objects.join("notes.txt"), "mine").unwrap();
    std::fs::create_dir(objects.join("fedcba9876543210fedcba9876543210")).unwrap();
    drop(cloud(&data).await);
    assert!(!remains.exists());
    assert_eq!(std::fs::read_to_string(objects.join("notes.txt")).unwrap(), "mine");
    assert_eq!(std::fs::read_dir(&objects).unwrap().count(), 2);
}

/// Nothing is answered with a success that goes where nobody finds it again, and nobody hears of what did not happen.
#[tokio::test]
async fn what_is_moved_away_meanwhile_is_not_written_to() {
    let (parent, data) = directory();
    let (cloud, heard) = heard(&data).await;
    cloud.create_topic("topic").unwrap();
    for (name, temporary) in [("kept", false), ("watches", true)] {
        let wanted = Subscription {
            name,
            topic: "topic",
            temporary,
            ..Subscription::default()
        };
        cloud.create_subscription(&wanted).unwrap();
    }
    let backlogs = || {
        ["kept", "watches"].map(|name| {
            cloud
                .backlog(&format!("projects/{}/subscriptions/{name}", cloud.settings().project))
                .unwrap()
        })
    };
    cloud.publish("topic", b"1", &[]).unwrap();
    assert_eq!(backlogs(), [1, 1]);

    let elsewhere = parent.path().join("elsewhere");
    std::fs::rename(&data, &elsewhere).unwrap();
    for _ in 0..3 {
        unavailable(cloud.publish("topic", b"lost", &[]));
        unavailable(cloud.create_topic("lost"));
        assert_eq!(backlogs(), [1, 1], "what was refused is in no queue");
    }
    std::fs::rename(&elsewhere, &data).unwrap();
    cloud.publish("topic", b"2", &[]).unwrap();
    assert_eq!(backlogs(), [2, 2]);
    {
        let heard = heard.lock().unwrap();
        let [trouble, over] = &heard[..] else {
            panic!("{heard:?}");
        };
        for part in [data.to_str().unwrap(), "cannot be written", "503", "put it back"] {
            assert!(trouble.contains(part), "{part}: {trouble}");
        }
        assert!(over.contains("is written again"), "{over}");
    }

    // A lock that was removed keeps nobody away: who finds that someone else has written, writes no more.
    std::fs::remove_file(data.join("lock")).unwrap();
    let second = super::cloud(&data).await;
    second.create_topic("of-the-second").unwrap();
    let message = unavailable(cloud.create_topic("of-the-first"));
    assert!(message.contains("of which this process wrote"), "{message}");
    second.create_topic("again").unwrap();
    drop((cloud, second));
    let after = super::cloud(&data).await;
    for (topic, status) in [("of-the-second", 409), ("again", 409), ("topic", 409)] {
        assert_eq!(after.create_topic(topic).unwrap_err().code, status);
    }
    after.create_topic("of-the-first").unwrap();
}

/// On the terminal it is said once, and what to do; a job that could not be kept is not on the page.
#[tokio::test]
async fn a_full_disk_is_said_once() {
    let (_parent, data) = directory();
    let mut local = super::Local::start_under(
        &["sh", "-c", "trap '' XFSZ; exec \"$0\" \"$@\""],
        &["--data", data.to_str().unwrap()],
    );
    let limit = |size: &str| {
        let pid = local.child.id().to_string();
        let mut command = Command::new("prlimit");
        command.args(["--pid", &pid, &format!("--fsize={size}:unlimited")]);
        assert!(command.status().unwrap().success());
    };
    // Room for the object and not for its line.
    limit(&std::fs::metadata(data.join("journal")).unwrap().len().to_string());
    for _ in 0..3 {
        let error = local.put("documents", "lost.docx", b"lost".to_vec()).await.unwrap_err();
        assert!(error.starts_with("503"), "{error}");
    }
    limit("unlimited");
    local.put("config", "kept.txt", b"kept".to_vec()).await.unwrap();
    local.put("documents", "seen.docx", b"seen".to_vec()).await.unwrap();
    local.job("seen.docx", "is announced", |_| true).await;
    let jobs = local
        .http
        .get(format!("{}/api/jobs", local.url("page")))
        .send()
        .await
        .unwrap();
    assert!(!jobs.text().await.unwrap().contains("lost.docx"));
    local.end(nix::sys::signal::Signal::SIGINT);
    let log = local.log();
    let said: Vec<&str> = log.lines().filter(|line| line.contains("cannot be written")).collect();
    assert_eq!(said.len(), 1, "{log}");
    assert!(
        said[0].contains(data.to_str().unwrap()) && said[0].contains("make room"),
        "{}",
        said[0]
    );
    assert_eq!(log.matches("is written again").count(), 1, "{log}");
}

/// The emulator forgets, so that what is asked for cannot be had.
#[test]
fn data_and_an_emulator_are_refused_together() {
    let (_parent, data) = directory();
    let mut command = Command::new(env!("CARGO_BIN_EXE_platen"));
    command.args([
        "local",
        "--data",
        data.to_str().unwrap(),
        "--pubsub-emulator",
        "localhost:1",
    ]);
    let output = command.env_clear().output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(64), 0), "{message}");
    for part in ["--data", "--pubsub-emulator", "cannot be used with"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(!data.exists(), "nothing is made");
}

/// A directory that is made is its owner's, whatever the umask is, and so is all that is in it.
#[tokio::test]
async fn nobody_else_may_look() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_parent, data) = directory();
    let mut local = start(&data);
    local.put("config", "a.txt", b"a".to_vec()).await.unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&data), mode(&data.join("objects"))), (0o700, 0o700));
    for name in ["lock", "journal"] {
        assert_eq!(mode(&data.join(name)), 0o600, "{name}");
    }
    for object in std::fs::read_dir(data.join("objects")).unwrap() {
        assert_eq!(mode(&object.unwrap().path()), 0o600);
    }
    local.end(nix::sys::signal::Signal::SIGINT);
}
