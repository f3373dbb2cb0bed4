//! Programs that print subject tokens: allowed or not run, alone with Google's variables, ended in time, never quoted.

use std::collections::BTreeMap;

use platen::google::http::Http;
use platen::google::token::{Settings, Tokens};
use serde_json::{Value, json};

use super::{CALLER, CANARY, File, SUBJECT, Script, cloud, federation, platen, principal, provider, stderr, tokens};
use crate::harness::until;

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

fn file(script: &Script, more: &Value) -> File {
    let mut executable = json!({"command": format!("{} \"an argument\" --of=it", script.command())});
    for (name, value) in more.as_object().into_iter().flatten() {
        executable[name] = value.clone();
    }
    File::new(&federation(&json!({"executable": executable}), None))
}

fn response(token: &str) -> Value {
    json!({"version": 1, "success": true, "token_type": JWT, "id_token": token, "expiration_time": 4_000_000_000_u64})
}

#[tokio::test]
async fn it_is_run_only_where_the_operator_allows_it() {
    let cloud = cloud().await;
    let script = Script::new(&format!("touch {}", "$(dirname $0)/has-run"));
    let file = file(&script, &json!({}));
    let error = Tokens::discover(Http::new().unwrap(), &file.settings(&cloud))
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1"),
        "{error}"
    );
    for value in ["0", "true", ""] {
        let mut environment = file.environment(&cloud);
        environment.insert("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES".to_owned(), value.to_owned());
        let output = platen(&["token", "--audience", "https://s"], &environment).await;
        assert_eq!(output.status.code(), Some(64), "{}", stderr(&output));
    }
    assert!(!std::path::Path::new(&script.file("has-run")).exists());
}

#[tokio::test]
async fn it_gets_the_variables_that_google_defines_and_none_of_ours() {
    let cloud = cloud().await;
    let token = cloud.token_of_provider(&provider(), SUBJECT);
    let script = Script::new(&format!(
        "d=$(dirname $0); /usr/bin/env > $d/environment; printf '%s\\n' \"$@\" > $d/arguments; \
         ls -l /proc/self/fd > $d/descriptors; echo '{}'",
        response(&token)
    ));
    let output_file = script.file("output");
    let executable = json!({
        "command": format!("{} \"an argument\" --of=it", script.command()), "output_file": output_file,
    });
    let file = File::new(&federation(&json!({"executable": executable}), Some(CALLER)));
    cloud.grant(
        &principal(),
        CALLER,
        platen::local_cloud::AccountRole::WorkloadIdentityUser,
    );
    let mut environment = file.environment(&cloud);
    environment.insert("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES".to_owned(), "1".to_owned());
    environment.insert("A_SECRET_OF_THE_WORKER".to_owned(), CANARY.to_owned());
    let output = platen(&["token", "--audience", "https://s"], &environment).await;
    assert!(output.status.success(), "{}", stderr(&output));
    let seen = script.read("environment");
    let mut seen: BTreeMap<&str, &str> = seen.lines().map(|line| line.split_once('=').unwrap()).collect();
    // What the shell makes for itself.
    for own in ["PWD", "SHLVL", "_", "OLDPWD"] {
        seen.remove(own);
    }
    let (provider, output_file) = (provider(), output_file.as_str());
    let expected = BTreeMap::from([
        ("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", provider.as_str()),
        ("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE", JWT),
        ("GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE", "0"),
        ("GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL", CALLER),
        ("GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE", output_file),
    ]);
    assert_eq!(seen, expected);
    assert_eq!(script.read("arguments"), "an argument\n--of=it\n");
    assert!(
        !script.read("descriptors").contains("socket:"),
        "{}",
        script.read("descriptors")
    );
}

#[tokio::test]
async fn what_an_earlier_run_left_is_used_while_it_is_good() {
    let cloud = cloud().await;
    let token = cloud.token_of_provider(&provider(), SUBJECT);
    let script = Script::new(&format!("echo ran >> $(dirname $0)/runs; echo '{}'", response(&token)));
    let file = file(&script, &json!({"output_file": script.file("output")}));
    let settings = Settings {
        allow_executables: true,
        ..file.settings(&cloud)
    };
    let runs = || std::fs::read_to_string(script.file("runs")).map_or(0, |runs| runs.lines().count());
    let leave = |content: &str| std::fs::write(script.file("output"), content).unwrap();
    let ask = async || tokens(&settings).await.access_token().await.map(drop);
    leave(&response(&token).to_string());
    ask().await.unwrap();
    assert_eq!(runs(), 0, "the file is good");
    let with = |field: &str, value: Value| {
        let mut response = response(&token);
        response[field] = value;
        response.to_string()
    };
    let stale = [
        String::new(),
        "{".to_owned(),
        with("expiration_time", json!(1)),
        with("expiration_time", Value::Null),
        with("success", json!(false)),
        with("version", json!(2)),
        with("id_token", Value::Null),
    ];
    for (number, content) in stale.iter().enumerate() {
        leave(content);
        ask().await.unwrap();
        assert_eq!(runs(), number + 1, "{content}");
    }
}

