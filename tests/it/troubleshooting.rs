//! What docs/troubleshooting.md quotes is what the program prints: every quote is looked for in the program's text.

use std::path::Path;

/// The program's text, with the strings that go over several lines in one, and what is filled in as `…`.
fn program() -> String {
    let mut text = String::new();
    crate::harness::walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut |path| {
        // The local cloud speaks as Google does.
        let ours = !path.components().any(|part| part.as_os_str() == "local_cloud");
        if ours && path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    });
    let lines: Vec<&str> = text.lines().collect();
    let mut joined = String::new();
    let mut continues = false;
    for line in lines {
        joined.push_str(if continues { line.trim_start() } else { line });
        continues = joined.ends_with('\\') && !joined.ends_with("\\\\");
        if continues {
            joined.pop();
        } else {
            joined.push('\n');
        }
    }
    // `{{name}}` is printed as `{name}`.
    joined.replace("{{", "{").replace("}}", "}")
}

/// Whether one line of the program has all parts of the quote, in their order.
fn prints(program: &str, quote: &str) -> bool {
    program.lines().any(|line| {
        let mut rest = line;
        quote.split('…').map(str::trim).all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    })
}

#[test]
fn every_quote_is_what_the_program_prints() {
    let program = program();
    let page = include_str!("../../docs/troubleshooting.md");
    // The status is put in front where a refusal is logged.
    let quotes: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("> "))
        .map(|quote| quote.trim_start_matches("429: "))
        .collect();
    assert!(quotes.len() > 30, "{}", quotes.len());
    let missing: Vec<&&str> = quotes.iter().filter(|quote| !prints(&program, quote)).collect();
    assert!(missing.is_empty(), "not in the program: {missing:#?}");
}

#[test]
fn a_quote_that_nobody_prints_is_found_out() {
    let program = program();
    assert!(prints(&program, "the engine was not warm after … s"));
    assert!(!prints(&program, "the engine was not hot after … s"));
    assert!(!prints(&program, "s … the engine was not warm after"));
}
