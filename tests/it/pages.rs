//! The pages of the documentation lead somewhere: every relative link has its file, and every anchor its heading.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every page, by its path from the root.
fn pages() -> BTreeMap<PathBuf, String> {
    let mut pages = BTreeMap::new();
    for directory in ["", "docs", "deploy/gke"] {
        for entry in std::fs::read_dir(root().join(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let text = std::fs::read_to_string(&path).unwrap();
                pages.insert(path.strip_prefix(root()).unwrap().to_owned(), text);
            }
        }
    }
    pages
}

/// What is not within a fenced block.
fn prose(page: &str) -> String {
    let mut fenced = false;
    page.lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fence && !fenced
        })
        .fold(String::new(), |text, line| text + line + "\n")
}

/// The anchor that a renderer makes of a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter(|character| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_'))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    prose(page)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(anchor)
        .collect()
}

fn links(page: &str) -> Vec<String> {
    prose(page)
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link.to_owned())
        .filter(|link| !link.contains("://"))
        .collect()
}

/// `a/../b` as `b`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            std::path::Component::ParentDir => {
                assert!(plain.pop(), "{}: leads out of the project", path.display());
            }
            other => plain.push(other),
        }
        plain
    })
}

#[test]
fn every_link_leads_somewhere() {
    let pages = pages();
    let mut wrong = Vec::new();
    let mut followed = 0;
    for (page, text) in &pages {
        for link in links(text) {
            followed += 1;
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                plain(&page.parent().unwrap().join(file))
            };
            let there = root().join(&target).exists();
            let known = pages.get(&target).map(|text| anchors(text));
            if !there || (!heading.is_empty() && known.is_some_and(|known| !known.contains(heading))) {
                wrong.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(followed > 40, "only {followed} links were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_can_be_reached_from_the_first() {
    let pages = pages();
    let (mut reached, mut next) = (BTreeSet::new(), vec![PathBuf::from("README.md")]);
    while let Some(page) = next.pop() {
        if let Some(text) = pages.get(&page)
            && reached.insert(page.clone())
        {
            for link in links(text) {
                let file = link.split('#').next().unwrap_or_default();
                next.push(plain(&page.parent().unwrap().join(file)));
            }
        }
    }
    let lost: Vec<_> = pages.keys().filter(|page| !reached.contains(*page)).collect();
    assert!(lost.is_empty(), "no way leads to {lost:?}");
}
