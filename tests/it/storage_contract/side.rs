//! One of the two that are asked, and what it answered otherwise than Google's documentation says.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};

/// A request. `BUCKET` in its path is the bucket of this run, and `{NAME}` what [`Side::name`] was told.
pub(super) struct Ask {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

pub(super) fn ask(method: &str, path: &str) -> Ask {
    Ask {
        method: method.parse().unwrap(),
        path: path.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
    }
}

pub(super) fn get(path: &str) -> Ask {
    ask("GET", path)
}

pub(super) fn post(path: &str) -> Ask {
    ask("POST", path)
}

pub(super) fn put(path: &str) -> Ask {
    ask("PUT", path)
}

pub(super) fn patch(path: &str) -> Ask {
    ask("PATCH", path)
}

pub(super) fn delete(path: &str) -> Ask {
    ask("DELETE", path)
}

impl Ask {
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    /// Bytes of a document, unless `header` says another type.
    pub(super) fn body(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.body = bytes.into();
        self
    }

    pub(super) fn json(self, value: &Value) -> Self {
        self.header("content-type", "application/json").body(value.to_string())
    }
}

pub(super) struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
    json: Value,
}

impl Answer {
    /// `status`, `body`, `header NAME`, `xml ELEMENT`, `names POINTER`, `raw POINTER`, or a JSON pointer; `absent` where there is none.
    pub(super) fn look(&self, what: &str) -> String {
        let found = match what.split_once(' ') {
            _ if what == "status" => Some(self.status.to_string()),
            _ if what == "body" => Some(String::from_utf8_lossy(&self.body).into_owned()),
            Some(("header", name)) => self.headers.get(name).map(|value| {
                // Lists are written with and without a space.
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                value.replace(", ", ",")
            }),
            Some(("xml", element)) => {
                let body = String::from_utf8_lossy(&self.body).into_owned();
                let rest = body
                    .split_once(&format!("<{element}>"))
                    .map(|(_, rest)| rest.to_owned());
                rest.and_then(|rest| Some(rest.split_once(&format!("</{element}>"))?.0.to_owned()))
            }
            // The names in a list of objects, or of generations.
            Some(("names", key)) => self
                .json
                .pointer(key)
                .and_then(Value::as_array)
                .map(|items| {
                    let names = items.iter().map(|item| item["name"].as_str().unwrap_or_default());
                    names.collect::<Vec<_>>().join(" ")
                })
                .filter(|names| !names.is_empty()),
            Some(("raw", key)) => self.json.pointer(key).map(Value::to_string),
            // A list of nothing is none; `raw` tells them apart.
            _ => self
                .json
                .pointer(what)
                .filter(|value| **value != json!([]))
                .map(|value| match value {
                    Value::String(text) => text.clone(),
                    value => value.to_string(),
                }),
        };
        found.unwrap_or_else(|| "absent".to_owned())
    }
}

/// A thing that is another than Google documents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Difference {
    pub(super) call: String,
    pub(super) what: String,
    pub(super) google: String,
    pub(super) got: String,
}

pub(super) struct Side {
    base: String,
    token: String,
    http: reqwest::Client,
    names: BTreeMap<String, String>,
    pub(super) differences: Vec<Difference>,
    /// Everything that was looked at.
    pub(super) looked_at: usize,
}

impl Side {
    pub(super) fn new(base: &str, token: &str) -> Self {
        let mut side = Self {
            base: base.to_owned(),
            token: token.to_owned(),
            http: crate::harness::client(),
            names: BTreeMap::new(),
            differences: Vec::new(),
            looked_at: 0,
        };
        // A testbench that goes on running has the buckets of the run before.
        let bucket = format!("contract-{}", chrono::Utc::now().timestamp_micros());
        side.names.insert("BUCKET".to_owned(), bucket);
        side
    }

    /// What `{NAME}` shall stand for in requests from now on, and be shown as in answers.
    pub(super) fn name(&mut self, name: &str, value: String) {
        if value != "absent" {
            self.names.insert(format!("{{{name}}}"), value);
        }
    }

    /// Asks, and compares with what Google's documentation says, the status first. `present` stands for anything, and
    /// `2xx` and `4xx` for any success and any refusal.
    pub(super) async fn ask(&mut self, call: &str, ask: Ask, wanted: &[(&str, &str)]) -> Answer {
        let fill = |text: &str| {
            let names = self.names.iter();
            names.fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
        };
        let path = fill(&ask.path);
        // The address of a session is a whole one.
        let url = if path.starts_with("http") {
            path
        } else {
            format!("{}{path}", self.base)
        };
        let mut request = self.http.request(ask.method, url).bearer_auth(&self.token);
        for (name, value) in &ask.headers {
            request = request.header(*name, fill(value));
        }
        let body = match String::from_utf8(ask.body) {
            Ok(text) => fill(&text).into_bytes(),
            Err(error) => error.into_bytes(),
        };
        let answer = request
            .header("content-length", body.len())
            .body(body)
            .send()
            .await
            .unwrap_or_else(|error| panic!("{call}: {error}"));
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        let body = answer.bytes().await.unwrap().to_vec();
        let answer = Answer {
            status,
            headers,
            json: serde_json::from_slice(&body).unwrap_or_default(),
            body,
        };
        for (what, google) in wanted {
            self.looked_at += 1;
            let got = self.shown(&answer.look(what));
            let same = match *google {
                "present" => got != "absent",
                "2xx" | "4xx" => got.len() == 3 && got.starts_with(&google[..1]),
                google => got == google,
            };
            if same {
                continue;
            }
            self.differences.push(Difference {
                call: call.to_owned(),
                what: (*what).to_owned(),
                google: (*google).to_owned(),
                got,
            });
            // Another answer has other things in it.
            if *what == "status" {
                break;
            }
        }
        answer
    }

    /// Compares something that was read out of an answer.
    pub(super) fn note(&mut self, call: &str, what: &str, google: &str, got: &str) {
        self.looked_at += 1;
        if google != got {
            self.differences.push(Difference {
                call: call.to_owned(),
                what: what.to_owned(),
                google: google.to_owned(),
                got: got.to_owned(),
            });
        }
    }

    /// With names in place of what differs from run to run, on one line of a table.
    fn shown(&self, value: &str) -> String {
        let value = percent_decode_str(value).decode_utf8_lossy().into_owned();
        let value = value.replace(&self.base, "BASE");
        let value = (self.names.iter()).fold(value, |value, (name, real)| value.replace(real, name));
        let mut value = value.trim().replace(['\n', '|'], " ");
        if value.chars().count() > 100 {
            value = value.chars().take(100).collect::<String>() + "...";
        }
        if value.is_empty() { "nothing".to_owned() } else { value }
    }
}
