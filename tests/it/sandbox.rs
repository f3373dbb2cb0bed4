//! The sandbox, proved from inside by trying to leave it and from outside by looking at the child.
//!
//! Each attempt is made twice: free, where it must work (else the test proves nothing), and jailed, where it must fail
//! with the error number of the layer that is meant to stop it. All of it as root, and as a user without capabilities.
#![expect(
    unsafe_code,
    reason = "what an attacker tries are system calls, and what proves them are processes"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what it expects by failing"
)]

mod attempts;
mod denied;
mod inside;
mod outside;
mod process;
mod refusals;
mod second_wall;

use std::collections::BTreeMap;

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use serde_json::json;

use attempts::Targets;
use process::{As, Outcome, Scene, in_child, perform, play, users};

/// Not a test: the process that the tests below start for their scenes.
#[test]
#[ignore = "started by the other tests of this file"]
fn in_a_process_of_its_own() {
    perform(|scene| match scene.script.as_str() {
        "attempts" => json!(try_all(scene)),
        "denied calls" => json!(denied::call_denied(scene)),
        "ends" => json!(inside::ends(scene)),
        "permissions" => json!(inside::permissions(scene)),
        "work" => json!(inside::work(scene)),
        "look" => json!(outside::look_from_outside(scene)),
        "look at root" => json!(outside::look_at_root(scene)),
        "descriptors" => json!(outside::descriptors(scene)),
        "orphan" => json!(outside::orphan(scene)),
        "harden" => json!(outside::read_a_sibling(scene)),
        "attempts without landlock" => json!(second_wall::try_all_without_landlock(scene)),
        "mounts" => json!(second_wall::mounts(scene)),
        "no landlock" => json!(refusals::without_landlock(scene)),
        "refusals" => json!(refusals::refusals(scene)),
        other => panic!("no scene {other}"),
    });
}

#[test]
fn every_way_out_is_closed() {
    for user in users() {
        let tried: BTreeMap<String, (Outcome, Outcome, i32, String)> = play(user, "attempts");
        assert!(tried.len() > 60, "only {} attempts were made", tried.len());
        let mut wrong = Vec::new();
        for (name, (free, jailed, expected, when)) in &tried {
            if *jailed != Outcome::Refused(*expected) {
                wrong.push(format!(
                    "{name}: {jailed:?} inside, not {:?}",
                    Outcome::Refused(*expected)
                ));
            }
            let works = match when.as_str() {
                "Works" => true,
                "WorksForRoot" => user == As::Root,
                _ => {
                    if *free != Outcome::Succeeded {
                        println!("not proved as {user:?}: {name} fails outside too ({free:?})");
                    }
                    false
                }
            };
            if works && *free != Outcome::Succeeded {
                wrong.push(format!(
                    "{name}: {free:?} outside, so that the failure inside proves nothing"
                ));
            }
        }
        assert!(wrong.is_empty(), "as {user:?}:\n{}", wrong.join("\n"));
    }
}

/// By name: how an attempt ended free and jailed, how it should end jailed, and when it works at all.
type AllTried = BTreeMap<&'static str, (Outcome, Outcome, i32, String)>;

fn try_all(scene: &Scene) -> AllTried {
    let victim = in_child(|| {
        loop {
            nix::unistd::pause();
        }
    });
    let targets = Targets::new(scene, victim.as_raw());
    let mut tried = BTreeMap::new();
    for attempt in attempts::all(scene, &targets) {
        // Inside first: outside, some leave behind what the next one would find.
        let jailed = process::attempt(scene, true, &attempt.run);
        let free = process::attempt(scene, false, &attempt.run);
        let before = tried.insert(
            attempt.name,
            (free, jailed, attempt.inside, format!("{:?}", attempt.free)),
        );
        assert!(before.is_none(), "two attempts are called {}", attempt.name);
    }
    kill(victim, Signal::SIGKILL).unwrap();
    waitpid(victim, None).unwrap();
    tried
}
