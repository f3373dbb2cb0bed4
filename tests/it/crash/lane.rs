//! A cloud and two workers, one of which is pushed to: what a run does to them, until everything is acknowledged.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use platen::local_cloud::{LocalCloud, Settings, Subscription, number_of};
use serde_json::json;
use tokio::sync::watch;

use super::plan::{Asks, CHILD, Plan, lost_upload};
use super::points::{Points, Word};
use crate::engine_limits::processes;
use crate::harness::{
    AUDIENCE, INPUT, OUTPUT, PATIENCE, RESOURCES, Worker, client, converting, environment, signal, upload_to, walk,
};

/// Who uploads, lists and reads results.
pub(super) const USER: &str = "user@local-project.iam.gserviceaccount.com";

const MARKS: &str = "marks";

/// One run as it goes.
pub(super) struct Run {
    pub(super) plan: Plan,
    /// Passes of each point, and of all.
    passes: BTreeMap<String, u32>,
    all_passes: usize,
    /// Which worker passed what, and what it was told.
    pub(super) trace: Vec<String>,
    /// Where workers were told to die, and which.
    pub(super) killed: Vec<(String, usize)>,
    /// The worker that waits at `plan.paused`.
    paused: Option<usize>,
    /// The last one that gave a document to a child.
    converting: Option<usize>,
    /// Every message that was published: its id, and what it asks for.
    pub(super) published: Vec<(String, Asks)>,
    /// Generations of each source, oldest first.
    pub(super) generations: BTreeMap<String, Vec<String>>,
    /// The cloud's last message before the source was replaced: no result up to there can know of that.
    pub(super) replaced_after: u64,
}

impl Run {
    pub(super) fn object(&self, asks: Asks) -> String {
        let name = match asks {
            Asks::One => "one",
            Asks::Two => "two",
            Asks::Old | Asks::New => "replaced",
        };
        format!("run{}/{name}.txt", self.plan.seed)
    }

    /// What the document says: by it an output is known.
    pub(super) fn text(&self, asks: Asks) -> String {
        format!("Run {} asks for {asks:?}.", self.plan.seed)
    }
}

/// What the workers' points and the run's loop share.
struct Shared {
    cloud: LocalCloud,
    run: Mutex<Option<Run>>,
    /// Set when the late worker may go on.
    released: watch::Sender<bool>,
    /// Whether the run's source has been replaced; held while that is done.
    replaced: tokio::sync::Mutex<bool>,
}

struct Slot {
    worker: Worker,
    zygote: u32,
    ready: bool,
    _points: Points,
}

pub(super) struct Lane {
    shared: Arc<Shared>,
    pub(super) push: String,
    pub(super) http: reqwest::Client,
    slots: [Slot; 2],
    active: usize,
    temporary: Arc<tempfile::TempDir>,
    sockets: tempfile::TempDir,
    started: AtomicUsize,
}

impl Lane {
    pub(super) async fn start() -> Self {
        let cloud = LocalCloud::start(Settings {
            pubsub_second: Duration::from_millis(20),
            ..Settings::default()
        })
        .await
        .unwrap();
        cloud.create_bucket(INPUT, false).unwrap();
        // What was ever an output stays to be seen.
        cloud.create_bucket(OUTPUT, true).unwrap();
        // The last has no subscription: a message there is a moment in the order of all.
        for topic in ["events", "results", MARKS] {
            cloud.create_topic(topic).unwrap();
        }
        let results = Subscription {
            name: "results",
            topic: "results",
            ack_deadline_seconds: Some(600),
            ..Subscription::default()
        };
        cloud.create_subscription(&results).unwrap();
        cloud.create_service_account(USER);
        cloud.enforce(&RESOURCES).unwrap();
        let push = cloud
            .create_subscription(&Subscription {
                name: "push",
                topic: "events",
                push_endpoint: Some("http://127.0.0.1:9"),
                audience: Some(AUDIENCE),
                service_account: Some(&cloud.settings().push_service_account),
                ack_deadline_seconds: Some(600),
                retry_seconds: Some((1, 10)),
                ..Subscription::default()
            })
            .unwrap();
        let shared = Arc::new(Shared {
            cloud,
            run: Mutex::default(),
            released: watch::Sender::new(false),
            replaced: tokio::sync::Mutex::default(),
        });
        let temporary = Arc::new(tempfile::tempdir().unwrap());
        let sockets = tempfile::tempdir().unwrap();
        let started = AtomicUsize::new(0);
        let slots = [0, 1].map(|index| slot(&shared, &temporary, &sockets, &started, index));
        Self {
            shared,
            push,
            http: client(),
            slots,
            active: 0,
            temporary,
            sockets,
            started,
        }
    }

