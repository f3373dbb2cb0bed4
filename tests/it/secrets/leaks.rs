//! Canaries in every sealed value, looked for wherever something of a worker can be seen from outside.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::json;

use super::{Effect, KEY, cloud, config, kms_fault, seal, secrets, worker};
use crate::harness::{AUDIENCE, INPUT, children, job, signal, walk};

const LOCKED: &str = "documents/hostile/password.docx";
/// The document's own password is a canary too.
const PASSWORD: &str = "correct horse";

/// What must not be seen, in the forms in which it travels.
fn canaries(contents: &serde_json::Value) -> Vec<String> {
    let mut canaries = vec!["canary".to_owned(), PASSWORD.to_owned(), STANDARD.encode(PASSWORD)];
    // Cloud KMS's answer holds the whole in base64: any part of that in the middle is one of it all.
    let whole = STANDARD.encode(contents.to_string());
    canaries.extend(
        whole
            .as_bytes()
            .chunks_exact(24)
            .map(|part| String::from_utf8_lossy(part).into_owned()),
    );
    canaries
}

fn see(what: &str, seen: &[u8], canaries: &[String]) {
    let seen = String::from_utf8_lossy(seen);
    for canary in canaries {
        assert!(!seen.contains(canary.as_str()), "{canary} is in {what}:\n{seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sealed_value_is_seen_anywhere() {
    let cloud = cloud().await;
    let contents = json!({
        "passwords": {"contracts": ["canary-1", PASSWORD], "others": "canary-2"},
        "environment": {"PUSH_AUDIENCE": format!("{AUDIENCE},canary-3"), "INPUT_EXCLUDE": "canary-4*"},
    });
    let canaries = canaries(&contents);
    seal(&cloud, &contents);
    let variables = [("RUST_LOG", "trace"), ("LOG_FORMAT", "json"), ("RUST_BACKTRACE", "1")];
    let mut world = worker(cloud, &variables, &["PUSH_AUDIENCE"]).await;
    world.worker.ready().await;
    world.upload_fixture(LOCKED, "locked.docx").await;
    // A revision of its own for each: a done job is not converted again.
    let envelope = |secret: &str, revision: &str| {
        job(&json!({
            "source": format!("gs://{INPUT}/locked.docx"), "password": {"secret": secret}, "revision": revision,
        }))
    };

    // While a child has the document and its password: what the processes show, and what is on the disk.
    let (pid, zygote) = (world.worker.pid(), world.worker.zygote().await);
    let good = envelope("contracts", "1");
    let meanwhile = async {
        let child = world.worker.stopped_child(zygote).await;
        for pid in [pid, zygote, child]
            .into_iter()
            .chain(children(pid))
            .chain(children(zygote))
        {
            for file in ["cmdline", "environ", "comm"] {
                let path = format!("/proc/{pid}/{file}");
                // A child is gone by now, or its owner is another: neither shows anything.
                let shown = std::fs::read(&path).unwrap_or_default();
                see(&path, &shown, &canaries);
            }
        }
        let shown = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(!shown.is_empty(), "the worker's command line was not read");
        // Only root reads it.
        if let Ok(shown) = std::fs::read(format!("/proc/{pid}/environ")) {
            assert!(String::from_utf8_lossy(&shown).contains("CONFIG_OBJECT="));
        }
        walk(world.worker.temporary.path(), &mut |path| {
            see(
                &path.display().to_string(),
                path.display().to_string().as_bytes(),
                &canaries,
            );
            see(
                &path.display().to_string(),
                &std::fs::read(path).unwrap_or_default(),
                &canaries,
            );
        });
        assert!(signal(child, Signal::SIGCONT));
    };
    let (answer, ()) = tokio::join!(world.post(&good), meanwhile);
    assert_eq!(answer.status(), 204, "{}", world.worker.log());
    let result = world.result().await;
    assert_eq!(result.data["status"], "succeeded", "{}", result.data);
    see(
        "a result",
        format!("{} {:?}", result.data, result.attributes).as_bytes(),
        &canaries,
    );

    // What fails says no more: a password that opens nothing, a name that is not there, a reload that cannot be.
    for (secret, code) in [("others", "document.wrong_password"), ("nobody", "option.invalid")] {
        let answer = world.post(&envelope(secret, "2")).await;
        assert_eq!(answer.status(), 204, "{}", world.worker.log());
        see("an answer", &answer.bytes().await.unwrap(), &canaries);
        let result = world.result().await;
        assert_eq!(result.data["error"]["code"], code, "{}", result.data);
        see(
            "a result",
            format!("{} {:?}", result.data, result.attributes).as_bytes(),
            &canaries,
        );
    }
    let changed = json!({"passwords": {"contracts": "canary-5"}, "environment": {"MAX_PAGES": "canary-6", "PUSH_AUDIENCE": "canary-7"}});
    super::seal_by_hand(&world.cloud, KEY, changed.to_string().as_bytes(), Some(super::OBJECT)).await;
    let answer = world.post(&envelope("nobody", "3")).await;
    assert_eq!(answer.status(), 503);
    see("a refusal", &answer.bytes().await.unwrap(), &canaries);
    see("ready", config(&world).await.to_string().as_bytes(), &canaries);
    see("the log", world.worker.log().as_bytes(), &canaries);
    assert!(world.worker.log().contains("DEBUG"), "the log has no details");

    // The commands' own traces.
    for arguments in [
        &["seal", "--key", KEY, "--object", "gs://config/other.enc", "-"][..],
        &["seal", "--key", KEY, "--object", "gs://nowhere/other.enc", "-"],
        &["seal", "--key", "no-key", "--object", "gs://config/other.enc", "-"],
    ] {
        let output = secrets(&world.cloud, arguments, contents.to_string().as_bytes());
        see("a command's stdout", &output.stdout, &canaries);
        see("a command's stderr", &output.stderr, &canaries);
    }
    world.cloud.add_fault(kms_fault(u32::MAX, Effect::status(400)));
    let output = secrets(&world.cloud, &["open", "--key", KEY, "gs://config/other.enc"], b"");
    assert_ne!(output.status.code(), Some(0));
    see("a command's stderr", &output.stderr, &canaries);
}
