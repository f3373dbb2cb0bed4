//! The worker as a process of its own: this binary's `serve`, told by its environment where Google is, watched, and
//! ended, killed and started again on demand.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::Style;
use crate::local_cloud::LocalCloud;

/// The worker's environment, by name.
pub(in super::super) type Variables = BTreeMap<String, String>;

/// How long a warm engine may take; it takes about a second.
const WARM: Duration = Duration::from_secs(120);
/// How long a worker may finish its work: Cloud Run's ten seconds.
const GRACE: Duration = Duration::from_secs(10);
/// Before a worker that has ended is replaced, so that one that cannot live does not spin.
const PAUSE: Duration = Duration::from_millis(500);
/// What the worker has from the environment of this process: limits and taste, never credentials.
const PASSED_ON: [&str; 15] = [
    "PATH",
    "HOME",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "LOG_FORMAT",
    "SANDBOX",
    "DOCUMENT_LOCALE",
    "FONTS",
    "MAX_INPUT_SIZE",
    "MAX_OUTPUT_SIZE",
    "MAX_PAGES",
    "CONVERT_TIMEOUT",
    "CONVERT_MEMORY",
    "CONVERT_CONCURRENCY",
];

/// What the worker is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "state")]
pub(in super::super) enum State {
    /// Its engine warms up.
    Starting { pid: Option<u32> },
    /// It takes jobs.
    Ready { pid: Option<u32> },
    /// It was asked to end, and finishes its work.
    Stopping { pid: Option<u32> },
    /// It was asked to end, and has.
    Stopped,
    /// It has ended, and is not replaced: it was never ready, or nobody wants that.
    Failed { reason: String },
}

impl State {
    /// Fails unless the worker is ready.
    pub(in super::super) fn ready(&self) -> Result<(), String> {
        match self {
            Self::Ready { .. } => Ok(()),
            Self::Failed { reason } => Err(reason.clone()),
            Self::Starting { .. } | Self::Stopping { .. } | Self::Stopped => {
                Err("the worker is not running".to_owned())
            }
        }
    }

    fn is_settled(&self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Stopped | Self::Failed { .. })
    }
}

/// What can be asked of it.
#[derive(Debug)]
pub(in super::super) enum Order {
    /// Start it, if it does not run.
    Start,
    /// SIGTERM, and no other one.
    Stop,
    /// SIGTERM, then another one.
    Restart,
    /// SIGKILL, as when an instance is lost. What follows is what follows a crash.
    Kill,
    /// These in place of the variables that were set before, and a restart.
    Set(Variables),
}

/// How urgent the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
enum End {
    No,
    Graceful,
    AtOnce,
}

/// A handle to the task that looks after the process.
pub(in super::super) struct Worker {
    url: String,
    metrics: String,
    environment: Variables,
    orders: mpsc::Sender<(Order, oneshot::Sender<()>)>,
    state: watch::Receiver<State>,
    end: watch::Sender<End>,
    keeper: Mutex<JoinHandle<()>>,
}

