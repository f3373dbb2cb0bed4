//! `docs/asyncapi.json`: everything it refers to is there, and a result that a worker publishes is what it says.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::harness::World;

fn docs() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/docs"))
}

fn page() -> Value {
    serde_json::from_slice(&std::fs::read(docs().join("asyncapi.json")).unwrap()).unwrap()
}

fn references(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").map(|target| target.as_str().unwrap().to_owned()));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

fn names(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_reference_leads_somewhere() {
    let page = page();
    assert_eq!(page["asyncapi"], "3.0.0");
    let mut found = Vec::new();
    references(&page, &mut found);
    for schema in ["job.schema.json", "result.schema.json"] {
        assert!(
            found.iter().any(|target| target == schema),
            "nothing refers to {schema}"
        );
    }
    for target in found {
        match target.strip_prefix('#') {
            Some(pointer) => assert!(page.pointer(pointer).is_some(), "{target}"),
            None => {
                let file = std::fs::read(docs().join(&target)).unwrap_or_else(|error| panic!("{target}: {error}"));
                let schema: Value = serde_json::from_slice(&file).unwrap();
                assert_eq!(
                    schema["$schema"], "https://json-schema.org/draft/2020-12/schema",
                    "{target}"
                );
            }
        }
    }
    for (name, operation) in page["operations"].as_object().unwrap() {
        let channel = operation["channel"]["$ref"].as_str().unwrap();
        for message in operation["messages"].as_array().unwrap() {
            let message = message["$ref"].as_str().unwrap();
            assert!(
                message.starts_with(&format!("{channel}/messages/")),
                "{name}: {message}"
            );
        }
    }
    for (name, message) in page["components"]["messages"].as_object().unwrap() {
        assert_eq!(message["name"], name.as_str());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_have_the_attributes_that_it_names() {
    let page = page();
    let headers = &page["components"]["messages"]["result"]["headers"];
    let (known, required) = (names(&headers["properties"]), &headers["required"]);
    let world = World::start().await;
    world.notify();
    world.upload_fixture("documents/plain/invoice.docx", "a.docx").await;
    world.upload("b.docx", b"".to_vec()).await;
    let mut met = BTreeSet::new();
    for _ in 0..2 {
        let result = world.result().await;
        for (name, value) in &result.attributes {
            assert!(known.contains(name.as_str()), "{name} is not in docs/asyncapi.json");
            let values = &headers["properties"][name]["enum"];
            assert!(
                values.is_null() || values.as_array().unwrap().iter().any(|one| one == value),
                "{name}: {value}"
            );
        }
        for name in required.as_array().unwrap() {
            assert!(result.attributes.contains_key(name.as_str().unwrap()), "{name}");
        }
        met.extend(result.attributes.into_keys());
    }
    // The rest of what is promised; a trace there is only where the request had one.
    let missing: Vec<_> = known.iter().filter(|name| !met.contains(**name)).collect();
    assert!(missing.iter().all(|name| **name == "traceparent"), "{missing:?}");
    let text = std::fs::read_to_string(docs().join("messages.md")).unwrap();
    for name in known {
        assert!(
            text.contains(&format!("`{name}`")),
            "docs/messages.md does not have {name}"
        );
    }
}
