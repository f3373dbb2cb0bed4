//! `platen submit` as a process: through the private front door to a real worker, to a topic, and to peers that are busy
//! or strange.

use std::collections::HashMap;
use std::process::Output;

use platen::local_cloud::AccountRole;
use serde_json::{Value, json};

use crate::credentials::{CALLER, File, USER, WORKER, on_google, person, platen, stderr};
use crate::harness::{AUDIENCE, INPUT, World};
use crate::peer::{Peer, Reply};

/// A worker as a private Cloud Run service that CALLER may invoke.
async fn private(variables: &[(&str, &str)]) -> World {
    let callers = format!("push@local-project.iam.gserviceaccount.com,{CALLER}");
    let mut all = vec![
        ("PUSH_AUTH", "cloud-run-iam"),
        ("PUSH_SERVICE_ACCOUNT", callers.as_str()),
    ];
    all.extend_from_slice(variables);
    let world = World::with(&all).await;
    world.cloud.create_service_account(CALLER);
    world.cloud.open_front_door(&world.worker.url, &[AUDIENCE], &[CALLER]);
    world
}

fn door(world: &World) -> &str {
    &world.cloud.urls().front_door
}

fn source(name: &str) -> String {
    format!("gs://{INPUT}/{name}")
}

fn results(output: &Output) -> Vec<Value> {
    String::from_utf8(output.stdout.clone())
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn result_of<'a>(results: &'a [Value], name: &str) -> &'a Value {
    results.iter().find(|result| result["source"]["name"] == name).unwrap()
}

