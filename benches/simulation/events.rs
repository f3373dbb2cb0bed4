//! The simulation: every document on its own, from its event to its acknowledgement.
//!
//! Pub/Sub pushes as many at once as its window has room for (four at first, one more with each acknowledgement, 3,000 at
//! most). A refusal pauses the whole subscription, 100 ms at first, twice as long each time, 60 s at most, an
//! acknowledgement halves that; the message itself comes again after the retry policy of `deploy/env.sh` (10 s to 600 s).
//!
//! Cloud Run sends a request to any instance that has room. When none has, it waits, an instance is woken or started for
//! it, and after the longer of 10 s and three and a half starts it is refused. Every five seconds as many instances are
//! chosen as the last minute would have used to six tenths; the others get nothing more, and end when they have been idle for
//! long enough. An instance is active while it starts and while it has a request, billed in tenths of a second; it is alive from
//! its start to its end.

use std::collections::{BinaryHeap, VecDeque};

use super::inputs::{Load, Shape};
use super::model::Answer;

/// Documents of a steady load that are looked at, and seconds, whichever lasts longer, after those that only warm it up.
const LOOKED_AT: (usize, f64) = (30_000, 3600.0);
const WARMING_UP: (usize, f64) = (1_000, 2000.0);
/// Seconds that are simulated at most; an overload has no end of its own.
const LONGEST: f64 = 300.0 * 24.0 * 3600.0;
const OVERLOAD: f64 = 4.0 * 3600.0;
const LOOK: f64 = 5.0;
/// Looks that make a minute.
const LOOKS: usize = 12;
const TARGET: f64 = 0.6;
const LARGEST_WINDOW: f64 = 3000.0;
const RETRY: (f64, f64) = (10.0, 600.0);
const PAUSE: (f64, f64) = (0.1, 60.0);

/// What was seen beside the answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) answer: Answer,
    /// Pushes for one document.
    pub(crate) deliveries: f64,
    /// Starts of instances for a thousand documents.
    pub(crate) starts: f64,
    /// Seconds from event to acknowledgement that 95 % of documents do not exceed.
    pub(crate) latency: f64,
    /// Most pushes of one message.
    pub(crate) most_deliveries: u32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Arrives,
    Push,
    Again(usize),
    Refused(usize, u32),
    Started(usize),
    Done(usize, usize),
    Look,
}

/// Soonest first; of one time, in the order they were made.
#[derive(PartialEq)]
struct Due(f64, u64, Event);

impl Eq for Due {}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.0.total_cmp(&self.0).then(other.1.cmp(&self.1))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct Message {
    came: f64,
    takes: f64,
    deliveries: u32,
    pending: bool,
}

#[derive(Default)]
struct Instance {
    requests: u32,
    /// It still starts.
    starting: bool,
    /// It is there and gets requests.
    chosen: bool,
    ended: bool,
    /// Since when it has requests, or none.
    since: f64,
}

struct Run<'a> {
    load: &'a Load,
    random: Random,
    now: f64,
    due: BinaryHeap<Due>,
    made: u64,
    messages: Vec<Message>,
    ready: VecDeque<usize>,
    window: f64,
    outstanding: usize,
    paused_until: f64,
    pause: f64,
    instances: Vec<Instance>,
    pending: VecDeque<usize>,
    /// Time times requests, and the same at the last looks.
    used: f64,
    looks: VecDeque<f64>,
    counted: Counted,
}

#[derive(Default, Clone)]
struct Counted {
    since: f64,
    active: f64,
    idle: f64,
    alive: f64,
    done: usize,
    deliveries: u64,
    starts: u64,
    instances: f64,
    most_deliveries: u32,
    latencies: Vec<f64>,
}

pub(crate) fn simulate(load: &Load, seed: u64) -> Seen {
    let mut run = Run {
        load,
        random: Random(seed),
        now: 0.0,
        due: BinaryHeap::new(),
        made: 0,
        messages: Vec::new(),
        ready: VecDeque::new(),
        window: 4.0,
        outstanding: 0,
        paused_until: 0.0,
        pause: 0.0,
        instances: Vec::new(),
        pending: VecDeque::new(),
        used: 0.0,
        looks: VecDeque::new(),
        counted: Counted::default(),
    };
    run.until_the_end()
}

