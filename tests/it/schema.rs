//! `platen schema`: what it prints is in `docs/`, says of jobs what the worker says, and is true of results.

use std::process::Command;

use boon::{Compiler, Draft, SchemaIndex, Schemas};
use platen::job::{NameTemplate, Request};
use serde_json::{Map, Value, json};

use crate::harness::{World, job};
use crate::stock::Random;

struct Validator {
    schema: Value,
    schemas: Schemas,
    index: SchemaIndex,
}

impl Validator {
    fn of(message: &str) -> Self {
        let schema: Value = serde_json::from_str(&printed(message)).unwrap();
        let (mut compiler, mut schemas) = (Compiler::new(), Schemas::new());
        compiler.set_default_draft(Draft::V2020_12);
        compiler.enable_format_assertions();
        compiler.add_resource("message.json", schema.clone()).unwrap();
        let index = compiler.compile("message.json", &mut schemas).unwrap();
        Self { schema, schemas, index }
    }

    fn check(&self, value: &Value) -> Result<(), String> {
        let checked = self.schemas.validate(value, self.index);
        checked.map_err(|error| format!("{error:#}"))
    }
}

fn printed(message: &str) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_platen"))
        .args(["schema", message])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// What the worker says of a job before it looks at the object.
fn taken(job: &Value) -> Result<(), String> {
    Request::from_json(job.to_string().as_bytes())
        .and_then(|request| request.into_job(&NameTemplate::default()))
        .map(drop)
        .map_err(|failure| failure.to_string())
}

#[test]
fn the_copies_in_docs_are_what_is_printed() {
    for message in ["job", "result"] {
        let path = format!("{}/docs/{message}.schema.json", env!("CARGO_MANIFEST_DIR"));
        let copy = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(
            copy == printed(message),
            "docs/{message}.schema.json is not what the program prints: cargo run -- schema {message} > docs/{message}.schema.json"
        );
    }
}

#[test]
fn the_worker_and_the_schema_agree_about_jobs() {
    let validator = Validator::of("job");
    let source = "gs://in/reports/q3.docx";
    for (right, job) in [
        (true, json!({"source": source})),
        (false, json!({"source": "gs://in/line\nbreak.docx"})),
        (
            true,
            json!({"source": source, "generation": "1736358966947877", "outputs": null, "password": null}),
        ),
        (
            true,
            json!({"source": source, "generation": 7, "revision": "2026-11", "userData": [1, {"a": null}]}),
        ),
        (
            true,
            json!({"source": source, "signedUrl": {"ttl": "1.5h", "disposition": "inline"}}),
        ),
        (true, json!({"source": source, "password": {"secret": "contracts"}})),
        (false, json!({})),
        (false, json!({"source": "in/reports/q3.docx"})),
        (false, json!({"source": "gs://in"})),
        (false, json!({"source": "gs:///x"})),
        (false, json!({"source": source, "sorce": 1})),
        (false, json!({"source": source, "generation": "0"})),
        (false, json!({"source": source, "generation": -7})),
        (false, json!({"source": source, "generation": "x7"})),
        (false, json!({"source": source, "outputs": []})),
        (
            false,
            json!({"source": source, "outputs": vec![json!({"format": "pdf"}); 33]}),
        ),
        (false, json!({"source": source, "outputs": [{"format": "docm"}]})),
        (false, json!({"source": source, "outputs": [{}]})),
        (
            false,
            json!({"source": source, "outputs": [{"format": "pdf", "extra": 1}]}),
        ),
        (false, json!({"source": source, "signedUrl": null})),
        (false, json!({"source": source, "signedUrl": {"ttl": "1 fortnight"}})),
        (false, json!({"source": source, "signedUrl": {"ttl": " 1h"}})),
        (false, json!({"source": source, "signedUrl": {"disposition": "none"}})),
        (false, json!({"source": source, "password": "contracts"})),
        (false, json!({"source": source, "password": {"secret": ""}})),
        (false, json!({"source": source, "revision": 7})),
        (false, json!({"source": source, "revision": "x".repeat(1025)})),
    ] {
        let (schema, worker) = (validator.check(&job), taken(&job));
        assert_eq!(schema.is_ok(), right, "the schema on {job}: {schema:?}");
        assert_eq!(worker.is_ok(), right, "the worker on {job}: {worker:?}");
    }
}

