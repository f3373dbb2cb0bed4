//! Crash consistency: `kill -9` of the worker at every step, and nothing is lost, doubled or left behind.
//!
//! A run is a seed: it fixes where the worker is killed, which messages there are and in which order, when a source is
//! replaced, what fails on Google's side, and whether a worker comes late to what another has done. The suite has one run
//! for each step; `PLATEN_CRASH_RUNS=200` has more, `PLATEN_FULL=1` 200, and `PLATEN_CRASH_SEED=17` repeats one.

#[cfg(feature = "failpoints")]
mod judge;
#[cfg(feature = "failpoints")]
mod lane;
#[cfg(feature = "failpoints")]
mod panics;
#[cfg(feature = "failpoints")]
mod plan;
#[cfg(feature = "failpoints")]
mod points;
#[cfg(feature = "failpoints")]
mod runs;
#[cfg(feature = "failpoints")]
mod words;

#[cfg(not(feature = "failpoints"))]
#[test]
#[ignore = "built without failpoints: `cargo test --features failpoints` has them"]
fn a_worker_killed_at_any_step_loses_nothing_and_doubles_nothing() {}
