//! What comes on the result topic and on the dead-letter topic, in short.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::{LocalCloud, number_of};
use serde_json::{Value, json};

use super::{call, http};

/// One result message, as much of it as is looked at later.
#[derive(Debug)]
pub(super) struct Record {
    /// Which of all messages of the cloud it was.
    pub(super) number: u64,
    pub(super) status: String,
    pub(super) code: Option<String>,
    pub(super) job_id: Option<String>,
    pub(super) attempt: u64,
    pub(super) source: Option<String>,
    pub(super) generation: Option<i64>,
    pub(super) user_data: Value,
    pub(super) outputs: Vec<Made>,
}

#[derive(Debug)]
pub(super) struct Made {
    pub(super) name: String,
    pub(super) generation: i64,
    pub(super) crc32c: Option<String>,
    pub(super) pages: Option<u64>,
    pub(super) url: String,
}

pub(super) struct Results<'a> {
    cloud: &'a LocalCloud,
    http: reqwest::Client,
    /// By message id.
    pub(super) records: HashMap<String, Vec<Record>>,
    /// The numbers of the messages that were given up, see [`super::feed::NUMBER`], and the deliveries of each.
    pub(super) given_up: HashMap<usize, u32>,
}

impl<'a> Results<'a> {
    pub(super) fn new(cloud: &'a LocalCloud) -> Self {
        Self {
            cloud,
            http: http(),
            records: HashMap::new(),
            given_up: HashMap::new(),
        }
    }

    pub(super) async fn collect_until(&mut self, over: &AtomicBool) {
        while !over.load(Ordering::Acquire) {
            self.collect_the_rest().await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// All that is there now.
    pub(super) async fn collect_the_rest(&mut self) {
        loop {
            let messages = self.pull("results").await;
            if messages.is_empty() {
                break;
            }
            for message in &messages {
                self.keep(message);
            }
        }
        for message in self.pull("given-up").await {
            let attribute = |name: &str| message["attributes"][name].as_str().and_then(|text| text.parse().ok());
            let number = attribute(super::feed::NUMBER).expect("the attributes of the message are kept");
            let deliveries = attribute("CloudPubSubDeadLetterSourceDeliveryCount").unwrap();
            self.given_up
                .insert(number, u32::try_from(deliveries).expect("a small number"));
        }
    }

    async fn pull(&self, subscription: &str) -> Vec<Value> {
        let url = format!(
            "{}/v1/projects/{}/subscriptions/{subscription}",
            self.cloud.urls().pubsub,
            self.cloud.settings().project
        );
        let wanted = json!({"maxMessages": 1000, "returnImmediately": true});
        let mut answer = call(self.http.post(format!("{url}:pull")).json(&wanted), self.cloud).await;
        let Value::Array(received) = answer["receivedMessages"].take() else {
            return Vec::new();
        };
        let ids: Vec<&Value> = received.iter().map(|received| &received["ackId"]).collect();
        let acknowledged = json!({"ackIds": ids});
        call(
            self.http.post(format!("{url}:acknowledge")).json(&acknowledged),
            self.cloud,
        )
        .await;
        received
            .into_iter()
            .map(|mut received| received["message"].take())
            .collect()
    }

    fn keep(&mut self, message: &Value) {
        let data = STANDARD.decode(message["data"].as_str().unwrap()).unwrap();
        let data: Value = serde_json::from_slice(&data).unwrap();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok());
        let outputs = data["outputs"].as_array().unwrap().iter().map(|output| Made {
            name: text(&output["name"]).unwrap(),
            generation: number(&output["generation"]).unwrap(),
            crc32c: text(&output["crc32c"]),
            pages: output["pages"].as_u64(),
            url: text(&output["signedUrl"]).unwrap(),
        });
        let record = Record {
            number: number_of(message["messageId"].as_str().unwrap()).unwrap(),
            status: text(&data["status"]).unwrap(),
            code: text(&data["error"]["code"]),
            job_id: text(&data["jobId"]),
            attempt: data["attempt"].as_u64().unwrap(),
            source: text(&data["source"]["name"]),
            generation: number(&data["source"]["generation"]),
            user_data: data["userData"].clone(),
            outputs: outputs.collect(),
        };
        let id = text(&data["messageId"]).expect("every message has an id");
        self.records.entry(id).or_default().push(record);
    }
}