impl Worker {
    /// Starts the process; [`Worker::settled`] says what becomes of it.
    pub(in super::super) fn start(
        cloud: &LocalCloud,
        mut environment: Variables,
        style: Style,
        http: reqwest::Client,
    ) -> Result<Self, String> {
        // Held, so that no other program gets them while the worker is being replaced: its URL stays what it is.
        let (port, held) = free_port()?;
        let (metrics_port, metrics_held) = free_port()?;
        let url = format!("http://127.0.0.1:{port}");
        environment.insert("PORT".to_owned(), port.to_string());
        environment.insert("METRICS_PORT".to_owned(), metrics_port.to_string());
        environment.insert("PUSH_AUDIENCE".to_owned(), url.clone());
        environment
            .entry("GOOGLE_CLOUD_PROJECT".to_owned())
            .or_insert_with(|| cloud.settings().project.clone());
        environment
            .entry("RUST_LOG".to_owned())
            .or_insert_with(|| style.log.to_owned());
        environment.extend(
            PASSED_ON
                .iter()
                .filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))),
        );
        let (orders, incoming) = mpsc::channel(16);
        let (state_sender, state) = watch::channel(State::Starting { pid: None });
        let (end, ending) = watch::channel(End::No);
        let keeper = Keeper {
            health: format!("{url}/health/ready"),
            environment: environment.clone(),
            set: Variables::new(),
            style,
            http,
            orders: incoming,
            state: state_sender,
            end: ending,
            _ports: [held, metrics_held],
        };
        Ok(Self {
            url,
            metrics: format!("http://127.0.0.1:{metrics_port}/metrics"),
            environment,
            orders,
            state,
            end,
            keeper: Mutex::new(tokio::spawn(keeper.run())),
        })
    }

    pub(in super::super) fn url(&self) -> &str {
        &self.url
    }

    pub(in super::super) fn metrics(&self) -> &str {
        &self.metrics
    }

    /// All that it is told, but what [`Order::Set`] has set.
    pub(in super::super) fn environment(&self) -> &Variables {
        &self.environment
    }

    pub(in super::super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits until it is ready, or has ended and stays so.
    pub(in super::super) async fn settled(&self) -> State {
        let mut state = self.state.clone();
        match state.wait_for(State::is_settled).await {
            Ok(state) => state.clone(),
            // The keeper is gone, and with it the worker.
            Err(_) => State::Stopped,
        }
    }

    /// Comes when it has ended and is not replaced; why.
    pub(in super::super) async fn failed(&self) -> String {
        let mut state = self.state.clone();
        match state
            .wait_for(|state| matches!(state, State::Failed { .. }))
            .await
            .as_deref()
        {
            Ok(State::Failed { reason }) => reason.clone(),
            _ => "the worker has ended".to_owned(),
        }
    }

    /// Has an order carried out, and gives what then becomes of the worker.
    pub(in super::super) async fn order(&self, order: Order) -> State {
        let (done, carried_out) = oneshot::channel();
        // Either fails only when the keeper is gone; the state says so.
        if self.orders.send((order, done)).await.is_ok() {
            let _gone = carried_out.await;
        }
        self.settled().await
    }

    /// Ends it: as Cloud Run would when its work is done, and at once when `hurry` comes.
    pub(in super::super) async fn end(&self, hurry: impl Future<Output = ()>) {
        let mut keeper = self.keeper.lock().await;
        self.end.send_replace(End::Graceful);
        // A panic of the keeper is said on stderr; the worker's end follows from its parent's.
        tokio::select! {
            _said = &mut *keeper => return,
            () = hurry => {}
        }
        self.end.send_replace(End::AtOnce);
        let _said = (&mut *keeper).await;
    }
}

/// Looks after the process.
struct Keeper {
    health: String,
    environment: Variables,
    /// What was set on top of the environment since.
    set: Variables,
    style: Style,
    http: reqwest::Client,
    orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    state: watch::Sender<State>,
    end: watch::Receiver<End>,
    _ports: [TcpSocket; 2],
}

/// What the keeper wakes up for.
enum Event {
    Ended(std::io::Result<ExitStatus>),
    Warm(Result<(), String>),
    Order(Order, oneshot::Sender<()>),
    End,
}

impl Keeper {
    async fn run(mut self) {
        let mut child = self.spawn();
        let mut warming = child.is_some();
        loop {
            match self.next(child.as_mut(), warming).await {
                Event::End => {
                    if let Some(child) = child {
                        self.stop(child).await;
                    }
                    return;
                }
                Event::Warm(Ok(())) => {
                    warming = false;
                    let pid = child.as_ref().and_then(Child::id);
                    self.state.send_replace(State::Ready { pid });
                }
                Event::Warm(Err(reason)) => {
                    warming = false;
                    if let Some(child) = child.take() {
                        self.stop(child).await;
                    }
                    self.state.send_replace(State::Failed { reason });
                }
                Event::Ended(status) => {
                    child = self.ended(status, warming).await;
                    warming = child.is_some();
                }
                Event::Order(order, done) => {
                    (child, warming) = self.carry_out(order, child, warming).await;
                    // Whoever asked may have gone.
                    let _gone = done.send(());
                }
            }
        }
    }

