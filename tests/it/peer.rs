//! A scripted HTTP peer on a raw socket: it keeps every request byte for byte and answers what the test says, broken
//! answers included.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as it came in.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    pub(crate) method: String,
    /// Path and query, not decoded.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Recorded {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What the peer does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Status, header lines, body.
    Full(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// As `Full`, but only this many bytes of the body, and then the connection is closed.
    Cut(usize, u16, Vec<(&'static str, String)>, Vec<u8>),
    /// Nothing, until the client goes away.
    Stall,
}

impl Reply {
    pub(crate) fn json(status: u16, body: impl Into<serde_json::Value>) -> Self {
        Self::Full(
            status,
            vec![("Content-Type", "application/json".into())],
            body.into().to_string().into_bytes(),
        )
    }

    pub(crate) fn status(status: u16) -> Self {
        Self::Full(status, Vec::new(), Vec::new())
    }

    pub(crate) fn with(self, name: &'static str, value: impl Into<String>) -> Self {
        match self {
            Self::Full(status, mut headers, body) => {
                headers.push((name, value.into()));
                Self::Full(status, headers, body)
            }
            other => other,
        }
    }
}

/// The peer. Its threads end with the test process.
pub(crate) struct Peer {
    pub(crate) url: String,
    requests: Arc<Mutex<Vec<Recorded>>>,
}

type Script = dyn Fn(&Recorded, usize) -> Reply + Send + Sync;

impl Peer {
    /// `script` gets each request and its number, from 0 on.
    pub(crate) fn start(script: impl Fn(&Recorded, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::paced(Duration::ZERO, script)
    }

    /// A peer that reads 64 KiB of a body at a time and rests in between.
    pub(crate) fn paced(pace: Duration, script: impl Fn(&Recorded, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Script> = Arc::new(script);
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (script, kept) = (Arc::clone(&script), Arc::clone(&kept));
                // A client that goes away is part of many tests.
                std::thread::spawn(move || serve(stream.unwrap(), pace, &*script, &kept).ok());
            }
        });
        Self { url, requests }
    }

    /// Answers the replies in turn; the last one again and again.
    pub(crate) fn replies(replies: Vec<Reply>) -> Self {
        Self::start(move |_, number| replies[number.min(replies.len() - 1)].clone())
    }

    pub(crate) fn requests(&self) -> Vec<Recorded> {
        self.requests.lock().unwrap().clone()
    }
}

/// The URL of a port on which nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn serve(mut stream: TcpStream, pace: Duration, script: &Script, kept: &Mutex<Vec<Recorded>>) -> std::io::Result<()> {
    let mut received = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    let end = loop {
        if let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => received.extend_from_slice(&buffer[..read]),
        }
    };
    let head = String::from_utf8(received[..end].to_vec()).unwrap();
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap().split(' ');
    let mut request = Recorded {
        method: words.next().unwrap().into(),
        target: words.next().unwrap().into(),
        headers: lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(n, v)| (n.to_lowercase(), v.into()))
            .collect(),
        body: received[end + 4..].to_vec(),
    };
    let length: usize = request
        .header("content-length")
        .map_or(0, |length| length.parse().unwrap());
    while request.body.len() < length {
        std::thread::sleep(pace);
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => request.body.extend_from_slice(&buffer[..read]),
        }
    }
    let number = {
        let mut kept = kept.lock().unwrap();
        kept.push(request.clone());
        kept.len() - 1
    };
    let (cut, status, headers, body) = match script(&request, number) {
        Reply::Full(status, headers, body) => (body.len(), status, headers, body),
        Reply::Cut(cut, status, headers, body) => (cut, status, headers, body),
        Reply::Stall => {
            while stream.read(&mut buffer)? > 0 {}
            return Ok(());
        }
    };
    let mut answer = format!("HTTP/1.1 {status} Scripted\r\nConnection: close\r\n");
    if !headers.iter().any(|(name, _)| *name == "Content-Length") {
        answer.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        answer.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{answer}\r\n").as_bytes())?;
    stream.write_all(&body[..cut])
}
