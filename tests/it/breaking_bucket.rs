//! A bucket on a raw socket, with multipart and resumable uploads, that keeps what it got and breaks when it is told to.
//!
//! It is not the local cloud: that reads a request whole before it does anything, and what matters here is what a
//! server keeps of a request that never ends.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// Part of every session's URL.
pub(crate) const SECRET: &str = "canary-of-a-session";

/// A resumable upload keeps multiples of this of a request that ends early.
const GRANULARITY: usize = 256 << 10;

/// What happens to one request.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fault {
    /// None.
    Served,
    /// The connection ends when this many bytes of the body have come.
    ResetAt(usize),
    /// This answer comes when this many bytes of the body have come, and the connection ends.
    StatusAt(u16, usize),
    /// The body is read, thrown away and answered with this.
    Status(u16),
    /// The same with 503 and this `Retry-After`.
    RetryAfter(u32),
    /// Everything is done, and nothing said.
    LoseAnswer,
    /// Only this many bytes of the body are kept, and 308 says so.
    Keep(usize),
    /// All is kept, but 308 says that it is not finished.
    Unfinished,
    /// Nothing more is read after this many bytes, and the connection stays.
    StallAt(usize),
    /// The body is thrown away and never answered.
    Silence,
    /// The session is forgotten, and that is answered with this.
    Forget(u16),
    /// A bit of the body is another one.
    Damage,
    /// Somebody else writes the object before this request is looked at.
    Intrude,
    /// The session's URL begins with this.
    StartAt(&'static str),
    /// When this has been answered, nobody listens for a moment.
    GoAway,
}

/// The bucket. Its threads end with the test process.
pub(crate) struct Bucket {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<String>,
    sessions: HashMap<String, Session>,
    objects: Vec<(i64, Vec<u8>)>,
}

#[derive(Default)]
struct Session {
    if_generation_match: i64,
    resource: Value,
    total: usize,
    received: Vec<u8>,
    done: Option<Value>,
}

