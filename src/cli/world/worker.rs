//! The worker as a process of its own: this binary's `serve`, told by its environment where Google is, watched, and
//! ended, killed and started again on demand.

mod keeper;

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::net::TcpSocket;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::Style;
use crate::local_cloud::LocalCloud;
use keeper::Keeper;

/// The worker's environment, by name.
pub(in super::super) type Variables = BTreeMap<String, String>;

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
            ports: [held, metrics_held],
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