/// Options at random: each alone, with values at and past the ends of its range, and then together, where one forbids or
/// demands another.
#[test]
fn the_worker_and_the_schema_agree_about_options() {
    let validator = Validator::of("job");
    let groups: Vec<(Vec<Value>, Map<String, Value>)> = validator.schema["$defs"]["Output"]["allOf"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| {
            let formats = &group["if"]["properties"]["format"]["enum"];
            let options = &group["then"]["properties"]["options"]["properties"];
            (
                formats.as_array().unwrap().clone(),
                options.as_object().unwrap().clone(),
            )
        })
        .collect();
    let formats: usize = groups.iter().map(|(formats, _)| formats.len()).sum();
    assert_eq!(
        formats,
        validator.schema["$defs"]["Format"]["enum"].as_array().unwrap().len()
    );

    let mut random = Random::seeded();
    let (mut right, mut wrong) = (0, 0);
    let mut compare = |format: &Value, options: Map<String, Value>| {
        let job = json!({"source": "gs://in/a.docx", "outputs": [{"format": format, "options": options}]});
        match (validator.check(&job), taken(&job)) {
            (Ok(()), Ok(())) => right += 1,
            (Err(_), Err(_)) => wrong += 1,
            (schema, worker) => panic!("{job}: the schema says {schema:?}, the worker {worker:?}"),
        }
    };
    for (formats, options) in &groups {
        for format in formats {
            compare(format, Map::from_iter([("noSuchOption".to_owned(), json!(true))]));
            for (name, schema) in options {
                for value in candidates(schema) {
                    compare(format, Map::from_iter([(name.clone(), value)]));
                }
            }
        }
        let names: Vec<&String> = options.keys().collect();
        for _ in 0..4000 {
            let chosen = (0..2 + random.below(3)).map(|_| names[random.below(names.len())]);
            let chosen: Vec<&String> = chosen.collect();
            let options = chosen.into_iter().map(|name| {
                let values = candidates(&options[name]);
                (name.clone(), values[random.below(values.len())].clone())
            });
            compare(&formats[0], options.collect());
        }
    }
    println!("{right} jobs that both take, {wrong} that both refuse");
    assert!(right > 1000 && wrong > 1000);
}

/// Values inside and outside of what an option takes, without those that only the worker can judge.
fn candidates(schema: &Value) -> Vec<Value> {
    let mut values = vec![json!(null), json!([]), json!("no such word \u{7f}"), json!(0.5)];
    if let Some(allowed) = schema["enum"].as_array() {
        values.extend(allowed.iter().cloned());
    }
    if schema["type"] == "boolean" {
        values.extend([json!(true), json!(false)]);
    }
    for (end, past) in [("minimum", -1), ("maximum", 1)] {
        if let Some(number) = schema[end].as_i64() {
            values.extend([json!(number), json!(number + past)]);
        }
    }
    if schema["type"] == "string" {
        let pattern = schema["pattern"].as_str().unwrap_or_default();
        values.extend(match pattern {
            "" => vec![json!(""), json!("plain"), json!("x".repeat(201))],
            pages if pages.contains(',') => ["", "1-3,5,8-", " 2 - 4 ", "a", "1--2", "-3", ",", "1,"]
                .map(Value::from)
                .to_vec(),
            _ => ["", "a4", "Letter", "210x297mm", "8.5inx11in", "A9", "210x297", "x"]
                .map(Value::from)
                .to_vec(),
        });
        // A watermark's text with a control character in it is refused by the worker alone.
        if pattern.is_empty() {
            values.retain(|value| !value.as_str().is_some_and(|text| text.contains(char::is_control)));
        }
    }
    if let Some(properties) = schema["properties"].as_object() {
        values.push(json!({}));
        values.push(json!({"unknown": "x"}));
        for name in properties.keys() {
            values.push(Value::Object(Map::from_iter([(name.clone(), json!("x"))])));
            values.push(Value::Object(Map::from_iter([(name.clone(), json!(1))])));
        }
    }
    values
}

#[tokio::test]
async fn results_of_every_kind_are_what_the_schema_says() {
    let validator = Validator::of("result");
    let world = World::start().await;
    world.upload_fixture("documents/plain/invoice.docx", "in.docx").await;
    world.upload("broken.docx", b"PK no zip".to_vec()).await;
    let jobs = [
        (
            "succeeded",
            json!({"source": "gs://in/in.docx", "userData": {"ticket": 1},
            "outputs": [{"format": "pdf"}, {"format": "png", "options": {"page": 1, "width": 100}}]}),
        ),
        ("failed", json!({"source": "gs://in/broken.docx"})),
        (
            "failed",
            json!({"source": "gs://in/in.docx", "outputs": [{"format": "nothing"}]}),
        ),
        ("failed", json!({"source": 1})),
        ("superseded", json!({"source": "gs://in/in.docx", "generation": "1"})),
    ];
    for (status, asked) in jobs {
        let mut asked_for = asked.clone();
        if let Some(source) = asked["source"].as_str() {
            asked_for["source"] = source
                .replace("gs://in/", &format!("gs://{}/", crate::harness::INPUT))
                .into();
        }
        assert_eq!(world.post(&job(&asked_for)).await.status(), 204);
        let result = world.result().await.data;
        assert_eq!(result["status"], status, "{asked}");
        if let Err(error) = validator.check(&result) {
            panic!("{asked}: {error}");
        }
        // And the schema is not one that anything fits.
        let mut other = result.clone();
        other["status"] = if status == "failed" { "succeeded" } else { "failed" }.into();
        assert!(validator.check(&other).is_err(), "{other}");
    }
}