/// A status, and the value of `Range`, `Location` or `Retry-After`, and a body.
struct Answer(u16, Option<(&'static str, String)>, Value);

impl Bucket {
    /// The faults are for the requests in their order; those after the last are served.
    pub(crate) fn start(faults: Vec<Fault>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}");
        let state = Arc::new(Mutex::new(State::default()));
        let (kept, base) = (Arc::clone(&state), url.clone());
        std::thread::spawn(move || {
            let mut listener = Some(listener);
            loop {
                let bound = listener.get_or_insert_with(|| TcpListener::bind(address).unwrap());
                let (stream, _) = bound.accept().unwrap();
                let number = kept.lock().unwrap().requests.len();
                let fault = faults.get(number).copied().unwrap_or(Fault::Served);
                let goes_away = matches!(fault, Fault::GoAway);
                if goes_away {
                    // Before the answer, so that whoever has it finds nobody.
                    listener = None;
                }
                let (kept, base) = (Arc::clone(&kept), base.clone());
                // A client that goes away is part of many tests.
                let served = std::thread::spawn(move || serve(stream, &kept, &fault, &base).ok());
                if goes_away {
                    served.join().unwrap();
                    std::thread::sleep(Duration::from_millis(300));
                }
            }
        });
        Self { url, state }
    }

    /// What was asked for: `multipart`, `start`, `send OFFSET`, `ask`, each maybe `with a token`.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// All generations that were ever written, with their bytes.
    pub(crate) fn objects(&self) -> Vec<(i64, Vec<u8>)> {
        self.state.lock().unwrap().objects.clone()
    }

    /// Writes as somebody else.
    pub(crate) fn write(&self, content: &[u8]) -> i64 {
        self.state.lock().unwrap().write(content.to_vec())
    }
}

impl State {
    fn write(&mut self, content: Vec<u8>) -> i64 {
        let generation = 1000 + self.objects.len() as i64;
        self.objects.push((generation, content));
        generation
    }

    fn may_write(&self, if_generation_match: i64) -> bool {
        self.objects.last().map_or(0, |(generation, _)| *generation) == if_generation_match
    }

    fn insert(&mut self, if_generation_match: i64, resource: &Value, content: Vec<u8>) -> Answer {
        let crc32c = STANDARD.encode(crc32c::crc32c(&content).to_be_bytes());
        if resource["crc32c"] != crc32c.as_str() {
            let message = format!(
                "Provided CRC32C {} doesn't match calculated CRC32C \"{crc32c}\".",
                resource["crc32c"]
            );
            return Answer(400, None, json!({"error": {"code": 400, "message": message}}));
        }
        if !self.may_write(if_generation_match) {
            return Answer::status(412, "");
        }
        let size = content.len().to_string();
        let generation = self.write(content).to_string();
        let object = json!({
            "bucket": "out", "name": resource["name"], "generation": generation, "size": size, "crc32c": crc32c,
            "metadata": resource["metadata"],
        });
        Answer(200, None, object)
    }
}

impl Answer {
    /// As the worst of servers would say it: with the session's id in the text.
    fn status(status: u16, id: &str) -> Self {
        let message = format!("refused, see session {id}.");
        Self(status, None, json!({"error": {"code": status, "message": message}}))
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>, fault: &Fault, base: &str) -> std::io::Result<()> {
    let Some((head, mut body)) = head(&mut stream)? else {
        return Ok(());
    };
    let header = |name: &str| {
        head.lines()
            .find_map(|line| line.strip_prefix(&format!("{name}: ")))
            .unwrap_or_default()
            .to_owned()
    };
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let parameter = |name: &str| {
        target
            .split(['?', '&'])
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")))
            .unwrap_or_default()
            .to_owned()
    };
    let (id, range) = (parameter("upload_id"), header("content-range"));
    let span = range.strip_prefix("bytes ").and_then(|range| range.split_once('/'));
    let offset = span.and_then(|(span, _)| span.split_once('-')?.0.parse().ok());
    let mut request = match (id.as_str(), offset) {
        ("", _) if parameter("uploadType") == "multipart" => "multipart".to_owned(),
        ("", _) => "start".to_owned(),
        (_, None) => "ask".to_owned(),
        (_, Some(offset)) => format!("send {offset}"),
    };
    if !header("authorization").is_empty() {
        request.push_str(" with a token");
    }
    state.lock().unwrap().requests.push(request);

    let length: usize = header("content-length").parse().unwrap();
    let limit = match fault {
        Fault::ResetAt(limit) | Fault::StatusAt(_, limit) | Fault::StallAt(limit) => length.min(*limit),
        _ => length,
    };
    let mut buffer = vec![0; 256 << 10];
    while body.len() < limit {
        match stream.read(&mut buffer)? {
            0 => break,
            read => body.extend_from_slice(&buffer[..read]),
        }
    }
    body.truncate(limit);

    let mut state = state.lock().unwrap();
    match fault {
        Fault::Intrude => drop(state.write(b"of somebody else".to_vec())),
        Fault::Damage => {
            let middle = body.len() / 2;
            body[middle] ^= 1;
        }
        Fault::Keep(kept) => body.truncate(*kept),
        Fault::Status(_) | Fault::RetryAfter(_) | Fault::Silence => {}
        Fault::Forget(status) => {
            state.sessions.remove(&id);
            let answer = Answer::status(*status, &id);
            drop(state);
            return answer.send(&mut stream);
        }
        _ => {}
    }
    let answer = match fault {
        Fault::Status(status) => Answer::status(*status, &id),
        Fault::RetryAfter(seconds) => {
            let Answer(status, _, body) = Answer::status(503, &id);
            Answer(status, Some(("Retry-After", seconds.to_string())), body)
        }
        Fault::Silence => Answer::status(500, &id),
        _ if !id.is_empty() => chunk(&mut state, &id, offset, &body, length, fault),
        _ if body.len() < length => Answer::status(400, &id),
        _ => begin(
            &mut state,
            &parameter("uploadType"),
            &parameter("ifGenerationMatch"),
            &body,
            fault,
            base,
        ),
    };
    drop(state);
    match fault {
        Fault::ResetAt(_) | Fault::LoseAnswer => Ok(()),
        Fault::StatusAt(status, _) => Answer::status(*status, &id).send(&mut stream),
        Fault::StallAt(_) => {
            std::thread::park();
            Ok(())
        }
        Fault::Silence => {
            while stream.read(&mut buffer)? > 0 {}
            Ok(())
        }
        _ => answer.send(&mut stream),
    }
}

fn head(stream: &mut TcpStream) -> std::io::Result<Option<(String, Vec<u8>)>> {
    let (mut received, mut buffer) = (Vec::new(), vec![0; 4096]);
    loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let body = received.split_off(end + 4);
            return Ok(Some((String::from_utf8(received).unwrap(), body)));
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(None),
            read => received.extend_from_slice(&buffer[..read]),
        }
    }
}

