//! What happens in the input bucket and on the topic, drawn from the seed: uploads, replacements, deletions, jobs,
//! poison; announced late, twice, and out of order.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use platen::local_cloud::{LocalCloud, number_of};
use serde_json::{Value, json};

use super::documents::{FORMATS, Nature, document};
use super::{ARCHIVE, call, http};
use crate::harness::{INPUT, OUTPUT, PATIENCE, USER, encode, upload_to};
use crate::stock::Random;

/// The attribute that numbers a message: a dead letter has another id, and keeps its attributes.
pub(super) const NUMBER: &str = "storm";
/// A topic without a subscription.
pub(super) const MARKS: &str = "marks";
/// Messages that may be on their way at once.
const BACKLOG: usize = 40;
/// Sources that are replaced again and again, while their messages are under way.
const HOT: usize = 6;
/// Names in the output bucket that are somebody else's.
const FOREIGN: usize = 3;

/// One generation of a source.
#[derive(Debug)]
pub(super) struct Generation {
    pub(super) number: i64,
    pub(super) nature: Nature,
    /// The text that only this generation has.
    pub(super) marker: String,
    /// The cloud's last message before it was replaced or deleted: no result up to there can know of that.
    pub(super) gone_after: Option<u64>,
}

/// An object in the input bucket, and all that it ever was.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) bucket: &'static str,
    pub(super) name: String,
    format: &'static str,
    pub(super) generations: Vec<Generation>,
    pub(super) live: bool,
    /// The cloud's last message before it was deleted for the first time.
    pub(super) deleted_after: Option<u64>,
    /// Its output's name is, or may be, another's.
    pub(super) contended: bool,
    /// Its output's name is certainly another's.
    pub(super) foreign: bool,
    pub(super) cursed: bool,
}

impl Source {
    /// The generation that is there at the end.
    pub(super) fn newest(&self) -> Option<&Generation> {
        self.generations.last().filter(|_| self.live)
    }

    pub(super) fn generation(&self, number: i64) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    fn stem(&self) -> &str {
        self.name.rsplit_once('.').unwrap().0
    }

    /// Where its notifications' output goes.
    pub(super) fn output(&self) -> String {
        format!("{}.pdf", self.stem())
    }
}

/// What must become of a message.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// Acknowledged, without a result.
    Ignored,
    /// This code, whatever else happens.
    Failure(&'static str),
    /// Superseded: it names a generation that never was.
    Gone,
    /// What becomes of a notification of this generation of the source.
    Notification { source: usize, generation: i64 },
    /// What becomes of a job on the source; without a generation, of any.
    Job {
        source: usize,
        generation: Option<i64>,
        /// The names of its outputs.
        outputs: Vec<String>,
        user_data: Value,
    },
}

#[derive(Debug)]
pub(super) struct Said {
    pub(super) id: String,
    pub(super) expected: Expected,
}

/// Everything that was done: what results and outputs are held against.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) sources: Vec<Source>,
    /// By number.
    pub(super) messages: Vec<Said>,
    /// Bytes and generation of the objects that are not Platen's.
    pub(super) foreign: Vec<(String, i64)>,
    pub(super) replaced: usize,
    pub(super) deleted: usize,
    pub(super) duplicates: usize,
}

