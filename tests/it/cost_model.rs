//! The table of docs/operations.md is what the model of `benches/simulation` says, and the model is what its simulation sees.
#![allow(
    clippy::cast_sign_loss,
    reason = "counts become averages in the simulation, and seconds become numbers of instances"
)]

#[allow(
    dead_code,
    clippy::cast_sign_loss,
    reason = "the bench prints more than is checked here, and makes numbers of instances of seconds"
)]
#[path = "../../benches/simulation/events.rs"]
mod events;
#[allow(dead_code, reason = "the bench has prices, too")]
#[path = "../../benches/simulation/inputs.rs"]
mod inputs;
#[allow(dead_code, reason = "the bench prints more than is checked here")]
#[path = "../../benches/simulation/model.rs"]
mod model;

fn loads() -> Vec<inputs::Load> {
    inputs::loads(include_str!("../../benches/simulation/loads.tsv")).unwrap()
}

#[test]
fn the_page_has_what_the_model_says() {
    let page = include_str!("../../docs/operations.md");
    for load in loads() {
        let said = model::answer(&load);
        let start = format!("| {} | {:.2} / ", load.name, said.active);
        let row = page.lines().find(|line| line.starts_with(&start));
        let row = row.unwrap_or_else(|| panic!("no row begins with {start:?}"));
        let alive = row.split(" | ").nth(2).unwrap();
        assert!(
            alive.starts_with(&format!("{:.2} / ", said.alive)),
            "{row}: {}",
            said.alive
        );
    }
}

#[test]
fn the_simulation_agrees_and_repeats_itself() {
    let load = loads()
        .into_iter()
        .find(|load| load.name == "one a second, medium")
        .unwrap();
    let (said, seen) = (model::answer(&load), events::simulate(&load, 7).answer);
    for (said, seen) in [(said.active, seen.active), (said.alive, seen.alive)] {
        assert!((seen / said - 1.0).abs() < 0.1, "{said} and {seen}");
    }
    let again = events::simulate(&load, 7).answer;
    assert_eq!(again.active.to_bits(), seen.active.to_bits());
    let other = events::simulate(&load, 8).answer;
    assert_ne!(other.active.to_bits(), seen.active.to_bits());
}
