//! Google's own Pub/Sub emulator in place of our queues: this cloud demands tokens and rights as before, hands each call on, and
//! stands between the emulator and the endpoints that it pushes to.
//!
//! The emulator pushes without a token, follows redirects, and takes 203 for an acknowledgement and 202 for none. A push
//! subscription that is made through this cloud therefore pushes to its relay, which adds the token and answers as Google's
//! Pub/Sub would have understood the endpoint. What the emulator does not say (`deliveryAttempt`, the ordering key) the relay
//! cannot know.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    http::{HeaderMap, Method, StatusCode, header},
    response::Response,
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
};

use super::{
    super::{
        Refusal, World,
        server::{Request, decode, lock, rpc_error, text, with_type},
    },
    Draft,
    model::{PushConfig, check_drafts},
    push,
    rest::split_verb,
};

/// The emulator, and what it does not keep.
pub(in super::super) struct Emulator {
    /// `http://HOST:PORT`
    url: String,
    /// Where it pushes to.
    relay: String,
    /// Where each subscription really pushes to, and as whom.
    pushes: Mutex<BTreeMap<String, PushConfig>>,
    orders: mpsc::UnboundedSender<Order>,
}

/// Calls of the cloud itself, which are made one after the other.
enum Order {
    Call(Call),
    /// Says what the first failure since the last of these was.
    Settle(oneshot::Sender<Result<(), Refusal>>),
}

/// A call that is made for the cloud.
struct Call {
    method: Method,
    path: String,
    body: Value,
}

/// The orders of an emulator that is not yet at work.
pub(in super::super) struct Orders(mpsc::UnboundedReceiver<Order>);