    async fn next(&mut self, child: Option<&mut Child>, warming: bool) -> Event {
        let Self {
            health,
            http,
            orders,
            end,
            ..
        } = self;
        let ended = async {
            match child {
                Some(child) => child.wait().await,
                None => std::future::pending().await,
            }
        };
        let warm = async {
            if warming {
                is_warm(http, health).await
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            // An error is the handle's end, which means the same.
            _ = end.wait_for(|end| *end > End::No) => Event::End,
            status = ended => Event::Ended(status),
            Some((order, done)) = orders.recv() => Event::Order(order, done),
            warm = warm => Event::Warm(warm),
        }
    }

    /// Replaces a worker that has ended by itself, if one that was ready should be.
    async fn ended(&mut self, status: std::io::Result<ExitStatus>, warming: bool) -> Option<Child> {
        let status = match status {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        if warming || !self.style.revive {
            let when = if warming { " before it was ready" } else { "" };
            let reason = format!("the worker ended{when} ({status}); what it said is above");
            self.state.send_replace(State::Failed { reason });
            return None;
        }
        eprintln!("replacing  the worker, which ended ({status})");
        self.state.send_replace(State::Starting { pid: None });
        tokio::time::sleep(PAUSE).await;
        self.spawn()
    }

    async fn carry_out(&mut self, order: Order, child: Option<Child>, warming: bool) -> (Option<Child>, bool) {
        let start = match order {
            Order::Start if child.is_some() => return (child, warming),
            Order::Kill => {
                let Some(mut child) = child else {
                    return (None, false);
                };
                // An error means that it has ended already.
                let _ended = child.start_kill();
                let status = child.wait().await;
                let replaced = self.ended(status, false).await;
                let warming = replaced.is_some();
                return (replaced, warming);
            }
            Order::Start | Order::Restart => true,
            Order::Stop => false,
            Order::Set(variables) => {
                self.set = variables;
                true
            }
        };
        if let Some(child) = child {
            self.stop(child).await;
        }
        if start {
            let child = self.spawn();
            let warming = child.is_some();
            return (child, warming);
        }
        self.state.send_replace(State::Stopped);
        (None, false)
    }

    fn spawn(&self) -> Option<Child> {
        let spawned = std::env::current_exe().and_then(|program| {
            let mut command = Command::new(program);
            command
                .arg("serve")
                .env_clear()
                .envs(&self.environment)
                .envs(&self.set)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                // Ctrl-C in a terminal is for this process, which then tells the worker.
                .process_group(0);
            // Not killed on drop: told to end, it removes what it made.
            crate::sandbox::end_with_parent(command.as_std_mut());
            command.spawn()
        });
        match spawned {
            Ok(child) => {
                self.state.send_replace(State::Starting { pid: child.id() });
                Some(child)
            }
            Err(error) => {
                let reason = format!("the worker does not start: {error}");
                self.state.send_replace(State::Failed { reason });
                None
            }
        }
    }

    /// Ends a process: politely, then with the second signal that means at once, then by force.
    async fn stop(&mut self, mut child: Child) {
        self.state.send_replace(State::Stopping { pid: child.id() });
        let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw) else {
            return;
        };
        let gone = |result: nix::Result<()>| result.is_err();
        if gone(kill(pid, Signal::SIGTERM)) {
            let _reaped = child.wait().await;
            return;
        }
        tokio::select! {
            _ = child.wait() => return,
            () = tokio::time::sleep(GRACE) => {}
            // An error is the handle's end, after which nobody waits.
            _ = self.end.wait_for(|end| *end == End::AtOnce) => {}
        }
        // The second signal means at once. Two that come together are one: it is repeated until it has been heard.
        let forced = tokio::time::Instant::now() + GRACE;
        while tokio::time::Instant::now() < forced && !gone(kill(pid, Signal::SIGTERM)) {
            if tokio::time::timeout(PAUSE, child.wait()).await.is_ok() {
                return;
            }
        }
        // Whatever it does, it must not outlive this process.
        let _ended = child.kill().await;
    }
}

/// Waits until the worker says that it is ready.
async fn is_warm(http: &reqwest::Client, health: &str) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let answer = http.get(health).send().await;
        if answer.is_ok_and(|answer| answer.status().is_success()) {
            return Ok(());
        }
        if started.elapsed() > WARM {
            return Err(format!(
                "the worker is not ready after {} s; RUST_LOG=info shows why",
                WARM.as_secs()
            ));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A port that nobody else is given: a socket that is bound and does not listen stands in no server's way.
fn free_port() -> Result<(u16, TcpSocket), String> {
    let bound = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        Ok((socket.local_addr()?.port(), socket))
    };
    bound().map_err(|error: std::io::Error| format!("no port is free: {error}"))
}