fn begin(state: &mut State, kind: &str, condition: &str, body: &[u8], fault: &Fault, base: &str) -> Answer {
    let if_generation_match = condition.parse().unwrap();
    if kind == "multipart" {
        let line = &body[..find(body, b"\r\n")];
        let resource = &body[find(body, b"\r\n\r\n") + 4..];
        let content = &resource[find(resource, line)..];
        let content = &content[find(content, b"\r\n\r\n") + 4..];
        let resource = serde_json::from_slice(&resource[..find(resource, b"\r\n--")]).unwrap();
        let end = content.len() - line.len() - b"\r\n--\r\n".len();
        return state.insert(if_generation_match, &resource, content[..end].to_vec());
    }
    if !state.may_write(if_generation_match) {
        return Answer::status(412, "");
    }
    let id = format!("{SECRET}-{}", state.requests.len());
    let session = Session {
        if_generation_match,
        resource: serde_json::from_slice(body).unwrap(),
        ..Session::default()
    };
    state.sessions.insert(id.clone(), session);
    let base = match fault {
        Fault::StartAt(elsewhere) => elsewhere,
        _ => base,
    };
    let location = format!("{base}/upload/storage/v1/b/out/o?uploadType=resumable&upload_id={id}");
    Answer(200, Some(("Location", location)), Value::Null)
}

fn find(text: &[u8], what: &[u8]) -> usize {
    text.windows(what.len()).position(|window| window == what).unwrap()
}

fn chunk(state: &mut State, id: &str, offset: Option<usize>, body: &[u8], length: usize, fault: &Fault) -> Answer {
    let Some(session) = state.sessions.get_mut(id) else {
        return Answer::status(404, id);
    };
    if let Some(done) = &session.done {
        return Answer(200, None, done.clone());
    }
    if let Some(offset) = offset {
        assert_eq!(offset, session.received.len(), "the bytes go on where the session is");
        session.total = offset + length;
        session.received.extend_from_slice(body);
        if body.len() < length {
            let kept = session.received.len() / GRANULARITY * GRANULARITY;
            session.received.truncate(kept);
        }
    }
    let is_whole = session.total > 0 && session.received.len() == session.total;
    if is_whole && !matches!(fault, Fault::Unfinished) {
        let mut session = state.sessions.remove(id).unwrap();
        let content = std::mem::take(&mut session.received);
        let answer = state.insert(session.if_generation_match, &session.resource, content);
        if answer.0 == 200 {
            session.done = Some(answer.2.clone());
            state.sessions.insert(id.to_owned(), session);
        }
        return answer;
    }
    let range = session.received.len().checked_sub(1);
    Answer(308, range.map(|last| ("Range", format!("bytes=0-{last}"))), Value::Null)
}

impl Answer {
    fn send(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let Self(status, header, body) = self;
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let header = header
            .as_ref()
            .map(|(name, value)| format!("{name}: {value}\r\n"))
            .unwrap_or_default();
        let length = body.len();
        let answer = format!(
            "HTTP/1.1 {status} Scripted\r\nConnection: close\r\nContent-Length: {length}\r\n{header}\r\n{body}"
        );
        stream.write_all(answer.as_bytes())
    }
}
