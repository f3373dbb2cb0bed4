//! The task that looks after the worker's process: it alone starts, watches and ends it.

use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpSocket;
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::super::Style;
use super::{End, Order, State, Variables};

/// How long a warm engine may take; it takes about a second.
const WARM: Duration = Duration::from_secs(120);
/// How long a worker may finish its work: Cloud Run's ten seconds.
const GRACE: Duration = Duration::from_secs(10);
/// Before a worker that has ended is replaced, so that one that cannot live does not spin.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks after the process.
pub(super) struct Keeper {
    pub(super) health: String,
    pub(super) environment: Variables,
    /// What was set on top of the environment since.
    pub(super) set: Variables,
    pub(super) style: Style,
    pub(super) http: reqwest::Client,
    pub(super) orders: mpsc::Receiver<(Order, oneshot::Sender<()>)>,
    pub(super) state: watch::Sender<State>,
    pub(super) end: watch::Receiver<End>,
    /// Held for as long as the worker may listen there.
    #[expect(dead_code, reason = "held, not read")]
    pub(super) ports: [TcpSocket; 2],
}

/// What the keeper wakes up for.
enum Event {
    Ended(std::io::Result<ExitStatus>),
    Warm(Result<(), String>),
    Order(Order, oneshot::Sender<()>),
    End,
}

impl Keeper {
    pub(super) async fn run(mut self) {
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
