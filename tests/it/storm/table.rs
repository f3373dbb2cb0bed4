//! The table: how many took which way.

use std::fmt::Write as _;

use platen::local_cloud::LocalCloud;

use super::check::{Outputs, Ways};
use super::door::Door;
use super::fleet::Fleet;

pub(super) fn table(ways: &Ways, outputs: &Outputs, door: &Door, fleet: &Fleet, cloud: &LocalCloud) -> String {
    let mut table = String::new();
    let mut row = |what: &str, count: u64| {
        let _ = writeln!(table, "{count:>8}  {what}");
    };
    row("messages", ways.counts.values().map(|count| *count as u64).sum());
    for (way, count) in &ways.counts {
        row(&format!("  {way}"), *count as u64);
    }
    row("results of messages that had one already", ways.repeated_results as u64);
    row("outputs by name", outputs.names as u64);
    row(
        "outputs written, those that were replaced with them",
        outputs.versions as u64,
    );
    row("links followed", outputs.links as u64);
    row("workers killed", fleet.kills as u64);
    row(
        "pushes answered with 504 while a worker was at them",
        door.impatient() as u64,
    );
    for (status, count) in door.answers() {
        let what = match status {
            0 => "pushes that a worker died over".to_owned(),
            status => format!("pushes answered with {status} by a worker"),
        };
        row(&what, count as u64);
    }
    for ((peer, effect), count) in cloud.fault_hits() {
        row(&format!("faults: {peer:?} {effect}"), count);
    }
    table
}
