//! The pusher: one loop a subscription, with OIDC tokens, back-off and a window that grows and shrinks.

use std::{sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    super::{
        Refusal, World,
        data::NotKept,
        faults::Effect,
        server::{Peer, lock},
    },
    Subscription,
    model::{PushConfig, Settings},
    queue::Delivery,
};

const USER_AGENT: &str = "APIs-Google; (+https://developers.google.com/webmasters/APIs-Google.html)";
/// Outstanding pushes before the endpoint has shown what it can take, and never fewer after that: one slow push must
/// not hold up all others.
const FIRST_WINDOW: usize = 5;

/// What frames a request: an attribute of that name would cut the body short, or end up somewhere else.
const OF_HTTP: [&str; 9] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// How an endpoint has done so far.
pub(super) struct Pace {
    window: usize,
    outstanding: usize,
    /// The last pause, in Pub/Sub's seconds; doubled with each failure, forgotten with a success.
    pause: f64,
    closed_until: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            window: FIRST_WINDOW,
            outstanding: 0,
            pause: 0.0,
            closed_until: None,
        }
    }
}

impl Pace {
    fn succeeded(&mut self, most: usize) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.window = (self.window + 1).min(most.max(1));
        self.pause = 0.0;
        self.closed_until = None;
    }

    /// 100 ms to 60 s for the whole subscription, and no way to turn it off.
    fn failed(&mut self, second: Duration) {
        self.outstanding = self.outstanding.saturating_sub(1);
        self.window = (self.window / 2).max(FIRST_WINDOW);
        self.pause = (self.pause * 2.0).clamp(0.1, 60.0);
        self.closed_until = Some(Instant::now() + second.mul_f64(self.pause));
    }
}

