//! The image's files agree with each other: what deploy/prove-image.sh proves is what the Dockerfile builds and what
//! Cloud Build tries. The proof itself is a lane of deploy/test.sh.

use std::path::Path;
use std::process::Command;

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The Dockerfile's instructions, one a line.
fn steps() -> Vec<(String, String)> {
    let joined = read("Dockerfile")
        .lines()
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        .collect::<Vec<_>>()
        .join("\n")
        .replace("\\\n", "");
    joined
        .lines()
        .map(|line| {
            let (instruction, rest) = line.split_once(' ').unwrap();
            (instruction.to_owned(), rest.trim().to_owned())
        })
        .collect()
}

#[test]
fn every_step_can_be_proved_and_every_file_reaches_the_builder() {
    let proof = read("deploy/prove-image.sh");
    let context = read(".dockerignore");
    for (instruction, rest) in steps() {
        let known = proof.contains(&format!("\n    {instruction})")) || instruction == "EXPOSE";
        assert!(known, "deploy/prove-image.sh does not interpret {instruction}");
        if instruction != "COPY" || rest.starts_with("--from=") {
            continue;
        }
        let words: Vec<&str> = rest.split_whitespace().collect();
        for source in words[..words.len() - 1].iter().filter(|source| **source != ".") {
            assert!(context.lines().any(|line| line == format!("!{source}")), "{source}");
        }
    }
}

#[test]
fn the_last_stage_installs_makes_smaller_and_drops_rights() {
    let steps = steps();
    let last = steps
        .iter()
        .rposition(|(instruction, _)| instruction == "FROM")
        .unwrap();
    let stage = &steps[last..];
    let runs: Vec<&String> = stage
        .iter()
        .filter(|step| step.0 == "RUN")
        .map(|step| &step.1)
        .collect();
    // In one layer: what a later one removes makes nothing smaller.
    let [run] = runs[..] else { panic!("{runs:?}") };
    let at = |text: &str| run.find(text).unwrap_or_else(|| panic!("{text} in {run}"));
    assert!(at("packages.sh engine $EXTRA_FONTS") < at("slim-image.sh --image"));
    assert!(stage.contains(&("ARG".to_owned(), "EXTRA_FONTS=\"\"".to_owned())));
    assert!(stage.contains(&("USER".to_owned(), "65532:65532".to_owned())));
    assert!(run.contains("--uid 65532"));
}

/// A group that the image's argument may name is one that packages.sh knows; one that it does not is refused.
#[test]
fn groups_of_fonts_are_known() {
    let packages = read("deploy/packages.sh");
    for file in ["Dockerfile", "cloudbuild.yaml", "docs/image.md"] {
        let text = read(file);
        for group in ["fonts-cjk", "fonts-emoji"] {
            assert!(text.contains(group), "{group} in {file}");
            assert!(packages.contains(&format!("\n    {group})")), "{group}");
        }
    }
    let output = Command::new("sh")
        .args(["deploy/packages.sh", "fonts-klingon"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("fonts-emoji"), "{said}");
}

#[test]
fn a_machine_is_not_made_smaller_by_accident() {
    let output = Command::new("sh")
        .arg("deploy/slim-image.sh")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn the_smoke_test_is_as_strict_as_the_proof() {
    let build = read("cloudbuild.yaml");
    assert!(build.contains("deploy/smoke-image.sh '${_IMAGE}:${_TAG}'"));
    let smoke = read("deploy/smoke-image.sh");
    let smoke = smoke.lines().find(|line| line.contains("docker run")).unwrap();
    for option in ["--read-only", "--tmpfs /tmp", "--user 65532:65532", "--cap-drop ALL"] {
        assert!(smoke.contains(option), "{option}");
    }
    assert!(read("deploy/prove-image.sh").contains("SANDBOX=required"));
}