impl Emulator {
    /// The emulator at `HOST:PORT`, and a listener for what it pushes. Nothing is asked of it yet.
    pub(in super::super) async fn at(host: &str) -> std::io::Result<(Self, TcpListener, Orders)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let (orders, receiver) = mpsc::unbounded_channel();
        let emulator = Self {
            url: format!("http://{host}"),
            relay: format!("http://{}/", listener.local_addr()?),
            pushes: Mutex::default(),
            orders,
        };
        Ok((emulator, listener, Orders(receiver)))
    }

    /// Makes a topic, if it is not there: it may be left of an earlier run.
    pub(super) fn create_topic(&self, name: &str) {
        self.order(Method::PUT, name.to_owned(), json!({}));
    }

    /// Makes a subscription; one that is left of an earlier run is made anew.
    pub(super) fn create_subscription(&self, name: &str, mut body: Value) -> Result<(), Refusal> {
        let config = self.redirect(name, body.get_mut("pushConfig"))?;
        // It may push before we hear that it made it.
        self.remember(name, config);
        self.order(Method::PUT, name.to_owned(), body);
        Ok(())
    }

    pub(super) fn publish(&self, topic: &str, drafts: &[Draft]) -> Result<(), Refusal> {
        check_drafts(drafts)?;
        let messages: Vec<Value> = drafts.iter().map(Draft::json).collect();
        self.order(Method::POST, format!("{topic}:publish"), json!({"messages": messages}));
        Ok(())
    }

    fn order(&self, method: Method, path: String, body: Value) {
        // Nobody listens when the cloud ends.
        let _ended = self.orders.send(Order::Call(Call { method, path, body }));
    }

    /// Waits until all that was ordered is done; the first failure since it was asked last.
    pub(in super::super) async fn settled(&self) -> Result<(), Refusal> {
        let (answer, answered) = oneshot::channel();
        let _ended = self.orders.send(Order::Settle(answer));
        // No answer comes when the cloud ends.
        answered.await.unwrap_or(Ok(()))
    }

    /// Makes a push configuration push to the relay; what it was, where there is an endpoint.
    fn redirect(&self, subscription: &str, config: Option<&mut Value>) -> Result<Option<PushConfig>, Refusal> {
        let Some(config) = config.filter(|config| !config.is_null()) else {
            return Ok(None);
        };
        let wanted: PushConfig = serde_json::from_value(config.clone()).map_err(|error| Refusal::unreadable(&error))?;
        if wanted.push_endpoint.is_empty() {
            return Ok(None);
        }
        config["pushEndpoint"] =
            format!("{}{}", self.relay, utf8_percent_encode(subscription, NON_ALPHANUMERIC)).into();
        Ok(Some(wanted))
    }

    fn remember(&self, subscription: &str, config: Option<PushConfig>) {
        let mut pushes = lock(&self.pushes);
        match config {
            Some(config) => pushes.insert(subscription.to_owned(), config),
            None => pushes.remove(subscription),
        };
    }

    /// Says where subscriptions really push to.
    fn reveal(&self, answer: &mut Value) {
        let pushes = lock(&self.pushes);
        let reveal = |one: &mut Value| {
            let relayed = one.pointer("/pushConfig/pushEndpoint").and_then(Value::as_str);
            if relayed.is_some_and(|endpoint| endpoint.starts_with(&self.relay))
                && let Some(config) = one["name"].as_str().and_then(|name| pushes.get(name))
            {
                one["pushConfig"] = json!(config);
            }
        };
        if let Some(Value::Array(listed)) = answer.get_mut("subscriptions") {
            listed.iter_mut().for_each(reveal);
        } else {
            reveal(answer);
        }
    }

    /// Whether the emulator has a topic, subscription or snapshot.
    pub(super) async fn has(&self, world: &World, name: &str) -> bool {
        self.call(world, Method::GET, name, None).await.is_ok()
    }

    /// Pulls as a client of the cloud itself.
    pub(super) async fn pull(&self, world: &World, subscription: &str, most: usize) -> Result<Vec<Value>, Refusal> {
        self.settled().await?;
        let body = json!({"maxMessages": most});
        let mut pulled = self
            .call(world, Method::POST, &format!("{subscription}:pull"), Some(&body))
            .await?;
        match pulled["receivedMessages"].take() {
            Value::Array(received) => Ok(received),
            _ => Ok(Vec::new()),
        }
    }

    pub(super) async fn acknowledge(
        &self,
        world: &World,
        subscription: &str,
        received: &[Value],
    ) -> Result<(), Refusal> {
        let ids: Vec<&Value> = received.iter().map(|message| &message["ackId"]).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let body = json!({"ackIds": ids});
        self.call(world, Method::POST, &format!("{subscription}:acknowledge"), Some(&body))
            .await
            .map(drop)
    }

    async fn call(&self, world: &World, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let unreachable = |error: reqwest::Error| {
            let (at, error) = (&self.url, error.without_url());
            let message = format!("the Pub/Sub emulator at {at} does not answer: {error}");
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
        };
        let mut request = world.http.request(method, format!("{}/v1/{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(unreachable)?;
        let code = answer.status();
        let body: Value = answer.json().await.map_err(unreachable)?;
        if code.is_success() {
            return Ok(body);
        }
        let message = body["error"]["message"].as_str().unwrap_or("no reason is given");
        let message = format!("the Pub/Sub emulator refuses {path}: {message}");
        Err(Refusal::new(code, "UNKNOWN", message))
    }

    /// Hands a client's request on, and the answer back.
    pub(super) async fn pass(&self, world: &World, request: &Request) -> Result<Response, Refusal> {
        let path = decode(request.path.strip_prefix("/v1/").unwrap_or_default());
        let (name, verb) = split_verb(&path);
        let mut body = request.body.clone();
        let mut config = None;
        let place = match (&request.method, verb) {
            (&Method::PUT, "") | (_, "modifyPushConfig") => Some("/pushConfig"),
            (&Method::PATCH, "") => Some("/subscription/pushConfig"),
            _ => None,
        };
        if let Some(place) = place.filter(|_| name.contains("/subscriptions/") && !body.is_empty()) {
            let mut json: Value = serde_json::from_slice(&body).map_err(|error| Refusal::unreadable(&error))?;
            let mask = json["updateMask"].as_str().unwrap_or_default();
            let concerns = request.method != Method::PATCH || mask.contains("push");
            if concerns {
                let wanted = self.redirect(name, json.pointer_mut(place))?;
                if let Some(wanted) = &wanted {
                    push::check(world, wanted)?;
                }
                config = Some(wanted);
                body = json.to_string().into();
            }
        }
        let url = match request.query.as_str() {
            "" => format!("{}{}", self.url, request.path),
            query => format!("{}{}?{query}", self.url, request.path),
        };
        let mut sent = world.http.request(request.method.clone(), url).body(body);
        if let Some(kind) = request.headers.get(header::CONTENT_TYPE) {
            sent = sent.header(header::CONTENT_TYPE, kind);
        }
        let unreachable = |error: reqwest::Error| {
            let message = format!("The Pub/Sub emulator does not answer: {}.", error.without_url());
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "UNAVAILABLE", message)
        };
        let answer = sent.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        if status.is_success() {
            match config {
                Some(config) => self.remember(name, config),
                None if request.method == Method::DELETE => self.remember(name, None),
                None => {}
            }
        }
        let Ok(mut json) = serde_json::from_slice::<Value>(&bytes) else {
            return Ok(with_type(status, "text/plain; charset=UTF-8", bytes));
        };
        self.reveal(&mut json);
        Ok(super::super::server::json(status, &json))
    }
}

