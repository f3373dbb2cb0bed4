//! What a seed stands for: where the worker is killed, which messages there are and in which order, and what fails.

use platen::local_cloud::{Effect, Fault, Peer};

use crate::stock::Random;

/// Every point of the flow, in its order; see `failpoint!` in `src`.
pub(crate) const POINTS: [&str; 22] = [
    "token.verified",
    "envelope.read",
    "event.decoded",
    "look.before",
    "look.after",
    "find.before",
    "find.after",
    "slot.taken",
    "fetch.before",
    "fetch.middle",
    "fetch.after",
    "convert.inspected",
    "convert.after",
    "store.before",
    "store.precondition_failed",
    "store.after",
    "sign.before",
    "sign.each",
    "sign.after",
    "publish.before",
    "publish.after",
    "answer.before",
];

/// No point: the worker is killed from outside, while a child converts.
pub(crate) const CHILD: &str = "child converts";

/// All steps: a full round of seeds kills once at each.
pub(crate) const STEPS: usize = POINTS.len() + 1;

/// The messages of a run, by what they ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Asks {
    /// A notification; one PDF.
    One,
    /// A job with two outputs.
    Two,
    /// A notification of a source that is replaced later.
    Old,
    /// A notification of what replaces it.
    New,
}

/// A seed's run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Where the worker is killed.
    pub(crate) step: &'static str,
    /// At which pass of that point, all deliveries counted, from 1.
    pub(crate) pass: u32,
    /// Another point where the worker that took over is killed, if it comes by.
    pub(crate) again: Option<&'static str>,
    /// In the order they are published, duplicates included. Those of [`Asks::New`] come when the source is replaced.
    pub(crate) messages: Vec<Asks>,
    /// How often the new source is announced.
    pub(crate) news: usize,
    /// After how many passes of any point the source is replaced; 0: before anything is published.
    pub(crate) replaced_at: usize,
    /// A worker stops here until the other has done all: the message is then delivered there.
    pub(crate) paused: Option<&'static str>,
    pub(crate) faults: Vec<Fault>,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::of(seed);
        let number = usize::try_from(seed).unwrap();
        let step = POINTS.get(number % STEPS).copied().unwrap_or(CHILD);
        // Each job passes each point, and there are two at least that nothing overtakes.
        let pass = match step {
            "store.precondition_failed" | CHILD => 1,
            _ => 1 + u32::try_from(number / STEPS % 2).unwrap(),
        };
        let any = |random: &mut Random| POINTS[random.below(POINTS.len())];
        let again = (random.below(6) == 0).then(|| any(&mut random));
        // A late worker is most dangerous when it is about to write.
        let paused = match random.below(6) {
            0 => Some("store.before"),
            1 => Some(any(&mut random)),
            _ => None,
        };
        let mut messages = vec![Asks::One, Asks::Two, Asks::Old];
        for index in 0..messages.len() {
            if random.below(2) == 0 {
                messages.push(messages[index]);
            }
        }
        for index in (1..messages.len()).rev() {
            messages.swap(index, random.below(index + 1));
        }
        if paused.is_some() {
            // It comes late with a source that is replaced meanwhile, or with one that is not.
            let old_first = random.below(2) == 0;
            messages.sort_by_key(|asks| (*asks == Asks::Old) != old_first);
        }
        let mut faults: Vec<Fault> = (0..random.below(3)).map(|_| fault(&mut random)).collect();
        if step == "store.precondition_failed" {
            // What makes a worker come by there on its own.
            faults.clear();
            faults.push(lost_upload());
        }
        Self {
            seed,
            step,
            pass,
            again,
            messages,
            news: 1 + random.below(2),
            replaced_at: match step {
                // Last of all, so that something is written after the kill.
                "store.precondition_failed" => usize::MAX,
                _ => random.below(40),
            },
            // A worker that is killed has to pass the point first.
            paused: paused.filter(|point| *point != step),
            faults,
        }
    }
}

const UPLOAD: &str = "/upload/storage/v1/b/output/";

fn on(peer: Peer, method: &str, path_prefix: &str, skip: u32, effect: Effect) -> Fault {
    Fault {
        peer: Some(peer),
        method: Some(method.to_owned()),
        path_prefix: path_prefix.to_owned(),
        skip,
        count: 1,
        effect,
    }
}

/// An output is written, and its writer does not learn of it: its next attempt meets a 412.
pub(crate) fn lost_upload() -> Fault {
    on(
        Peer::Storage,
        "POST",
        UPLOAD,
        0,
        Effect::LoseAnswer { lose_answer: true },
    )
}

/// One request of Google's side that goes wrong.
fn fault(random: &mut Random) -> Fault {
    let (peer, method, path) = [
        (Peer::Storage, "GET", "/storage/v1/b/input/"),
        (Peer::Storage, "GET", "/storage/v1/b/output/"),
        (Peer::Storage, "GET", "/download/"),
        (Peer::Storage, "POST", UPLOAD),
        (Peer::Storage, "POST", UPLOAD),
        (Peer::Iam, "POST", "/v1/projects/-/serviceAccounts/"),
        (
            Peer::Pubsub,
            "POST",
            "/v1/projects/local-project/topics/results:publish",
        ),
        (
            Peer::Pubsub,
            "POST",
            "/v1/projects/local-project/topics/results:publish",
        ),
    ][random.below(8)];
    let effect = match random.below(7) {
        0 => Effect::Status {
            status: 503,
            retry_after: None,
        },
        1 => Effect::Status {
            status: 429,
            retry_after: Some(1),
        },
        2 => Effect::Reset { reset: true },
        3 | 4 => Effect::LoseAnswer { lose_answer: true },
        5 => Effect::Cut { cut_after: 5 },
        _ => Effect::Delay {
            delay_milliseconds: 200,
        },
    };
    on(peer, method, path, u32::try_from(random.below(3)).unwrap(), effect)
}