#[tokio::test]
async fn a_private_service_answers_with_results() {
    let world = private(&[]).await;
    world
        .upload_fixture("documents/plain/invoice.docx", "a/invoice.docx")
        .await;
    world.upload_fixture("documents/plain/prices.csv", "prices.csv").await;
    let user = File::new(&world.cloud.log_in(USER));
    world.cloud.grant(USER, CALLER, AccountRole::OpenIdTokenCreator);
    let (invoice, prices, missing) = (source("a/invoice.docx"), source("prices.csv"), source("missing.docx"));
    let to = [
        "--service",
        door(&world),
        "--audience",
        AUDIENCE,
        "--impersonate",
        CALLER,
    ];
    let mut environment = user.environment(&world.cloud);
    environment.insert("RUST_LOG".to_owned(), "trace".to_owned());

    let arguments = [
        &["submit", &invoice, &prices, "--option", "nativePageRanges=1"][..],
        &to[..],
    ]
    .concat();
    let output = platen(&arguments, &environment).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\n{}",
        stderr(&output),
        world.worker.log()
    );
    let made = results(&output);
    assert_eq!(made.len(), 2);
    for name in ["a/invoice.docx", "prices.csv"] {
        let result = result_of(&made, name);
        assert_eq!(
            (&result["status"], &result["outputs"][0]["pages"]),
            (&json!("succeeded"), &json!(1))
        );
        let url = result["outputs"][0]["signedUrl"].as_str().unwrap();
        assert!(world.download(url).await.bytes().await.unwrap().starts_with(b"%PDF-"));
    }
    // Tokens and links are for stdout alone.
    for secret in ["eyJ", "ya29.", "X-Goog-Signature"] {
        assert!(!stderr(&output).contains(secret), "{}", stderr(&output));
    }

    let arguments = [&["submit", &prices, &missing, "--to", "png"][..], &to[..]].concat();
    let output = platen(&arguments, &environment).await;
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let made = results(&output);
    assert_eq!(result_of(&made, "prices.csv")["outputs"][0]["format"], "png");
    assert_eq!(result_of(&made, "missing.docx")["error"]["code"], "source.not_found");
    assert!(
        stderr(&output).contains("gs://input/missing.docx: source.not_found: "),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn each_refusal_says_who_refused_and_what_to_do() {
    let mut world = private(&[]).await;
    let google = on_google(&world.cloud);
    let user = File::new(&world.cloud.log_in(USER));
    world.cloud.allow_token_creator(WORKER, CALLER);
    let input = source("a.docx");
    let mine = ["submit", &input, "--service", door(&world), "--audience", AUDIENCE];
    let impersonated = ["submit", &input, "--service", door(&world), "--impersonate", CALLER];
    async fn refused(arguments: &[&str], environment: &HashMap<String, String>, words: &[&str]) {
        let output = platen(arguments, environment).await;
        let said = stderr(&output);
        assert_eq!(
            (output.status.code(), &output.stdout[..]),
            (Some(1), &b""[..]),
            "{said}"
        );
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        assert!(!said.contains("eyJ") && !said.contains("<html>"), "{said}");
    }

    let words = ["OAuth client", "private service refuses it", "--impersonate EMAIL"];
    refused(&mine, &user.environment(&world.cloud), &words).await;
    // The audience is by default the service's URL as it was given; Cloud Run does not know its other names.
    let words = [
        "Cloud Run's front end refused the token (HTTP 401)",
        "load balancer or a custom domain",
        "--audience",
        &format!("its audience is {}", door(&world)),
    ];
    refused(&impersonated, &google, &words).await;
    let words = [
        "Cloud Run's front end refused the caller (HTTP 403)",
        &format!("--member=serviceAccount:{WORKER} --role=roles/run.invoker"),
    ];
    refused(&mine, &google, &words).await;
    // Let in by the front end, and not by the worker.
    world
        .cloud
        .open_front_door(&world.worker.url, &[AUDIENCE], &[CALLER, WORKER]);
    world.cloud.give("worker", "run.routes.invoke", "service");
    let words = [
        "the worker refused the caller (HTTP 403, request.forbidden",
        &format!("PUSH_SERVICE_ACCOUNT must list {WORKER}"),
    ];
    refused(&mine, &google, &words).await;
    let other = "https://other.example";
    world.cloud.open_front_door(&world.worker.url, &[other], &[CALLER]);
    let words = ["the worker refused the caller", &format!("PUSH_AUDIENCE {other}")];
    refused(&[&impersonated[..], &["--audience", other]].concat(), &google, &words).await;
    // A worker that wants signatures, behind a front end that removes them.
    world = private(&[("PUSH_AUTH", "oidc")]).await;
    world.cloud.allow_token_creator(WORKER, CALLER);
    let google = on_google(&world.cloud);
    let arguments = [
        "submit",
        &input,
        "--service",
        door(&world),
        "--impersonate",
        CALLER,
        "--audience",
        AUDIENCE,
    ];
    let words = ["the worker refused the token (HTTP 401", "PUSH_AUTH=cloud-run-iam"];
    refused(&arguments, &google, &words).await;
}

#[tokio::test]
async fn a_topic_takes_jobs_and_the_subscription_brings_their_results_and_loses_no_others() {
    let world = World::start().await;
    world.upload_fixture("documents/plain/prices.csv", "prices.csv").await;
    world.upload_fixture("documents/plain/readme.txt", "readme.txt").await;
    let (_file, environment) = person(&world.cloud);
    let (prices, readme) = (source("prices.csv"), source("readme.txt"));
    let of_others = [
        json!({"jobId": "0", "messageId": "of-others", "status": "succeeded"}).to_string(),
        "no JSON at all".to_owned(),
    ];
    for data in &of_others {
        world
            .cloud
            .publish("results", data.as_bytes(), &[("foreign", "yes")])
            .unwrap();
    }
    let full = "projects/local-project/subscriptions/results";
    let arguments = [
        "submit", &prices, &readme, "--topic", "events", "--wait", full, "--to", "txt",
    ];
    let output = platen(&arguments, &environment).await;
    // A sheet has no plain text in this version; the other has its result all the same.
    let made = results(&output);
    assert_eq!(
        (output.status.code(), made.len()),
        (Some(1), 2),
        "{}\n{}",
        stderr(&output),
        world.worker.log()
    );
    assert_eq!(result_of(&made, "readme.txt")["status"], "succeeded");
    assert_eq!(result_of(&made, "prices.csv")["error"]["code"], "option.invalid");
    assert_eq!(
        world.cloud.backlog(full).unwrap(),
        of_others.len(),
        "ours are acknowledged, and no other"
    );

    // What was given back is there for the next reader at once, long before its ack deadline of 600 s.
    let pulled = world
        .http
        .post(format!("{}/v1/{full}:pull", world.cloud.urls().pubsub))
        .bearer_auth(world.cloud.access_token(USER))
        .json(&json!({"maxMessages": 10, "returnImmediately": true}));
    let pulled: Value = pulled.send().await.unwrap().json().await.unwrap();
    let messages = pulled["receivedMessages"].as_array().unwrap();
    assert!(
        messages
            .iter()
            .all(|message| message["message"]["attributes"]["foreign"] == "yes"),
        "{pulled}"
    );
    assert_eq!(messages.len(), of_others.len());

    // Without --wait nothing is printed: a topic answers nothing.
    let output = platen(
        &["submit", &readme, "--topic", "projects/local-project/topics/events"],
        &environment,
    )
    .await;
    assert_eq!(
        (output.status.code(), &output.stdout[..]),
        (Some(0), &b""[..]),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("published gs://input/readme.txt as message "),
        "{}",
        stderr(&output)
    );
    assert_eq!(world.result().await.data["status"], "succeeded");
}

#[tokio::test]
async fn with_a_service_and_a_subscription_the_results_come_from_the_subscription() {
    let world = private(&[]).await;
    world.upload_fixture("documents/plain/readme.txt", "readme.txt").await;
    world.cloud.allow_token_creator(USER, CALLER);
    let input = source("readme.txt");
    let to = [
        "--service",
        door(&world),
        "--audience",
        AUDIENCE,
        "--impersonate",
        CALLER,
        "--wait",
        "results",
    ];
    let (_file, environment) = person(&world.cloud);
    let output = platen(&[&["submit", &input, &input][..], &to[..]].concat(), &environment).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\n{}",
        stderr(&output),
        world.worker.log()
    );
    let made = results(&output);
    assert_eq!(made.len(), 1, "one job, though it was sent twice");
    assert_eq!(made[0]["status"], "succeeded");
}