/// Makes the calls of the cloud itself, in their order, until it ends.
pub(in super::super) async fn work(world: Arc<World>, Orders(mut orders): Orders) {
    let mut stopped = world.stopped.clone();
    let mut failure = None;
    loop {
        let order = tokio::select! {
            order = orders.recv() => order,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let (Some(order), Some(emulator)) = (order, &world.pubsub.emulator) else {
            return;
        };
        match order {
            Order::Settle(answer) => {
                let result = failure.take().map_or(Ok(()), Err);
                let _no_longer_asked = answer.send(result);
            }
            Order::Call(call) => {
                if let Err(refusal) = make(&world, emulator, &call).await {
                    tracing::warn!(%refusal, "a call of the Pub/Sub emulator failed");
                    failure.get_or_insert(refusal);
                }
            }
        }
    }
}

async fn make(world: &World, emulator: &Emulator, call: &Call) -> Result<(), Refusal> {
    let put = async || {
        let made = emulator.call(world, call.method.clone(), &call.path, Some(&call.body));
        made.await.map(drop)
    };
    match put().await {
        Err(refusal) if call.method == Method::PUT && refusal.code == StatusCode::CONFLICT => {
            if call.path.contains("/subscriptions/") {
                emulator.call(world, Method::DELETE, &call.path, None).await?;
                return put().await;
            }
            Ok(())
        }
        result => result,
    }
}

/// Takes a push of the emulator, and makes it one of Google's.
pub(in super::super) async fn relay(world: &World, request: Request) -> Response {
    let name = decode(request.path.trim_start_matches('/'));
    let config = world.pubsub.emulator.as_ref().and_then(|emulator| {
        let pushes = lock(&emulator.pushes);
        pushes.get(&name).cloned()
    });
    let Some(config) = config else {
        return text(StatusCode::NOT_FOUND, "no such push subscription");
    };
    let mut headers: HeaderMap = request.headers;
    for hop in [
        header::HOST,
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ] {
        headers.remove(hop);
    }
    let status = match push::post(world, &config, headers, request.body.to_vec()).await {
        Ok(Some(status)) if push::acknowledges(status) => StatusCode::NO_CONTENT,
        // What the emulator would take for an acknowledgement, or follow.
        Ok(Some(status)) if status.is_success() || status.is_redirection() => StatusCode::BAD_GATEWAY,
        Ok(Some(status)) => status,
        Ok(None) => StatusCode::BAD_GATEWAY,
        Err(error) => {
            tracing::debug!(error = %error.without_url(), subscription = name, "a push got no answer");
            StatusCode::BAD_GATEWAY
        }
    };
    rpc_error(status, "UNKNOWN", "as the endpoint has answered")
}
