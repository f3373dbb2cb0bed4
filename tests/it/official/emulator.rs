//! Google's Pub/Sub emulator in place of the local cloud's Pub/Sub, and how the two differ.

use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::emulator::Emulator;
use crate::harness::client;
use crate::local_command::Local;

const PROJECT: &str = "local-project";

#[tokio::test(flavor = "multi_thread")]
async fn platen_local_works_on_googles_emulator() {
    let Some(emulator) = Emulator::start().await else {
        return;
    };
    let mut local = Local::with(&["--pubsub-emulator", &emulator.host]);
    // The main path: notification, push with a token, result, the page's list of jobs.
    let generation = local.upload("documents/plain/invoice.docx", "a.docx").await;
    let job = local.done("a.docx").await;
    assert_eq!(
        (&job["state"], &job["generation"]),
        (&json!("succeeded"), &json!(generation))
    );
    // The topics are the emulator's, and clients of the cloud are asked for a token before they get there.
    let topics = emulator_call(&emulator, Method::GET, "topics", Value::Null).await;
    let names: Vec<&str> = topics["topics"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|topic| topic["name"].as_str()?.rsplit('/').next())
        .collect();
    for name in ["document-events", "results", "dead-letters"] {
        assert!(names.contains(&name), "{names:?}");
    }
    let through = |path: &str| format!("{}/v1/projects/{PROJECT}/{path}", local.url("pubsub"));
    let anonymous = client().get(through("topics")).send().await.unwrap();
    assert_eq!(anonymous.status(), 401);
    let token = local.token().await;
    let ask = async |method: Method, path: &str, body: Value| {
        let request = client().request(method, through(path)).bearer_auth(&token);
        let answer = request.json(&body).send().await.unwrap();
        let status = answer.status().as_u16();
        (status, answer.json::<Value>().await.unwrap())
    };
    let (status, pushed) = ask(Method::GET, "subscriptions/worker", json!({})).await;
    assert_eq!(status, 200, "{pushed}");
    assert_eq!(pushed["pushConfig"]["pushEndpoint"], local.url("worker"));
    assert_eq!(
        pushed["pushConfig"]["oidcToken"]["serviceAccountEmail"],
        "push@local-project.iam.gserviceaccount.com"
    );
    let behind = emulator_call(&emulator, Method::GET, "subscriptions/worker", Value::Null).await;
    assert_ne!(
        behind["pushConfig"]["pushEndpoint"],
        pushed["pushConfig"]["pushEndpoint"]
    );
    let (_, listed) = ask(Method::GET, "subscriptions", json!({})).await;
    assert!(
        listed["subscriptions"].as_array().unwrap().contains(&pushed),
        "{listed}"
    );
    assert_eq!(ask(Method::GET, "topics/missing", json!({})).await.0, 404);

    // The result is where gcloud or a client library would look for it.
    let (_, pulled) = ask(Method::POST, "subscriptions/results:pull", json!({"maxMessages": 10})).await;
    let result = &pulled["receivedMessages"][0]["message"]["attributes"];
    assert_eq!(result["sourceObject"], "a.docx", "{pulled}");

    // Pushes are refused without the right to make their token, and hit by faults; the emulator then tries again.
    let right = json!({
        "account": "pubsub-agent", "permission": "iam.serviceAccounts.getOpenIdToken", "resource": "account/push",
        "granted": false,
    });
    local.control(Method::PUT, "/api/rights", &right, 200).await;
    local.upload("documents/plain/invoice.docx", "b.docx").await;
    let state = local.job("b.docx", "is waiting", |_| true).await;
    assert_eq!(state["state"], "waiting");
    let mut given = right.clone();
    given["granted"] = json!(true);
    let fault = json!({"peer": "push", "effect": {"status": 500}});
    local.control(Method::POST, "/api/faults", &fault, 200).await;
    local.control(Method::PUT, "/api/rights", &given, 200).await;
    assert_eq!(local.done("b.docx").await["state"], "succeeded");
    let faults = local.control(Method::GET, "/api/faults", &Value::Null, 200).await;
    assert_eq!(faults, json!([]), "it was hit");

    // A push subscription that a client makes is relayed too, and stops being when it is pulled.
    let topic = format!("projects/{PROJECT}/topics/results");
    let unknown = json!({"topic": topic, "pushConfig": {
        "pushEndpoint": "http://127.0.0.1:1/", "oidcToken": {"serviceAccountEmail": "nobody@example.com"}}});
    assert_eq!(ask(Method::PUT, "subscriptions/mine", unknown).await.0, 400);
    let mine = json!({"topic": topic, "pushConfig": {"pushEndpoint": format!("{}/nowhere", local.url("worker"))}});
    let (status, made) = ask(Method::PUT, "subscriptions/mine", mine.clone()).await;
    assert_eq!((status, &made["pushConfig"]), (200, &mine["pushConfig"]));
    assert_eq!(
        ask(
            Method::POST,
            "subscriptions/mine:modifyPushConfig",
            json!({"pushConfig": {}})
        )
        .await
        .0,
        200
    );
    let (_, made) = ask(Method::GET, "subscriptions/mine", json!({})).await;
    assert_eq!(made["pushConfig"], json!({}));

    assert_eq!(local.end(Signal::SIGINT).code(), Some(0), "{}", local.log());
    // Again, on what the first run has left.
    let mut local = Local::with(&["--pubsub-emulator", &emulator.host]);
    local.upload("documents/plain/report.odt", "c.odt").await;
    assert_eq!(local.done("c.odt").await["state"], "succeeded");
    assert_eq!(local.end(Signal::SIGINT).code(), Some(0));
}

async fn emulator_call(emulator: &Emulator, method: Method, path: &str, body: Value) -> Value {
    let url = format!("http://{}/v1/projects/{PROJECT}/{path}", emulator.host);
    let mut request = client().request(method, url);
    if !body.is_null() {
        request = request.json(&body);
    }
    request.send().await.unwrap().json().await.unwrap()
}

#[test]
fn an_emulator_that_is_not_there_or_no_address_is_said() {
    let run = |address: &str| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_platen"))
            .args(["local", "--pubsub-emulator", address])
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for address in [
        "nowhere",
        "http://localhost:8085",
        "localhost:",
        "localhost:x",
        "me@localhost:8085",
        "",
    ] {
        let (code, said) = run(address);
        assert_eq!(code, Some(64), "{address}: {said}");
        assert!(said.contains("HOST:PORT"), "{said}");
    }
    let bound = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = bound.local_addr().unwrap();
    drop(bound);
    let (code, said) = run(&free.to_string());
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&format!("emulator at http://{free} does not answer")),
        "{said}"
    );
}