#[derive(Clone)]
struct Announcement {
    data: Vec<u8>,
    attributes: Vec<(&'static str, String)>,
    ordering_key: String,
    expected: Expected,
}

pub(super) struct Feed {
    pub(super) ledger: Ledger,
    count: usize,
    random: Random,
    pending: Vec<Announcement>,
    http: reqwest::Client,
}

impl Feed {
    pub(super) async fn new(cloud: &LocalCloud, seed: u64, count: usize) -> Self {
        let mut ledger = Ledger::default();
        for number in 0..FOREIGN {
            let name = format!("foreign/{number}.pdf");
            let generation = upload_to(cloud, OUTPUT, &name, b"somebody else's".to_vec()).await;
            ledger.foreign.push((name, generation.parse().unwrap()));
        }
        Self {
            ledger,
            count,
            random: Random::of(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            pending: Vec::new(),
            http: http(),
        }
    }

    /// Publishes all messages, and waits until the subscription has none left.
    pub(super) async fn all(&mut self, cloud: &LocalCloud, push: &str) {
        while self.ledger.messages.len() + self.pending.len() < self.count {
            self.act(cloud).await;
            // Late, and not in the order in which things happened.
            while self.pending.len() > self.random.below(8) {
                self.publish_one(cloud, push).await;
            }
        }
        while !self.pending.is_empty() {
            self.publish_one(cloud, push).await;
        }
        self.room(cloud, push, 0).await;
    }

    async fn act(&mut self, cloud: &LocalCloud) {
        match self.random.below(100) {
            0..45 => self.upload(cloud).await,
            45..52 => self.delete(cloud).await,
            52..70 => self.job(),
            70..82 => self.poison(),
            82..90 => self.ignored(),
            90..92 if self.ledger.sources.len() > HOT => self.cursed(cloud).await,
            _ => self.repeat(),
        }
    }

    async fn upload(&mut self, cloud: &LocalCloud) {
        let index = self.source();
        let nature = match (self.ledger.sources[index].format, self.random.below(100)) {
            (_, 0..84) => Nature::Good,
            (_, 84..88) => Nature::Empty,
            ("docx" | "odt", 88..92) => Nature::CutShort,
            ("docx", 92..96) => Nature::Encrypted,
            ("docx", _) => Nature::Noise,
            _ => Nature::Good,
        };
        self.put(cloud, index, nature).await;
        if self.ledger.sources[index].generations.len() > 1 {
            self.ledger.replaced += 1;
        }
        self.announce(index);
    }

    /// A new source, one that is there, or one that is replaced all the time.
    fn source(&mut self) -> usize {
        let sources = self.ledger.sources.len();
        let draw = self.random.below(100);
        if sources > HOT && draw < 35 {
            return self.random.below(HOT);
        }
        if sources > HOT && draw < 55 {
            let index = self.random.below(sources);
            if !self.ledger.sources[index].cursed {
                return index;
            }
        }
        let format = FORMATS[self.random.below(FORMATS.len())];
        let name = match self.random.below(100) {
            // The same stem as another's: one output's name for two sources.
            0..6 if sources > HOT => {
                let partner = HOT + self.random.below(sources - HOT);
                let name = format!("{}.{format}", self.ledger.sources[partner].stem());
                if self.ledger.sources.iter().any(|source| source.name == name) {
                    return partner;
                }
                let stem = self.ledger.sources[partner].output();
                for source in &mut self.ledger.sources {
                    source.contended |= source.output() == stem;
                }
                return self.add(name, format, true);
            }
            6..9 => format!("foreign/{}.{format}", self.random.below(FOREIGN)),
            9..12 => format!("añ o #{sources}?/b&c+{sources}.{format}"),
            _ => format!("d{}/s{sources}.{format}", sources % 7),
        };
        match self.ledger.sources.iter().position(|source| source.name == name) {
            Some(index) => index,
            None => self.add(name, format, false),
        }
    }

    fn add(&mut self, name: String, format: &'static str, contended: bool) -> usize {
        let foreign = name.starts_with("foreign/");
        let cursed = name.starts_with("cursed");
        self.ledger.sources.push(Source {
            bucket: if cursed {
                INPUT
            } else {
                [INPUT, ARCHIVE][self.random.below(2)]
            },
            cursed,
            name,
            format,
            generations: Vec::new(),
            live: false,
            deleted_after: None,
            contended: contended || foreign,
            foreign,
        });
        self.ledger.sources.len() - 1
    }

    async fn put(&mut self, cloud: &LocalCloud, index: usize, nature: Nature) {
        let source = &mut self.ledger.sources[index];
        let marker = format!("storm{index}gen{}end", source.generations.len());
        let bytes = document(source.format, nature, &marker);
        let now = mark(cloud);
        if let Some(before) = source.generations.last_mut() {
            before.gone_after.get_or_insert(now);
        }
        let number = upload_to(cloud, source.bucket, &source.name, bytes)
            .await
            .parse()
            .unwrap();
        source.generations.push(Generation {
            number,
            nature,
            marker,
            gone_after: None,
        });
        source.live = true;
    }

    /// Announces the newest generation, now and then twice.
    fn announce(&mut self, index: usize) {
        let source = &self.ledger.sources[index];
        let generation = source.generations.last().unwrap().number;
        let announcement = Announcement {
            data: Vec::new(),
            attributes: vec![
                ("eventType", "OBJECT_FINALIZE".to_owned()),
                ("payloadFormat", "NONE".to_owned()),
                ("bucketId", source.bucket.to_owned()),
                ("objectId", source.name.clone()),
                ("objectGeneration", generation.to_string()),
            ],
            ordering_key: if self.random.below(8) == 0 {
                source.name.clone()
            } else {
                String::new()
            },
            expected: Expected::Notification {
                source: index,
                generation,
            },
        };
        if self.random.below(7) == 0 {
            self.ledger.duplicates += 1;
            self.pending.push(announcement.clone());
        }
        self.pending.push(announcement);
    }

    async fn delete(&mut self, cloud: &LocalCloud) {
        let there: Vec<usize> = (0..self.ledger.sources.len())
            .filter(|index| self.ledger.sources[*index].live && !self.ledger.sources[*index].cursed)
            .collect();
        if there.is_empty() {
            return;
        }
        let source = &mut self.ledger.sources[there[self.random.below(there.len())]];
        let url = format!(
            "{}/storage/v1/b/{}/o/{}",
            cloud.urls().storage,
            source.bucket,
            encode(&source.name)
        );
        let now = mark(cloud);
        source.generations.last_mut().unwrap().gone_after = Some(now);
        source.deleted_after.get_or_insert(now);
        let request = self.http.delete(url).bearer_auth(cloud.access_token(USER));
        assert!(request.send().await.unwrap().status().is_success());
        source.live = false;
        self.ledger.deleted += 1;
    }

    fn job(&mut self) {
        let usable: Vec<usize> = (0..self.ledger.sources.len())
            .filter(|index| !self.ledger.sources[*index].cursed)
            .collect();
        if usable.is_empty() {
            return;
        }
        let index = usable[self.random.below(usable.len())];
        let source = &self.ledger.sources[index];
        let number = self.ledger.messages.len() + self.pending.len();
        let generation = match self.random.below(3) {
            0 => None,
            1 => Some(source.generations.last().unwrap().number),
            _ => Some(source.generations[self.random.below(source.generations.len())].number),
        };
        let formats: &[&str] = match (source.format, self.random.below(3)) {
            ("csv", _) | (_, 0) => &["pdf"],
            (_, 1) => &["txt"],
            _ => &["pdf", "txt"],
        };
        let outputs = |name: &str| -> Vec<Value> {
            formats
                .iter()
                .map(|format| json!({"format": format, "name": name}))
                .collect()
        };
        let user_data = json!({"job": number});
        let mut job = json!({
            "source": format!("gs://{}/{}", source.bucket, source.name),
            "outputs": outputs(&format!("{{dir}}{{stem}}.job{number}.{{ext}}")),
            "userData": user_data,
        });
        if let Some(generation) = generation {
            job["generation"] = json!(generation.to_string());
        }
        let names = formats
            .iter()
            .map(|format| format!("{}.job{number}.{format}", source.stem()));
        let expected = Expected::Job {
            source: index,
            generation,
            outputs: names.collect(),
            user_data,
        };
        if self.random.below(6) == 0 {
            self.ledger.duplicates += 1;
            self.say(job.to_string(), &[], expected.clone());
        }
        self.say(job.to_string(), &[], expected);
    }

    fn say(&mut self, data: impl Into<Vec<u8>>, attributes: &[(&'static str, &str)], expected: Expected) {
        self.pending.push(Announcement {
            data: data.into(),
            attributes: attributes
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
            ordering_key: String::new(),
            expected,
        });
    }

    fn poison(&mut self) {
        let invalid = Expected::Failure("message.invalid");
        let source = format!("gs://{INPUT}/never-was.docx");
        match self.random.below(12) {
            0 => self.say("this is no JSON", &[], invalid),
            1 => self.say([0xff, 0xfe, 0x00, 0x81], &[], invalid),
            2 => self.say("", &[], invalid),
            3 => self.say(json!({"source": source, "colour": "red"}).to_string(), &[], invalid),
            4 => self.say(json!({"source": "never-was.docx"}).to_string(), &[], invalid),
            5 => {
                let twice = json!([{"format": "pdf", "name": "x"}, {"format": "txt", "name": "x"}]);
                self.say(json!({"source": source, "outputs": twice}).to_string(), &[], invalid);
            }
            6 => {
                let name = "n".repeat(1025);
                self.say(
                    json!({"source": format!("gs://{INPUT}/{name}")}).to_string(),
                    &[],
                    invalid,
                );
            }
            7 => {
                let attributes = [
                    ("eventType", "OBJECT_FINALIZE"),
                    ("bucketId", INPUT),
                    ("objectId", "a.docx"),
                    ("objectGeneration", "-1"),
                ];
                self.say("", &attributes, invalid);
            }
            8 => {
                let outputs = json!([{"format": "pdf", "options": {"quality": 1000}}]);
                let job = json!({"source": source, "outputs": outputs});
                self.say(job.to_string(), &[], Expected::Failure("option.invalid"));
            }
            9 => {
                let job = json!({"source": "gs://elsewhere/a.docx"});
                self.say(job.to_string(), &[], Expected::Failure("source.forbidden"));
            }
            10 => self.say(
                json!({"source": source}).to_string(),
                &[],
                Expected::Failure("source.not_found"),
            ),
            _ => self.say(
                json!({"source": source, "generation": "1736358966947877"}).to_string(),
                &[],
                Expected::Gone,
            ),
        }
    }

    fn ignored(&mut self) {
        let (event, name) = [
            ("OBJECT_DELETE", "d0/s0.docx"),
            ("OBJECT_METADATA_UPDATE", "d0/s0.docx"),
            ("OBJECT_FINALIZE", "folder/"),
            ("OBJECT_FINALIZE", "left-out/a.docx"),
            ("OBJECT_FINALIZE", "program.exe"),
        ][self.random.below(5)];
        let attributes = [
            ("eventType", event),
            ("bucketId", INPUT),
            ("objectId", name),
            ("objectGeneration", "1736358966947877"),
        ];
        self.say("", &attributes, Expected::Ignored);
    }

    /// A source that the worker is never allowed to read, see [`super::script_faults`].
    async fn cursed(&mut self, cloud: &LocalCloud) {
        let name = format!("cursed{}.txt", self.ledger.sources.len());
        let index = self.add(name, "txt", false);
        self.put(cloud, index, Nature::Good).await;
        self.announce(index);
    }

    /// Says again what was said before, however long ago.
    fn repeat(&mut self) {
        let Some(last) = self.ledger.messages.len().checked_sub(1) else {
            return;
        };
        let said = &self.ledger.messages[self.random.below(last + 1)];
        let Expected::Notification { source, generation } = said.expected else {
            return;
        };
        let (bucket, name) = (
            self.ledger.sources[source].bucket,
            self.ledger.sources[source].name.clone(),
        );
        let attributes = [
            ("eventType", "OBJECT_FINALIZE"),
            ("bucketId", bucket),
            ("objectId", &name),
            ("objectGeneration", &generation.to_string()),
        ];
        let expected = said.expected.clone();
        self.ledger.duplicates += 1;
        self.say("", &attributes, expected);
    }

    async fn publish_one(&mut self, cloud: &LocalCloud, push: &str) {
        self.room(cloud, push, BACKLOG).await;
        let announcement = self.pending.swap_remove(self.random.below(self.pending.len()));
        let mut attributes: serde_json::Map<String, Value> = announcement
            .attributes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
        attributes.insert(NUMBER.to_owned(), json!(self.ledger.messages.len().to_string()));
        let message = json!({
            "data": STANDARD.encode(announcement.data),
            "attributes": attributes,
            "orderingKey": announcement.ordering_key,
        });
        let url = format!(
            "{}/v1/projects/{}/topics/events:publish",
            cloud.urls().pubsub,
            cloud.settings().project
        );
        let published = call(self.http.post(url).json(&json!({"messages": [message]})), cloud).await;
        self.ledger.messages.push(Said {
            id: published["messageIds"][0].as_str().unwrap().to_owned(),
            expected: announcement.expected,
        });
    }

    /// Waits until no more than `most` messages are on their way.
    async fn room(&self, cloud: &LocalCloud, push: &str, most: usize) {
        let (mut last, mut since) = (usize::MAX, Instant::now());
        loop {
            let backlog = cloud.backlog(push).unwrap();
            if backlog <= most {
                return;
            }
            if backlog != last {
                (last, since) = (backlog, Instant::now());
            }
            assert!(since.elapsed() < PATIENCE, "{backlog} messages are stuck");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// A moment in the order of the cloud's messages: it is one, on a topic that nobody reads.
fn mark(cloud: &LocalCloud) -> u64 {
    number_of(&cloud.publish(MARKS, b"now", &[]).unwrap()).unwrap()
}