/// Pushes until the subscription is deleted or the cloud stops. Without an endpoint it only gives up what was pulled
/// too often.
pub(super) async fn run(world: Arc<World>, subscription: Arc<Subscription>) {
    let mut stopped = world.stopped.clone();
    let mut changed = subscription.changed.subscribe();
    loop {
        changed.mark_unchanged();
        if subscription.is_deleted() {
            return;
        }
        let again_at = start_deliveries(&world, &subscription);
        let timer = async {
            match again_at {
                Some(time) => tokio::time::sleep_until(time).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = timer => {}
            changed = changed.changed() => if changed.is_err() { return },
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

/// Starts what may start now; when to look again.
fn start_deliveries(world: &Arc<World>, subscription: &Arc<Subscription>) -> Option<Instant> {
    let settings = subscription.settings();
    if settings.detached {
        return None;
    }
    if settings.push_config.push_endpoint.is_empty() {
        settings.dead_letter_policy.as_ref()?;
        let again_at = subscription.give_up(world, &settings);
        return again_at.unwrap_or_else(|_| Some(Instant::now() + world.settings.pubsub_second));
    }
    let room = {
        let pace = lock(&subscription.pace);
        if let Some(until) = pace.closed_until.filter(|until| *until > Instant::now()) {
            return Some(until);
        }
        let most = world.settings.push_window.max(1);
        pace.window.min(most).saturating_sub(pace.outstanding)
    };
    if room == 0 {
        return None;
    }
    // What cannot be counted is not pushed.
    let Ok(taken) = subscription.take(world, &settings, room, true) else {
        return Some(Instant::now() + world.settings.pubsub_second);
    };
    lock(&subscription.pace).outstanding += taken.deliveries.len();
    for delivery in taken.deliveries {
        let (world, subscription, settings) = (Arc::clone(world), Arc::clone(subscription), settings.clone());
        tokio::spawn(async move { deliver(&world, &subscription, &settings, delivery).await });
    }
    taken.again_at
}

async fn deliver(world: &World, subscription: &Subscription, settings: &Settings, delivery: Delivery) {
    let second = world.settings.pubsub_second;
    let mut stopped = world.stopped.clone();
    let watched = world
        .watchers
        .pushed(&world.clock, &settings.name, &delivery.message.id, delivery.attempt);
    let status = tokio::select! {
        status = send(world, settings, &delivery, watched.header()) => status,
        _ = stopped.wait_for(|stopped| *stopped) => return,
    };
    watched.answered(status.map(|status| status.as_u16()));
    // Where that cannot be kept the message is delivered again: once more is what Pub/Sub may always do.
    if status.is_some_and(acknowledges) {
        lock(&subscription.pace).succeeded(world.settings.push_window);
        let _again = subscription.acknowledge(world, &[&delivery.ack_id]);
    } else {
        let _again = subscription.queue.change(|queue| {
            queue.nack(&delivery.ack_id, settings, second);
            Ok::<_, NotKept>(())
        });
        lock(&subscription.pace).failed(second);
        subscription.touch();
    }
}

/// One POST; its answer, if one came within the ack deadline.
async fn send(
    world: &World,
    settings: &Settings,
    delivery: &Delivery,
    traceparent: Option<HeaderValue>,
) -> Option<StatusCode> {
    let config = &settings.push_config;
    let (mut headers, body) = match &config.no_wrapper {
        Some(unwrapped) => {
            let headers = if unwrapped.write_metadata {
                metadata(settings, delivery)
            } else {
                HeaderMap::new()
            };
            (headers, delivery.message.draft.data.clone())
        }
        None => {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            (headers, wrapped(settings, delivery).to_string().into_bytes())
        }
    };
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(header::FROM, HeaderValue::from_static("noreply@google.com"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate, br"));
    if let Some(traceparent) = traceparent {
        headers.insert("traceparent", traceparent);
    }
    let deadline = settings.ack_deadline(world.settings.pubsub_second);
    let sent = tokio::time::timeout(deadline, post(world, config, headers, body)).await;
    match sent.unwrap_or(Ok(None)) {
        Ok(status) => status,
        Err(error) => {
            tracing::debug!(error = %error.without_url(), subscription = settings.name, "a push got no answer");
            None
        }
    }
}

/// 102 acknowledges too, but is no final answer in HTTP/1.1: a client never gets to see it.
pub(super) fn acknowledges(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 201 | 202 | 204)
}

/// Refuses to push as somebody who is not there.
pub(super) fn check(world: &World, config: &PushConfig) -> Result<(), Refusal> {
    match &config.oidc_token {
        Some(token) if !world.identity.knows(&token.service_account_email) => {
            let email = &token.service_account_email;
            Err(Refusal::argument(format!(
                "Invalid push config: there is no service account {email}."
            )))
        }
        _ => Ok(()),
    }
}

/// Posts with the token that the configuration asks for. The endpoint's status; none where there is none.
pub(super) async fn post(
    world: &World,
    config: &PushConfig,
    mut headers: HeaderMap,
    body: Vec<u8>,
) -> reqwest::Result<Option<StatusCode>> {
    // Without the right to make the token Pub/Sub does not push at all.
    if let Some(oidc) = &config.oidc_token
        && !world.policies.agent_may(
            "pubsub-agent",
            "iam.serviceAccounts.getOpenIdToken",
            &format!("account/{}", oidc.service_account_email),
        )
    {
        return Ok(None);
    }
    if let Some(token) = token(world, config).and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok()) {
        headers.insert(header::AUTHORIZATION, token);
    }
    let request = world.http.post(&config.push_endpoint).headers(headers);
    under_faults(world, config, request, body).await
}

/// The endpoint's status; none where a scripted failure lost it.
async fn under_faults(
    world: &World,
    config: &PushConfig,
    request: reqwest::RequestBuilder,
    body: Vec<u8>,
) -> reqwest::Result<Option<StatusCode>> {
    let path = config.push_endpoint.parse::<Uri>();
    let path = path.as_ref().map_or("/", |uri| uri.path());
    let effect = world.faults.take(Peer::Push, "POST", path);
    let body = match &effect {
        Some(Effect::Status { status, .. }) => return Ok(StatusCode::from_u16(*status).ok()),
        Some(Effect::Reset { .. }) => return Ok(None),
        Some(Effect::Silence { .. }) => std::future::pending().await,
        Some(Effect::Delay { delay_milliseconds }) => {
            tokio::time::sleep(Duration::from_millis(*delay_milliseconds)).await;
            reqwest::Body::from(body)
        }
        Some(Effect::CutRequest { cut_request_after }) => {
            let head = body[..body.len().min(*cut_request_after)].to_vec();
            let cut = futures_util::stream::iter([Ok(head), Err(std::io::Error::other("scripted cut"))]);
            return request
                .header(header::CONTENT_LENGTH, body.len())
                .body(reqwest::Body::wrap_stream(cut))
                .send()
                .await
                .map(|_| None);
        }
        _ => reqwest::Body::from(body),
    };
    let status = request.body(body).send().await?.status();
    let lost = matches!(effect, Some(Effect::LoseAnswer { .. }));
    Ok((!lost).then_some(status))
}

fn token(world: &World, config: &PushConfig) -> Option<String> {
    let oidc = config.oidc_token.as_ref()?;
    let audience = if oidc.audience.is_empty() {
        &config.push_endpoint
    } else {
        &oidc.audience
    };
    let claims = world.identity.claims(&oidc.service_account_email, audience, true);
    Some(world.identity.id_token(&claims))
}

/// The body of a wrapped push: id and time in both spellings.
fn wrapped(settings: &Settings, delivery: &Delivery) -> Value {
    let mut message = delivery.message.json();
    message["attributes"] = json!(delivery.message.draft.attributes);
    message["message_id"] = json!(delivery.message.id);
    message["publish_time"] = json!(delivery.message.publish_time());
    let mut body = json!({"message": message, "subscription": settings.name});
    if settings.dead_letter_policy.is_some() {
        body["deliveryAttempt"] = json!(delivery.attempt);
    }
    body
}

/// The headers of an unwrapped push with metadata: each attribute is one. What is no legal header, or
/// belongs to HTTP itself, is left out.
fn metadata(settings: &Settings, delivery: &Delivery) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut set = |name: &str, value: &str| {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::from_str(value)) {
            headers.insert(name, value);
        }
    };
    let message = &delivery.message;
    let of_http = |key: &String| OF_HTTP.iter().any(|name| name.eq_ignore_ascii_case(key));
    for (key, value) in message.draft.attributes.iter().filter(|(key, _)| !of_http(key)) {
        set(key, value);
    }
    set("x-goog-pubsub-subscription-name", &settings.name);
    set("x-goog-pubsub-message-id", &message.id);
    set("x-goog-pubsub-publish-time", &message.publish_time());
    if !message.draft.ordering_key.is_empty() {
        set("x-goog-pubsub-ordering-key", &message.draft.ordering_key);
    }
    if settings.dead_letter_policy.is_some() {
        set("x-goog-pubsub-delivery-attempt", &delivery.attempt.to_string());
    }
    headers
}