#[tokio::test]
async fn a_result_that_never_comes_is_missed_by_name_and_others_go_back() {
    let cloud = World::with(&[]).await;
    let subscription = platen::local_cloud::Subscription {
        name: "elsewhere",
        topic: "results",
        ack_deadline_seconds: Some(600),
        ..Default::default()
    };
    cloud.cloud.create_topic("nobody-listens").unwrap();
    let name = cloud.cloud.create_subscription(&subscription).unwrap();
    cloud.cloud.publish("results", b"{}", &[]).unwrap();
    let input = source("a.docx");
    let arguments = [
        "submit",
        &input,
        "--topic",
        "nobody-listens",
        "--wait",
        "elsewhere",
        "--timeout",
        "500ms",
    ];
    let (_file, environment) = person(&cloud.cloud);
    let output = platen(&arguments, &environment).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("gs://input/a.docx: no result came in time"),
        "{}",
        stderr(&output)
    );
    assert_eq!(cloud.cloud.backlog(&name).unwrap(), 1);
}

/// A service behind no front end, which takes any token.
async fn at(service: &Peer, more: &[&str]) -> Output {
    let cloud = platen::local_cloud::LocalCloud::start(platen::local_cloud::Settings::default())
        .await
        .unwrap();
    let arguments = [&["submit", "gs://in/a.docx", "--service", &service.url][..], more].concat();
    platen(&arguments, &on_google(&cloud)).await
}

fn good() -> Reply {
    Reply::json(200, json!({"status": "succeeded", "jobId": "1"}))
}