    pub(super) fn cloud(&self) -> &LocalCloud {
        &self.shared.cloud
    }

    /// Takes one seed's messages to their end, through all that its plan holds.
    pub(super) async fn run(&mut self, plan: Plan) -> Run {
        let (old_first, news) = (plan.replaced_at == 0, plan.news);
        // Where a worker waits, its messages are to go to the other one soon.
        let deadline = if plan.paused.is_some() { 60 } else { 600 };
        self.set(json!({"ackDeadlineSeconds": deadline})).await;
        for fault in &plan.faults {
            self.cloud().add_fault(fault.clone());
        }
        self.shared.released.send_replace(false);
        *self.shared.replaced.lock().await = false;
        let messages = plan.messages.clone();
        *self.shared.run.lock().unwrap() = Some(Run {
            plan,
            passes: BTreeMap::new(),
            all_passes: 0,
            trace: Vec::new(),
            killed: Vec::new(),
            paused: None,
            converting: None,
            published: Vec::new(),
            generations: BTreeMap::new(),
            replaced_after: u64::MAX,
        });
        self.turn_to(self.active).await;
        for asks in [Asks::One, Asks::Two, Asks::Old] {
            self.shared.upload(asks).await;
        }
        if old_first {
            self.shared.replace().await;
        }
        for asks in messages {
            self.shared.publish(asks);
        }
        let started = Instant::now();
        loop {
            assert!(
                started.elapsed() < PATIENCE,
                "{news} news: it does not end: {} left\n{}\n{}",
                self.cloud().backlog(&self.push).unwrap(),
                self.slots[0].worker.log(),
                self.slots[1].worker.log()
            );
            self.kill_while_a_child_works();
            self.see_to_the_dead().await;
            let paused = self.shared.with_run(|run| run.paused);
            if paused == Some(self.active) && !*self.shared.released.borrow() {
                self.turn_to(1 - self.active).await;
            }
            if self.cloud().backlog(&self.push).unwrap() == 0 && !self.shared.replace().await {
                if *self.shared.released.borrow() || paused.is_none() {
                    break;
                }
                // All is done elsewhere: now the late one goes on, and finds it.
                self.shared.released.send_replace(true);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // What a worker still does for a delivery that has ended, it does to its end or its death.
        while self.jobs() > 0 {
            assert!(started.elapsed() < PATIENCE, "a job's directory stays");
            self.see_to_the_dead().await;
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.cloud().clear_faults();
        self.shared.run.lock().unwrap().take().unwrap()
    }

    /// Directories of jobs: those of the dead go when the next one starts.
    fn jobs(&self) -> usize {
        let mut jobs = 0;
        walk(self.temporary.path(), &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            jobs += usize::from(name.starts_with("job-"));
        });
        jobs
    }

    /// Kills a worker whose child works, where that is the run's step. The child is stopped when it is seen, so that it
    /// cannot end before.
    fn kill_while_a_child_works(&self) {
        let mut guard = self.shared.run.lock().unwrap();
        let run = guard.as_mut().unwrap();
        let Some(index) = run
            .converting
            .filter(|_| run.plan.step == CHILD && run.killed.is_empty())
        else {
            return;
        };
        let slot = &self.slots[index];
        let Some(child) = converting(slot.zygote).first().copied() else {
            return;
        };
        if signal(child, Signal::SIGSTOP) {
            run.killed.push((CHILD.to_owned(), index));
            run.trace.push(format!("{index} is killed while a child converts"));
            assert!(signal(slot.worker.pid(), Signal::SIGKILL));
        }
    }

    /// Has the other worker take over from one that was killed, and starts another in its place.
    async fn see_to_the_dead(&mut self) {
        for index in 0..2 {
            let Some(status) = self.slots[index].worker.ended() else {
                continue;
            };
            let log = self.slots[index].worker.all_of_the_log().await;
            assert_eq!(status.signal(), Some(9), "the worker ended by itself: {status}\n{log}");
            let known = self.shared.with_run(|run| run.killed.clone());
            assert!(
                known.iter().any(|(_, killed)| *killed == index),
                "nobody killed it\n{log}"
            );
            if self.shared.with_run(|run| run.plan.step) == "store.precondition_failed" {
                // It was killed before it looked into the 412; the next one is looked into.
                self.cloud().add_fault(lost_upload());
            }
            let zygote = self.slots[index].zygote.cast_signed();
            let started = Instant::now();
            while processes(self.temporary.path())
                .iter()
                .any(|process| process.pid == zygote)
            {
                assert!(started.elapsed() < PATIENCE, "the zygote outlives the worker");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            self.slots[index] = slot(&self.shared, &self.temporary, &self.sockets, &self.started, index);
            if index == self.active {
                self.turn_to(1 - index).await;
            }
        }
    }

    /// Has messages pushed to this worker from now on.
    async fn turn_to(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if !slot.ready {
            slot.worker.ready().await;
            slot.zygote = slot.worker.zygote().await;
            slot.ready = true;
        }
        self.active = index;
        let endpoint = self.slots[index].worker.url.clone();
        let account = &self.cloud().settings().push_service_account;
        let token = json!({"serviceAccountEmail": account, "audience": AUDIENCE});
        self.set(json!({"pushConfig": {"pushEndpoint": endpoint, "oidcToken": token}}))
            .await;
    }

    /// Changes the push subscription.
    async fn set(&self, fields: serde_json::Value) {
        let mask: Vec<_> = fields.as_object().unwrap().keys().cloned().collect();
        let answer = self
            .http
            .patch(format!("{}/v1/{}", self.cloud().urls().pubsub, self.push))
            .bearer_auth(self.cloud().access_token(USER))
            .json(&json!({"subscription": fields, "updateMask": mask.join(",")}))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }

    /// Kills both workers as they are: the next one has to clear away after them, and must leave nothing itself.
    pub(super) async fn end(self) {
        let Self {
            shared,
            slots,
            temporary,
            sockets,
            started,
            ..
        } = self;
        drop(slots);
        let mut last = slot(&shared, &temporary, &sockets, &started, 0);
        last.worker.ready().await;
        let left = std::fs::read_dir(temporary.path()).unwrap().flatten();
        let left: Vec<_> = left.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
        assert_eq!(left.len(), 1, "work directories of the dead are left: {left:?}");
        assert!(signal(last.worker.pid(), Signal::SIGTERM));
        assert_eq!(last.worker.exit().await, Some(0), "{}", last.worker.log());
        let left: Vec<_> = std::fs::read_dir(temporary.path()).unwrap().flatten().collect();
        assert!(left.is_empty(), "left in TMPDIR: {left:?}");
        let left = processes(temporary.path());
        assert!(left.is_empty(), "processes are left: {}", left.len());
    }

    /// What both workers have said, for a run that went wrong.
    pub(super) fn logs(&self) -> String {
        let [first, second] = &self.slots;
        format!("worker 0:\n{}\nworker 1:\n{}", first.worker.log(), second.worker.log())
    }
}

/// A new worker in the place of another.
fn slot(
    shared: &Arc<Shared>,
    temporary: &Arc<tempfile::TempDir>,
    sockets: &tempfile::TempDir,
    started: &AtomicUsize,
    index: usize,
) -> Slot {
    let path = sockets.path().join(started.fetch_add(1, Ordering::Relaxed).to_string());
    let mut variables = environment(&shared.cloud);
    variables.insert("PLATEN_FAILPOINTS".to_owned(), path.to_string_lossy().into_owned());
    let deciding = Arc::clone(shared);
    let points = Points::listen(&path, move |name| {
        let shared = Arc::clone(&deciding);
        async move { shared.decide(index, &name).await }
    });
    Slot {
        worker: Worker::spawn_in(Arc::clone(temporary), &variables),
        zygote: 0,
        ready: false,
        _points: points,
    }
}

impl Shared {
    /// Looks into the run that is under way.
    fn with_run<T>(&self, look: impl FnOnce(&mut Run) -> T) -> T {
        look(self.run.lock().unwrap().as_mut().unwrap())
    }

    /// What the worker in this place does at a point.
    async fn decide(self: &Arc<Self>, index: usize, name: &str) -> Word {
        let (pause, replace) = {
            let mut guard = self.run.lock().unwrap();
            let Some(run) = guard.as_mut() else { return Word::Go };
            run.all_passes += 1;
            let pass = run.passes.entry(name.to_owned()).or_default();
            *pass += 1;
            let pass = *pass;
            run.trace.push(format!("{index} {name} {pass}"));
            let first_here = run.killed.is_empty() && name == run.plan.step && pass == run.plan.pass;
            let again = run.killed.len() == 1 && Some(name) == run.plan.again && run.killed[0].1 != index;
            if first_here || again {
                run.killed.push((name.to_owned(), index));
                run.trace.push(format!("{index} {name} is killed"));
                return Word::Kill;
            }
            let pause = run.paused.is_none() && Some(name) == run.plan.paused;
            if pause {
                run.paused = Some(index);
                run.trace.push(format!("{index} {name} waits"));
            }
            if name == "convert.inspected" {
                run.converting = Some(index);
            }
            (pause, run.all_passes == run.plan.replaced_at)
        };
        if replace {
            self.replace().await;
        }
        if pause {
            let mut released = self.released.subscribe();
            // The lane is there as long as this task is.
            let _always = released.wait_for(|released| *released).await;
        }
        Word::Go
    }

    async fn upload(&self, asks: Asks) {
        let (object, mut text) = self.with_run(|run| (run.object(asks), run.text(asks)));
        if self.with_run(|run| run.plan.step == CHILD) {
            // Pages enough that a child which converts them is seen before it has ended.
            text.push_str(&"\n".repeat(10_000));
        }
        let generation = upload_to(&self.cloud, INPUT, &object, text.into_bytes()).await;
        self.with_run(|run| run.generations.entry(object).or_default().push(generation));
    }

    /// Replaces the source that the plan says is replaced, and announces that; false when it was done before. It is
    /// done to its end, whatever becomes of the worker at whose point it was begun.
    async fn replace(self: &Arc<Self>) -> bool {
        let shared = Arc::clone(self);
        tokio::spawn(async move {
            let mut replaced = shared.replaced.lock().await;
            if *replaced {
                return false;
            }
            let moment = number_of(&shared.cloud.publish(MARKS, b"now", &[]).unwrap()).unwrap();
            shared.with_run(|run| run.replaced_after = moment);
            shared.upload(Asks::New).await;
            for _ in 0..shared.with_run(|run| run.plan.news) {
                shared.publish(Asks::New);
            }
            *replaced = true;
            true
        })
        .await
        .unwrap()
    }

    fn publish(&self, asks: Asks) {
        let mut guard = self.run.lock().unwrap();
        let run = guard.as_mut().unwrap();
        let object = run.object(asks);
        let generations = &run.generations[&object];
        let generation = match asks {
            Asks::New => generations.last(),
            _ => generations.first(),
        }
        .unwrap();
        let id = match asks {
            Asks::Two => {
                let outputs = json!([
                    {"format": "pdf", "name": "{dir}{stem}.{ext}"},
                    {"format": "pdf", "name": "{dir}{stem}-archive.{ext}", "options": {"pdfa": "PDF/A-2b"}},
                ]);
                let job = json!({
                    "source": format!("gs://{INPUT}/{object}"), "generation": generation, "outputs": outputs,
                });
                self.cloud.publish("events", job.to_string().as_bytes(), &[])
            }
            _ => self.cloud.publish(
                "events",
                b"",
                &[
                    ("eventType", "OBJECT_FINALIZE"),
                    ("bucketId", INPUT),
                    ("objectId", &object),
                    ("objectGeneration", generation),
                    ("payloadFormat", "NONE"),
                ],
            ),
        };
        run.published.push((id.unwrap(), asks));
    }
}
