//! The model: what a load takes on Cloud Run, in closed form. Every formula is explained in docs/operations.md.

use super::inputs::{Load, Shape};

/// What is said about a load: by the model, and again by the simulation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Answer {
    /// Instance-seconds that are billed as active, for one document: requests and starts.
    pub(crate) active: f64,
    /// Instance-seconds that are billed as idle (minimum instances), for one document.
    pub(crate) idle: f64,
    /// Instance-seconds from asking for an instance to its end, for one document.
    pub(crate) alive: f64,
    /// Instances that take requests, on average; of a backlog, while it lasts.
    pub(crate) instances: f64,
    /// Documents a second that come to their end.
    pub(crate) throughput: f64,
}

/// Seconds: the longest pause of the subscription's retry policy. So much later than when all slots are busy to the end may
/// the last of a backlog come: what was refused waits for its next push while nothing else is left.
pub(crate) const LONGEST_PAUSE: f64 = 600.0;

/// Cloud Run's target for the use of an instance, of its processors and of its concurrency.
const TARGET: f64 = 0.6;
/// Billed time is rounded up to a tenth of a second: half of one more each time that an instance becomes busy.
const ROUNDED_UP: f64 = 0.05;
/// Seconds: what the autoscaler averages over, and how often it does.
const MINUTE: f64 = 60.0;
const LOOK: f64 = 5.0;

pub(crate) fn answer(load: &Load) -> Answer {
    match load.shape {
        Shape::Steady { rate } if rate * load.mean() < load.slots() => steady(load, rate),
        Shape::Steady { .. } => full(load, load.slots() / load.mean()),
        // All instances start at once, and all slots are busy until the last document.
        Shape::Backlog { documents } => {
            let seconds = load.start + documents * load.mean() / load.slots();
            let mut answer = full(load, documents / seconds);
            answer.alive += f64::from(load.most) * load.kept / documents;
            answer
        }
    }
}

/// Every instance there may be, busy all the time.
fn full(load: &Load, throughput: f64) -> Answer {
    let instances = f64::from(load.most);
    Answer {
        active: instances / throughput,
        idle: 0.0,
        alive: instances / throughput,
        instances,
        throughput,
    }
}

fn steady(load: &Load, rate: f64) -> Answer {
    let (least, most) = (load.least.max(1), load.most);
    let for_one = TARGET * f64::from(load.concurrency);
    let (average, deviation) = minute(load, rate);
    let mut answer = Answer {
        active: 0.0,
        idle: 0.0,
        alive: alive(load, rate) / rate,
        instances: 0.0,
        throughput: rate,
    };
    // The autoscaler's number follows each minute's average, rounded up.
    let at_most = |instances: u32| {
        if instances >= most {
            1.0
        } else {
            normal((for_one * f64::from(instances) - average) / deviation)
        }
    };
    let mut below = 0.0;
    for instances in least..=most {
        let share = at_most(instances) - below;
        below += share;
        let with = with_instances(load, rate, instances);
        answer.active += share * with.active;
        answer.idle += share * with.idle;
        answer.instances += share * with.instances;
    }
    // An instance that nobody has called for so long is gone; the next document starts one.
    if load.least == 0 {
        let cold = (-rate * load.kept).exp() * load.start;
        answer.active += cold;
        answer.alive += cold;
    }
    answer
}

/// Instances that are there on average: one more than so many is, if within the time that an idle one is kept a request
/// found all of so many full.
fn alive(load: &Load, rate: f64) -> f64 {
    let busy_slots = rate * load.mean();
    let more_than = |instances: u32| {
        let full = blocked(f64::from(instances * load.concurrency), busy_slots);
        1.0 - (-rate * full * load.kept).exp()
    };
    f64::from(load.least) + (load.least..load.most).map(more_than).sum::<f64>()
}

/// Busy slots over a minute: their average, and the standard deviation of that (a Poisson process, each of whose documents
/// adds its own seconds to the minute).
fn minute(load: &Load, rate: f64) -> (f64, f64) {
    let average = rate * load.mean();
    let half = load.spread().powi(2);
    let processor = load.mean() - load.waits;
    let variance = processor.powi(2) * (half.exp() - 1.0);
    (average, (rate * (load.mean().powi(2) + variance) / MINUTE).sqrt())
}

/// With so many instances chosen, all of them alike.
fn with_instances(load: &Load, rate: f64, instances: u32) -> Answer {
    let (busy_slots, number) = (rate * load.mean(), f64::from(instances));
    // What finds all of them full goes to others, one request each.
    let blocked = if instances < load.most {
        blocked(number * f64::from(load.concurrency), busy_slots)
    } else {
        0.0
    };
    let overflow = busy_slots * blocked;
    let idle_share = idle_share((busy_slots - overflow) / number, load.concurrency);
    let busy = number * (1.0 - idle_share) + overflow;
    Answer {
        active: busy / rate + idle_share * ROUNDED_UP,
        idle: f64::from(load.least) * idle_share / rate,
        alive: 0.0,
        instances: number + woken(rate * blocked * LOOK),
        throughput: rate,
    }
}

/// The share of the time between two looks of the autoscaler after the first of so many requests that found no room: since
/// then one more instance is there.
fn woken(requests: f64) -> f64 {
    if requests < 1e-9 {
        return 0.0;
    }
    1.0 - (1.0 - (-requests).exp()) / requests
}

/// The share of a normal distribution below so many deviations: Abramowitz and Stegun 26.2.17, to seven digits.
fn normal(deviations: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * deviations.abs());
    let series = [
        0.319_381_530,
        -0.356_563_782,
        1.781_477_937,
        -1.821_255_978,
        1.330_274_429,
    ];
    let sum = series.iter().rev().fold(0.0, |sum, factor| (sum + factor) * t);
    let above = sum * (-deviations.powi(2) / 2.0).exp() / std::f64::consts::TAU.sqrt();
    if deviations < 0.0 { above } else { 1.0 - above }
}

/// Erlang's B: the share of requests that find so many slots busy, of so many on average.
fn blocked(slots: f64, busy: f64) -> f64 {
    let mut blocked = 1.0;
    let mut slot = 1.0;
    while slot <= slots {
        blocked = busy * blocked / (slot + busy * blocked);
        slot += 1.0;
    }
    blocked
}

/// How much of the time an instance is idle that has so many busy slots on average: the state of so many slots that refuse
/// what is too much, for whatever service times (Erlang's loss system).
fn idle_share(busy: f64, slots: u32) -> f64 {
    let state = |offered: f64| {
        let (mut term, mut sum, mut mean) = (1.0, 1.0, 0.0);
        for slot in 1..=slots {
            term *= offered / f64::from(slot);
            sum += term;
            mean += term * f64::from(slot);
        }
        (1.0 / sum, mean / sum)
    };
    let (mut low, mut high) = (0.0, 1e6);
    for _ in 0..200 {
        let middle = f64::midpoint(low, high);
        if state(middle).1 < busy {
            low = middle;
        } else {
            high = middle;
        }
    }
    state(low).0
}