fn busy(status: u16) -> Reply {
    Reply::json(
        status,
        json!({"error": {"code": "worker.busy", "message": "Every conversion slot is taken."}}),
    )
}

#[tokio::test]
async fn a_service_that_is_busy_is_asked_again_and_one_that_stays_so_is_left() {
    let service = Peer::replies(vec![
        busy(429).with("Retry-After", "0"),
        Reply::Full(503, vec![("Content-Type", "text/html".into())], b"<html>".to_vec()),
        Reply::Full(
            429,
            vec![("Content-Type", "text/plain".into())],
            b"Rate exceeded.".to_vec(),
        ),
        good(),
    ]);
    let output = at(&service, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let requests = service.requests();
    assert_eq!(requests.len(), 4);
    for request in &requests {
        assert_eq!(request.header("prefer"), Some("return=representation"));
        assert_eq!(request.json(), json!({"source": "gs://in/a.docx"}));
        assert_eq!(
            request.header("authorization"),
            requests[0].header("authorization"),
            "one token for all"
        );
    }

    let service = Peer::replies(vec![busy(429).with("Retry-After", "3600")]);
    let output = at(&service, &[]).await;
    assert_eq!(
        (output.status.code(), service.requests().len()),
        (Some(1), 1),
        "it asks for more than there is"
    );
    assert!(
        stderr(&output).contains("HTTP 429, worker.busy: Every conversion slot is taken.; no time is left"),
        "{}",
        stderr(&output)
    );

    let stalls = Peer::replies(vec![Reply::Stall]);
    let output = at(&stalls, &["--timeout", "300ms"]).await;
    assert!(
        stderr(&output).contains("no answer came in time"),
        "{}",
        stderr(&output)
    );
}

#[tokio::test]
async fn a_token_that_is_about_to_end_is_replaced_before_it_is_used_again() {
    use base64::Engine as _;
    let encode = |text: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    for (left, tokens) in [(30, 4), (3600, 1)] {
        let metadata = Peer::start(move |request, number| {
            let claims = json!({"aud": "a", "exp": chrono::Utc::now().timestamp() + left, "n": number});
            let token = format!("e30.{}.e30", encode(claims.to_string()));
            let reply = match request.target.contains("/identity?") {
                true => Reply::Full(200, Vec::new(), token.into_bytes()),
                false => Reply::status(404),
            };
            reply.with("Metadata-Flavor", "Google")
        });
        let service = Peer::replies(vec![busy(429).with("Retry-After", "0"), busy(503), good()]);
        let host = metadata.url.trim_start_matches("http://").to_owned();
        let environment = HashMap::from([("GCE_METADATA_HOST".to_owned(), host)]);
        let output = platen(&["submit", "gs://in/a.docx", "--service", &service.url], &environment).await;
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let asked = metadata
            .requests()
            .iter()
            .filter(|request| request.target.contains("/identity?"))
            .count();
        assert_eq!(
            asked, tokens,
            "one before all, then one for each of three calls, or none"
        );
    }
}

#[tokio::test]
async fn what_a_retry_does_not_mend_is_not_tried_again() {
    let html = |status| {
        Reply::Full(
            status,
            vec![("Content-Type", "text/html".into())],
            b"<html>ya29.x".to_vec(),
        )
    };
    let cases = [
        (html(404), "no service at"),
        (html(302).with("Location", "/login"), "redirects (HTTP 302)"),
        (html(500), "answered HTTP 500 without a worker's words"),
        (
            Reply::json(400, json!({"error": {"code": "request.not_an_event", "message": "no"}})),
            "HTTP 400, request.not_an_event: no",
        ),
        (Reply::status(204), "the worker ignored it"),
        (
            Reply::Full(200, Vec::new(), b"<html>".to_vec()),
            "not the JSON expected",
        ),
        (html(401), "refused the token (HTTP 401)"),
    ];
    for (reply, why) in cases {
        let service = Peer::replies(vec![reply]);
        let output = at(&service, &[]).await;
        let said = stderr(&output);
        assert_eq!((output.status.code(), service.requests().len()), (Some(1), 1), "{said}");
        assert!(said.contains(why) && said.contains("gs://in/a.docx: "), "{why}: {said}");
        assert!(!said.contains("ya29") && !said.contains("eyJ"), "{said}");
    }
}

/// Messages quote the names of objects, and whoever uploads chooses those.
#[tokio::test]
async fn no_word_of_a_result_reaches_the_terminal_as_a_command() {
    let message = "there is no \u{1b}]0;owned\u{7}\u{9b}2J\r\nplaten: all is well";
    let result = json!({"status": "failed", "error": {"code": "source.not_found", "message": message}});
    let output = at(&Peer::replies(vec![Reply::json(200, result)]), &[]).await;
    let said = stderr(&output);
    assert!(said.contains("source.not_found: there is no "), "{said:?}");
    assert!(!said.trim_end().contains(char::is_control), "{said:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(
        !printed.trim_end().contains(['\u{1b}', '\u{7}', '\r', '\n']),
        "{printed:?}"
    );
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_with_its_command() {
    let pubsub = Peer::replies(vec![Reply::json(
        403,
        json!({"error": {"code": 403, "message": "User not authorized."}}),
    )]);
    let cloud = platen::local_cloud::LocalCloud::start(platen::local_cloud::Settings::default())
        .await
        .unwrap();
    let mut environment = on_google(&cloud);
    let host = pubsub.url.trim_start_matches("http://").to_owned();
    environment.insert("PUBSUB_EMULATOR_HOST".to_owned(), host);
    let output = platen(&["submit", "gs://in/a.docx", "--topic", "jobs"], &environment).await;
    assert_eq!(output.status.code(), Some(1));
    let grant = format!(
        "gcloud pubsub topics add-iam-policy-binding jobs --project=local-project \
         --member='serviceAccount:{WORKER}' --role=roles/pubsub.publisher"
    );
    assert!(stderr(&output).contains(&grant), "{}", stderr(&output));
}

#[tokio::test]
async fn a_command_line_that_is_wrong_sends_nothing() {
    let nobody = Peer::replies(vec![good()]);
    let url = nobody.url.as_str();
    let cloud = platen::local_cloud::LocalCloud::start(platen::local_cloud::Settings::default())
        .await
        .unwrap();
    let environment = on_google(&cloud);
    let cases: [(&[&str], &str); 12] = [
        (&["gs://in/a.docx"], "--service"),
        (&["--service", url], "gs://BUCKET/OBJECT"),
        (
            &["gs://in/a.docx", "--service", url, "--topic", "t"],
            "cannot be used with",
        ),
        (
            &["gs://in/a.docx", "--topic", "t", "--audience", "x"],
            "cannot be used with",
        ),
        (&["in/a.docx", "--service", url], "gs://BUCKET/OBJECT"),
        (&["gs://in/a.docx", "gs://in", "--service", url], "gs://BUCKET/OBJECT"),
        (&["gs://in/a.docx", "--service", url, "--to", "docm"], "output format"),
        (
            &["gs://in/a.docx", "--service", url, "--option", "quality=200"],
            "quality",
        ),
        (
            &["gs://in/a.docx", "--service", "http://worker.example"],
            "write https://HOST",
        ),
        (
            &["gs://in/a.docx", "--service", url, "--option", "userPassword=canary"],
            "never an option",
        ),
        (
            &["gs://in/a.docx", "--service", url, "--option", "password=canary"],
            "never an option",
        ),
        (&["gs://in/a.docx", "--service", url, "--timeout", "soon"], "--timeout"),
    ];
    for (arguments, why) in cases {
        let output = platen(&[&["submit"], arguments].concat(), &environment).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(64), "{said}");
        assert!(said.contains(why) && !said.contains("canary"), "{why}: {said}");
    }
    assert!(nobody.requests().is_empty());
}
