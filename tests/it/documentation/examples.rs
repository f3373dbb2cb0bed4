//! Every JSON example of README.md and docs/ is what the schemas, or the place that it is for, allow.

use std::collections::BTreeMap;

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use platen::local_cloud::Fault;
use serde_json::Value;

use super::{all_blocks, read};

/// Judges a value, by one of the copies in docs/.
fn schema(message: &str) -> (Schemas, SchemaIndex) {
    let schema = serde_json::from_str(&read(&format!("docs/{message}.schema.json"))).unwrap();
    let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
    compiler.set_default_draft(Draft::V2020_12);
    compiler.enable_format_assertions();
    compiler.add_resource("message.json", schema).unwrap();
    let index = compiler.compile("message.json", &mut schemas).unwrap();
    (schemas, index)
}

#[test]
fn every_example_is_valid() {
    let (job, result) = (schema("job"), schema("result"));
    let check = |(schemas, index): &(Schemas, SchemaIndex), value: &Value| {
        schemas.validate(value, *index).map_err(|error| format!("{error:#}"))
    };
    // A result with this failure: an example of an error is not a whole message.
    let around = |error: &Value| {
        let blocks = all_blocks().into_iter();
        let mut results = blocks.filter(|block| block.text.contains("\"jobId\""));
        let mut whole: Value = serde_json::from_str(&results.next().unwrap().text.replace("=…", "=x")).unwrap();
        whole["status"] = "failed".into();
        whole["outputs"] = Value::Array(Vec::new());
        whole["error"] = error.clone();
        whole
    };
    let (mut problems, mut kinds) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for block in all_blocks().into_iter().filter(|block| block.language == "json") {
        // What is left out of a URL.
        let verdict = serde_json::from_str::<Value>(&block.text.replace("=…", "=x"))
            .map_err(|error| error.to_string())
            .and_then(|value| {
                let (kind, verdict) = if value["jobId"].is_string() {
                    ("result", check(&result, &value))
                } else if value["source"].is_string() {
                    ("job", check(&job, &value))
                } else if value["code"].is_string() {
                    ("error", check(&result, &around(&value)))
                } else if value["effect"].is_object() {
                    (
                        "fault",
                        Fault::from_json(&value).map(drop).map_err(|error| error.to_string()),
                    )
                } else if value["passwords"].is_object() {
                    ("configuration", configuration(&value))
                } else {
                    ("unknown", Err("no rule of this test covers it".to_owned()))
                };
                *kinds.entry(kind).or_default() += 1;
                verdict
            });
        if let Err(problem) = verdict {
            problems.push(format!("{}: {problem}", block.place()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    for kind in ["result", "job", "error", "fault", "configuration"] {
        assert!(kinds.contains_key(kind), "there is no {kind}: {kinds:?}");
    }
}

/// The sealed configuration's form, as the README's text gives it; that it loads is tested with the worker.
fn configuration(value: &Value) -> Result<(), String> {
    let members = value.as_object().ok_or("no object")?;
    let is_password = |password: &Value| {
        let list = password.as_array();
        password.is_string() || list.is_some_and(|list| list.iter().all(Value::is_string))
    };
    for (name, member) in members {
        let mut values = member.as_object().ok_or("no object of objects")?.values();
        let good = match name.as_str() {
            "passwords" => values.all(is_password),
            "environment" => values.all(Value::is_string),
            _ => false,
        };
        if !good {
            return Err(format!("{name} is wrong"));
        }
    }
    Ok(())
}