impl Run<'_> {
    fn until_the_end(&mut self) -> Seen {
        for _ in 0..self.load.least {
            self.instances.push(Instance {
                chosen: true,
                ..Instance::default()
            });
        }
        let overloaded = match self.load.shape {
            Shape::Backlog { documents } => {
                for _ in 0..documents as usize {
                    self.arrive();
                }
                false
            }
            Shape::Steady { rate } => {
                self.at(0.0, Event::Arrives);
                rate * self.load.mean() >= self.load.slots()
            }
        };
        self.at(LOOK, Event::Look);
        let longest = if overloaded { OVERLOAD } else { LONGEST };
        let mut warm = overloaded || matches!(self.load.shape, Shape::Backlog { .. });
        let mut last = 0.0;
        while let Some(Due(time, _, event)) = self.due.pop() {
            if time > longest {
                break;
            }
            self.pass(time);
            self.happens(event);
            let (done, seconds) = (self.counted.done, self.now - self.counted.since);
            match self.load.shape {
                // Its last document is done, and then its last instance has ended.
                Shape::Backlog { documents } if done >= documents as usize => {
                    last = if last == 0.0 { self.now } else { last };
                    if self.instances.iter().filter(|instance| !instance.ended).count() <= self.load.least as usize {
                        break;
                    }
                }
                Shape::Steady { .. } if !warm && done >= WARMING_UP.0 && seconds >= WARMING_UP.1 => {
                    warm = true;
                    self.counted = Counted {
                        since: self.now,
                        ..Counted::default()
                    };
                }
                Shape::Steady { .. } if warm && !overloaded && done >= LOOKED_AT.0 && seconds >= LOOKED_AT.1 => break,
                _ => {}
            }
        }
        let end = if last > 0.0 { last } else { self.now };
        let counted = &mut self.counted;
        counted.latencies.sort_by(f64::total_cmp);
        let (seconds, documents) = (end - counted.since, counted.done.max(1) as f64);
        Seen {
            answer: Answer {
                active: counted.active / documents,
                idle: counted.idle / documents,
                alive: counted.alive / documents,
                instances: counted.instances / seconds,
                throughput: documents / seconds,
            },
            deliveries: counted.deliveries as f64 / documents,
            starts: counted.starts as f64 * 1000.0 / documents,
            latency: counted
                .latencies
                .get(counted.latencies.len() * 95 / 100)
                .copied()
                .unwrap_or(f64::NAN),
            most_deliveries: counted.most_deliveries,
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives => {
                if let Shape::Steady { rate } = self.load.shape {
                    let pause = -self.random.share().ln() / rate;
                    self.at(self.now + pause, Event::Arrives);
                }
                self.arrive();
                self.push();
            }
            Event::Push => self.push(),
            Event::Again(message) => {
                self.ready.push_back(message);
                self.push();
            }
            Event::Refused(message, delivery) => self.refuse(message, delivery),
            Event::Started(instance) => {
                let started = &mut self.instances[instance];
                started.starting = false;
                started.chosen = true;
                self.counted.active += rounding(self.now - started.since);
                started.since = self.now;
                self.take(instance);
            }
            Event::Done(instance, message) => self.done(instance, message),
            Event::Look => self.look(),
        }
    }

    fn arrive(&mut self) {
        let takes = self.load.half * (self.load.spread() * self.random.normal()).exp() + self.load.waits;
        self.messages.push(Message {
            came: self.now,
            takes,
            deliveries: 0,
            pending: false,
        });
        self.ready.push_back(self.messages.len() - 1);
        if matches!(self.load.shape, Shape::Backlog { .. }) && self.messages.len() == 1 {
            self.at(self.now, Event::Push);
        }
    }

    fn push(&mut self) {
        while self.now >= self.paused_until && (self.outstanding as f64) < self.window {
            let Some(message) = self.ready.pop_front() else {
                return;
            };
            self.outstanding += 1;
            self.counted.deliveries += 1;
            let pushed = &mut self.messages[message];
            pushed.deliveries += 1;
            self.counted.most_deliveries = self.counted.most_deliveries.max(pushed.deliveries);
            self.request(message);
        }
    }

    fn request(&mut self, message: usize) {
        let has_room = |instance: &Instance| instance.chosen && instance.requests < self.load.concurrency;
        let room = self.instances.iter().filter(|instance| has_room(instance)).count();
        if room > 0 {
            let index = (self.random.share() * room as f64) as usize;
            let chosen = (0..self.instances.len()).filter(|index| has_room(&self.instances[*index]));
            if let Some(instance) = chosen.into_iter().nth(index.min(room - 1)) {
                self.begin(instance, message);
            }
            return;
        }
        // One that is idle and not chosen is woken, which takes no time.
        let asleep = |instance: &Instance| !instance.chosen && !instance.ended && !instance.starting;
        if let Some(instance) = self.instances.iter().position(asleep) {
            self.instances[instance].chosen = true;
            if self.instances[instance].requests < self.load.concurrency {
                self.begin(instance, message);
                return;
            }
        }
        let delivery = self.messages[message].deliveries;
        self.messages[message].pending = true;
        self.pending.push_back(message);
        let patience = (self.load.start * 3.5).max(10.0);
        self.at(self.now + patience, Event::Refused(message, delivery));
        let starting = self.instances.iter().filter(|instance| instance.starting).count();
        if starting * (self.load.concurrency as usize) < self.waiting() {
            self.start();
        }
    }

    fn waiting(&self) -> usize {
        self.pending
            .iter()
            .filter(|message| self.messages[**message].pending)
            .count()
    }

    fn start(&mut self) {
        let there = self.instances.iter().filter(|instance| !instance.ended).count();
        if there >= self.load.most as usize {
            return;
        }
        self.counted.starts += 1;
        self.instances.push(Instance {
            starting: true,
            since: self.now,
            ..Instance::default()
        });
        self.at(self.now + self.load.start, Event::Started(self.instances.len() - 1));
    }

    fn begin(&mut self, instance: usize, message: usize) {
        let taking = &mut self.instances[instance];
        if taking.requests == 0 {
            taking.since = self.now;
        }
        taking.requests += 1;
        let takes = self.messages[message].takes;
        self.at(self.now + takes, Event::Done(instance, message));
    }

    /// Gives an instance that has room what waits.
    fn take(&mut self, instance: usize) {
        while self.instances[instance].chosen && self.instances[instance].requests < self.load.concurrency {
            let Some(message) = self.pending.pop_front() else {
                return;
            };
            if std::mem::take(&mut self.messages[message].pending) {
                self.begin(instance, message);
            }
        }
    }

    fn done(&mut self, instance: usize, message: usize) {
        let freed = &mut self.instances[instance];
        freed.requests -= 1;
        if freed.requests == 0 {
            self.counted.active += rounding(self.now - freed.since);
            freed.since = self.now;
        }
        self.outstanding -= 1;
        self.window = (self.window + 1.0).min(LARGEST_WINDOW);
        self.pause = if self.pause <= PAUSE.0 { 0.0 } else { self.pause / 2.0 };
        self.counted.done += 1;
        let latency = self.now - self.messages[message].came;
        self.counted.latencies.push(latency);
        self.take(instance);
        self.push();
    }

    fn refuse(&mut self, message: usize, delivery: u32) {
        let refused = &mut self.messages[message];
        if !refused.pending || refused.deliveries != delivery {
            return;
        }
        refused.pending = false;
        let again = (RETRY.0 * 2f64.powi(delivery.min(20).cast_signed() - 1)).min(RETRY.1);
        self.outstanding -= 1;
        self.at(self.now + again, Event::Again(message));
        if self.now >= self.paused_until {
            self.pause = (self.pause * 2.0).clamp(PAUSE.0, PAUSE.1);
            self.paused_until = self.now + self.pause;
            self.at(self.paused_until, Event::Push);
        }
    }

    fn look(&mut self) {
        self.at(self.now + LOOK, Event::Look);
        self.looks.push_back(self.used);
        if self.looks.len() > LOOKS + 1 {
            self.looks.pop_front();
        }
        let looked = (self.looks.len() - 1).max(1) as f64 * LOOK;
        let average = (self.used - self.looks.front().copied().unwrap_or(0.0)) / looked;
        let wanted = (average / (TARGET * f64::from(self.load.concurrency))).ceil() as usize;
        let wanted = wanted.clamp(self.load.least as usize, self.load.most as usize);
        let mut there = self.instances.iter().filter(|instance| instance.starting).count();
        for (index, instance) in self.instances.iter_mut().enumerate() {
            if instance.starting || instance.ended {
                continue;
            }
            instance.chosen = there < wanted;
            there += usize::from(instance.chosen);
            let idle = instance.requests == 0 && self.now - instance.since >= self.load.kept;
            instance.ended = idle && !instance.chosen && index >= self.load.least as usize;
        }
        for _ in there..wanted {
            self.start();
        }
        // What waits may fit into one that was just chosen.
        for index in 0..self.instances.len() {
            self.take(index);
        }
    }

    /// Lets time pass, which is what is billed.
    fn pass(&mut self, time: f64) {
        let took = time - self.now;
        let (mut requests, mut chosen, mut active, mut idle, mut alive) = (0, 0, 0, 0, 0);
        for (index, instance) in self
            .instances
            .iter()
            .enumerate()
            .filter(|(_, instance)| !instance.ended)
        {
            let works = instance.requests > 0 || instance.starting;
            requests += instance.requests;
            chosen += u32::from(instance.chosen);
            alive += 1;
            active += u32::from(works);
            // Only as many as there are at least cost something while they rest.
            idle += u32::from(!works && index < self.load.least as usize);
        }
        self.used += took * f64::from(requests);
        self.counted.instances += took * f64::from(chosen);
        self.counted.active += took * f64::from(active);
        self.counted.alive += took * f64::from(alive);
        self.counted.idle += took * f64::from(idle);
        self.now = time;
    }

    fn at(&mut self, time: f64, event: Event) {
        self.made += 1;
        self.due.push(Due(time, self.made, event));
    }
}

/// What is billed beyond the time that it took.
fn rounding(seconds: f64) -> f64 {
    (seconds * 10.0).ceil() / 10.0 - seconds
}

/// SplitMix64: the same in every run.
struct Random(u64);

impl Random {
    /// More than 0, at most 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        ((mixed >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.share().ln()).sqrt() * (std::f64::consts::TAU * self.share()).cos()
    }
}
