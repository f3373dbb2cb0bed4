//! Checks the model of docs/operations.md against a simulation: `make simulate`.
//!
//! The model says in closed form what a load takes on Cloud Run (`simulation/model.rs`), the simulation takes every document
//! through Pub/Sub and Cloud Run on its own (`simulation/events.rs`). Loads and prices are tables in `simulation/`:
//! change them to your own. For each load both are printed with their ratio; where one differs by more than [`TOLERANCE`] the
//! exit code is 1. No network, no LibreOffice, nothing but the standard library; the same in every run, with
//! `PLATEN_SEED` another.
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "counts become averages here, and seconds become numbers of instances"
)]

#[path = "simulation/events.rs"]
mod events;
#[path = "simulation/inputs.rs"]
mod inputs;
#[path = "simulation/model.rs"]
mod model;

use std::process::ExitCode;

use inputs::{Load, Prices, Shape};
use model::Answer;

/// How far the simulation may be from the model.
const TOLERANCE: f64 = 0.1;
const MILLION: f64 = 1e6;

fn main() -> ExitCode {
    match check() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("simulation: {problem}");
            ExitCode::from(64)
        }
    }
}

fn check() -> Result<bool, String> {
    let seed = match std::env::var("PLATEN_SEED") {
        Ok(seed) => seed
            .parse()
            .map_err(|_| format!("PLATEN_SEED: {seed:?} is no whole number"))?,
        Err(_) => 1,
    };
    let prices = inputs::prices(include_str!("simulation/prices.tsv"))?;
    let loads = inputs::loads(include_str!("simulation/loads.tsv"))?;
    let (mut agree, mut table) = (true, String::new());
    println!("model | simulation (seed {seed}) | ratio");
    for load in &loads {
        let (said, seen) = (model::answer(load), events::simulate(load, seed));
        println!("\n{}: {}", load.name, described(load));
        agree &= row("active instance-seconds a document", said.active, seen.answer.active);
        if load.least > 0 {
            agree &= row("idle instance-seconds a document", said.idle, seen.answer.idle);
        }
        if let Shape::Backlog { documents } = load.shape {
            let (least, took) = (documents / said.throughput, documents / seen.answer.throughput);
            let most = least + model::LONGEST_PAUSE;
            let within = took >= least * (1.0 - TOLERANCE) && took <= most * (1.0 + TOLERANCE);
            agree &= within;
            let verdict = if within { "" } else { "   DIFFERS" };
            println!("  seconds: {least:.0} at least, {most:.0} at most; {took:.0} in the simulation{verdict}");
        } else {
            agree &= row("documents a second", said.throughput, seen.answer.throughput);
            // Fewer are there only while somebody calls.
            if said.instances > 1.5 {
                agree &= row("instances", said.instances, seen.answer.instances);
            }
        }
        agree &= row("instance-seconds alive a document", said.alive, seen.answer.alive);
        table.push_str(&format!(
            "| {} | {:.2} / {:.2} | {:.2} / {:.2} |",
            load.name, said.active, seen.answer.active, said.alive, seen.answer.alive
        ));
        for (billing, what) in [
            (Billing::Requests, "request-based billing, USD a million"),
            (Billing::Instances, "instance-based billing, USD a million"),
        ] {
            let usd = |answer: &Answer| cloud_run(load, answer, billing, &prices);
            let (said, seen) = (usd(&said)?, usd(&seen.answer)?);
            agree &= row(what, said, seen);
            table.push_str(&format!(" {said:.1} / {seen:.1} |"));
        }
        table.push_str(&format!(" {:.1} | {:.1} s |\n", seen.deliveries, seen.latency));
        println!(
            "  beside it: {:.3} pushes a document, {} at most, {:.1} starts in a thousand documents, 95 % end within {:.1} s",
            seen.deliveries, seen.most_deliveries, seen.starts, seen.latency
        );
    }
    println!(
        "\nthe rest of Google's bill, USD a million documents: {:.2}",
        others(&prices)?
    );
    println!("\nas docs/operations.md has it:\n{table}");
    println!(
        "{}",
        if agree {
            format!("all within {TOLERANCE} of the model")
        } else {
            format!("some differ by more than {TOLERANCE}")
        }
    );
    Ok(agree)
}

/// Prints what both say, and says whether they agree.
fn row(what: &str, said: f64, seen: f64) -> bool {
    let ratio = seen / said;
    let near = (ratio - 1.0).abs() <= TOLERANCE;
    let verdict = if near { "" } else { "   DIFFERS" };
    println!("  {what:<46} {said:>10.3} {seen:>10.3} {ratio:>7.3}{verdict}");
    near
}

fn described(load: &Load) -> String {
    let comes = match load.shape {
        Shape::Steady { rate } => format!("{rate} documents a second"),
        Shape::Backlog { documents } => format!("{documents} documents at once"),
    };
    format!(
        "{comes} of {:.2} s; {} CPU, {} GiB, {} at a time, {} to {} instances",
        load.mean(),
        load.processors,
        load.memory_gib,
        load.concurrency,
        load.least,
        load.most
    )
}

/// Cloud Run's two ways to bill.
#[derive(Clone, Copy)]
enum Billing {
    /// For what is active (`--cpu-throttling`).
    Requests,
    /// For what is alive (`--no-cpu-throttling`, as deploy/setup.sh has it).
    Instances,
}

/// What Cloud Run bills for a million documents.
fn cloud_run(load: &Load, answer: &Answer, billing: Billing, prices: &Prices) -> Result<f64, String> {
    let second = |of: &str| -> Result<f64, String> {
        let processors = f64::from(load.processors) * prices.of(&format!("run.{of}processor"))?;
        Ok(processors + load.memory_gib * prices.of(&format!("run.{of}memory"))?)
    };
    let document = match billing {
        Billing::Requests => answer.active * second("")? + answer.idle * second("idle-")? + prices.of("run.request")?,
        Billing::Instances => answer.alive * second("alive-")?,
    };
    Ok(MILLION * document)
}

/// What a million documents cost beside Cloud Run: the calls that tests/it/calls.rs counts, and the log.
fn others(prices: &Prices) -> Result<f64, String> {
    let mut sum = 0.0;
    for call in ["storage.write", "storage.read", "pubsub.kilobyte", "logging.kilobyte"] {
        sum += prices.of(call)? * prices.of(&format!("{call}.count"))?;
    }
    Ok(MILLION * sum)
}
