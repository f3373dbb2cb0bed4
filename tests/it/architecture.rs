//! Keeps ARCHITECTURE.md true: which module may know which, where `unsafe` may stand, and that every file says what it
//! is for. Cargo cannot enforce arrows inside one package.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::walk;

/// What each module may import from this crate. What is not listed may import nothing.
const ARROWS: [(&str, &str); 20] = [
    ("main", "engine cli"),
    (
        "cli",
        "accept config convert deliver engine error google job local_cloud sandbox secrets serve telemetry units",
    ),
    (
        "serve",
        "accept config convert deliver engine error failpoint google metrics pipeline secrets telemetry trace",
    ),
    (
        "pipeline",
        "accept config convert deliver engine error failpoint google job metrics secrets trace",
    ),
    ("accept", "error google job trace"),
    ("convert", "accept config engine error failpoint google job"),
    ("deliver", "accept convert error failpoint google job metrics"),
    ("config", "google job sandbox units"),
    ("job", "error units"),
    ("error", "failpoint google"),
    ("telemetry", "config trace"),
    ("units", ""),
    ("failpoint", ""),
    ("metrics", ""),
    ("secrets", "config google job metrics telemetry"),
    ("engine", "metrics sandbox trace"),
    ("google", "metrics trace"),
    ("sandbox", ""),
    ("trace", ""),
    ("local_cloud", ""),
];

/// Where `unsafe` may stand: the sandbox and the engine's FFI.
const UNSAFE: [&str; 2] = ["engine", "sandbox"];

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut |path| {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let relative = path.strip_prefix(&root).unwrap().to_owned();
            files.push((relative, std::fs::read_to_string(path).unwrap()));
        }
    });
    assert!(files.len() > 50, "the sources were not found");
    files
}

fn module(file: &Path) -> String {
    let first = file.components().next().unwrap().as_os_str().to_string_lossy();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules that a file names: `crate::x`, `platen::x`, and `use crate::{x, y}`.
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for prefix in ["crate::", "platen::"] {
        for (at, _) in code.match_indices(prefix) {
            let rest = &code[at + prefix.len()..];
            // A group's members stand at depth one; what they import in turn is theirs.
            let (mut depth, mut name) = (0, String::new());
            for character in rest.chars() {
                let of_a_name = character.is_alphanumeric() || character == '_';
                match character {
                    _ if of_a_name && depth < 2 => name.push(character),
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if !of_a_name && !name.is_empty() {
                    found.insert(std::mem::take(&mut name));
                }
                if depth <= 0 && !of_a_name {
                    break;
                }
            }
        }
    }
    found
}

#[test]
fn arrows_point_one_way() {
    let known: BTreeSet<&str> = ARROWS.iter().map(|(module, _)| *module).collect();
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let module = module(&file);
        if module == "lib" {
            continue;
        }
        assert!(
            known.contains(module.as_str()),
            "{}: a module without arrows: add it to ARROWS",
            file.display()
        );
        let allowed = ARROWS
            .iter()
            .find(|(name, _)| *name == module)
            .map_or("", |(_, allowed)| allowed);
        let allowed: Vec<&str> = allowed.split(' ').collect();
        for import in imports(&text) {
            if known.contains(import.as_str()) && import != module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}: {module} imports {import}", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that ARCHITECTURE.md forbids:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn the_check_of_arrows_sees_imports() {
    let text = "use crate::google::{self, Kind};\nuse crate::{engine::{a, b}, job};\n// crate::sandbox\nfn f() { crate::deliver::x() }";
    assert_eq!(
        imports(text),
        ["deliver", "engine", "google", "job"].map(str::to_owned).into()
    );
}

#[test]
fn unsafe_stands_in_the_sandbox_and_the_engine_alone() {
    let forms = [
        "unsafe {",
        "unsafe fn",
        "unsafe impl",
        "unsafe extern",
        "unsafe trait",
        "no_mangle",
    ];
    for (file, text) in sources() {
        let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = code.find(|line| forms.iter().any(|form| line.contains(form)));
        let allowed = UNSAFE.contains(&module(&file).as_str());
        assert!(allowed || found.is_none(), "{}: {found:?}", file.display());
    }
}

#[test]
fn every_file_says_what_it_is_for() {
    for (file, text) in sources() {
        let first = text.lines().next().unwrap_or_default();
        assert!(
            first.starts_with("//! ") && first.len() > 20,
            "{}: {first:?}",
            file.display()
        );
    }
}

#[test]
fn the_top_level_is_the_owners() {
    let allowed = [
        "ARCHITECTURE.md",
        "Cargo.lock",
        "Cargo.toml",
        "Dockerfile",
        "Makefile",
        "README.md",
        "benches",
        "build.rs",
        "cloudbuild.yaml",
        "deploy",
        "docs",
        "fixtures",
        "fuzz",
        "rust-toolchain.toml",
        "src",
        "tests",
        // Made by building and by the README's commands, and not committed.
        "out",
        "target",
    ];
    for entry in std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(
            name.starts_with('.') || allowed.contains(&name.as_str()),
            "{name} is not one of the top level's"
        );
    }
}