#[tokio::test]
async fn what_it_says_wrong_is_told_and_what_it_must_not_say_is_not() {
    let cloud = cloud().await;
    let good = response("t");
    let with = |field: &str, value: Value| {
        let mut response = good.clone();
        response[field] = value;
        format!("echo '{response}'")
    };
    let cases = [
        (format!("echo {CANARY}"), "not the JSON that Google defines"),
        (
            format!("echo '{good}'; echo {CANARY}"),
            "not the JSON that Google defines",
        ),
        (format!("echo {CANARY} >&2; exit 3"), "it failed; run it by hand"),
        (
            format!("echo '{}'; exit 1", response(CANARY)),
            "it failed; run it by hand",
        ),
        (
            format!(
                "echo '{}'; exit 1",
                json!({
                    "version": 1, "success": false, "code": "401", "message": format!("nobody is logged in eyJ{CANARY}"),
                })
            ),
            "it says: 401 nobody is logged in [redacted]",
        ),
        (with("version", json!(2)), "version other than 1"),
        (with("token_type", json!(CANARY)), "none of jwt, id_token and saml2"),
        (with("expiration_time", json!(1)), "has expired"),
        (with("id_token", json!("")), "gives no token"),
        (with("id_token", Value::Null), "gives no token"),
    ];
    for (body, why) in cases {
        let script = Script::new(&format!("echo {CANARY} >&2\n{body}"));
        let file = file(&script, &json!({}));
        let mut environment = file.environment(&cloud);
        environment.insert("GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES".to_owned(), "1".to_owned());
        environment.insert("RUST_LOG".to_owned(), "trace".to_owned());
        let arguments = ["token", "--audience", "https://s", "--impersonate", CALLER];
        let output = platen(&arguments, &environment).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.contains(&script.command()), "{why}: {said}");
        assert!(!said.contains(CANARY) && output.stdout.is_empty(), "{said}");
    }
}

#[tokio::test]
async fn saml_goes_to_the_exchange_as_it_is() {
    let google = crate::peer::Peer::replies(vec![crate::peer::Reply::json(
        200,
        json!({"access_token": "t", "expires_in": 3599}),
    )]);
    let saml = json!({
        "version": 1, "success": true, "token_type": "urn:ietf:params:oauth:token-type:saml2",
        "saml_response": "PHNhbWw+", "id_token": "not-this",
    });
    let script = Script::new(&format!("echo '{saml}'"));
    let mut content = federation(&json!({"executable": {"command": script.command()}}), None);
    content["subject_token_type"] = json!("urn:ietf:params:oauth:token-type:saml2");
    let file = File::new(&content);
    let tokens = tokens(&Settings {
        credentials_file: Some(file.path().into()),
        sts_endpoint: Some(google.url.clone()),
        allow_executables: true,
        ..Settings::default()
    })
    .await;
    tokens.access_token().await.unwrap();
    let sent = String::from_utf8(google.requests()[0].body.clone()).unwrap();
    assert!(sent.contains("subject_token=PHNhbWw%2B&"), "{sent}");
    assert!(
        sent.contains("subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Asaml2"),
        "{sent}"
    );
}

/// The shortest time that Google allows is five seconds, which this test takes.
#[tokio::test]
async fn one_that_does_not_end_is_ended_with_all_that_it_started() {
    let cloud = cloud().await;
    let script = Script::new("echo $$ > $(dirname $0)/pids; sleep 1000 & echo $! >> $(dirname $0)/pids; wait");
    let file = file(&script, &json!({"timeout_millis": 5000}));
    let settings = Settings {
        allow_executables: true,
        ..file.settings(&cloud)
    };
    let error = tokens(&settings).await.access_token().await.unwrap_err();
    assert!(
        error.to_string().contains("ended after 5 s without an answer"),
        "{error}"
    );
    let pids = script.read("pids");
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        let state = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let gone = stat.is_empty() || stat.contains(") Z ");
            gone.then_some(())
        };
        until("nothing of the program runs any more", state).await;
    }
}
