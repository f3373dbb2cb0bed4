//! One address before three workers: it gives each push to the next one, and keeps what became of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::harness::client;

/// Of how many pushes one is answered with 504 at once, while a worker is still at it: so it comes again too early.
const IMPATIENT: usize = 40;

/// One push, and what the worker said; nothing where that died over it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Delivery {
    pub(super) attempt: u64,
    pub(super) status: Option<u16>,
}

#[derive(Default)]
struct State {
    workers: Vec<Option<String>>,
    next: usize,
    /// By message id.
    deliveries: HashMap<String, Vec<Delivery>>,
    /// What workers answered; 0 for none.
    answers: BTreeMap<u16, usize>,
    impatient: usize,
}

/// The address, and who is behind it.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) url: String,
    state: Arc<Mutex<State>>,
    http: reqwest::Client,
}

impl Door {
    pub(super) async fn open(workers: usize) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            state: Arc::new(Mutex::new(State {
                workers: vec![None; workers],
                ..State::default()
            })),
            http: client(),
        };
        let behind = door.clone();
        let router = Router::new().fallback(async move |headers: HeaderMap, body: Bytes| {
            let door = behind.clone();
            door.pass(headers, body).await
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        door
    }

    /// Puts a worker in its place, or nobody.
    pub(super) fn set(&self, place: usize, worker: Option<String>) {
        self.state.lock().unwrap().workers[place] = worker;
    }

    /// How many pushes were acknowledged by a worker.
    pub(super) fn acknowledged(&self) -> usize {
        self.answers().get(&204).copied().unwrap_or(0)
    }

    pub(super) fn answers(&self) -> BTreeMap<u16, usize> {
        self.state.lock().unwrap().answers.clone()
    }

    pub(super) fn impatient(&self) -> usize {
        self.state.lock().unwrap().impatient
    }

    pub(super) fn deliveries(&self, message: &str) -> Vec<Delivery> {
        self.state
            .lock()
            .unwrap()
            .deliveries
            .get(message)
            .cloned()
            .unwrap_or_default()
    }

    async fn pass(&self, mut headers: HeaderMap, body: Bytes) -> StatusCode {
        let (worker, impatient) = {
            let mut state = self.state.lock().unwrap();
            let place = state.next % state.workers.len();
            state.next += 1;
            let impatient = state.next % IMPATIENT == 0;
            state.impatient += usize::from(impatient);
            (state.workers[place].clone(), impatient)
        };
        let Some(worker) = worker else {
            return StatusCode::BAD_GATEWAY;
        };
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let door = self.clone();
        let pushed = async move {
            let envelope: Value = serde_json::from_slice(&body).unwrap_or_default();
            let sent = door.http.post(worker).headers(headers).body(body).send().await;
            let status = sent.ok().map(|answer| answer.status());
            door.note(&envelope, status);
            status.unwrap_or(StatusCode::BAD_GATEWAY)
        };
        if impatient {
            tokio::spawn(pushed);
            return StatusCode::GATEWAY_TIMEOUT;
        }
        pushed.await
    }

    fn note(&self, envelope: &Value, status: Option<StatusCode>) {
        let mut state = self.state.lock().unwrap();
        let status = status.map(|status| status.as_u16());
        *state.answers.entry(status.unwrap_or(0)).or_default() += 1;
        let id = envelope["message"]["messageId"].as_str().unwrap_or_default();
        state.deliveries.entry(id.to_owned()).or_default().push(Delivery {
            attempt: envelope["deliveryAttempt"].as_u64().unwrap_or(0),
            status,
        });
    }
}
