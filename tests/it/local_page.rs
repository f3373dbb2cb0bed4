//! The page of `platen local` in a real browser: documents dropped and chosen, jobs watched, links used, things broken.

use std::path::PathBuf;

use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::harness::{fixture, until};
use crate::local_command::Local;

/// The newest row.
const NEWEST: &str = "document.querySelector('#jobs > li')";

async fn opened() -> Option<(Local, Browser)> {
    let browser = Browser::start()?;
    let local = Local::start();
    browser.open(local.url("page")).await;
    browser
        .until(
            "the options are there",
            "document.querySelectorAll('.output').length === 1",
        )
        .await;
    Some((local, browser))
}

fn document(name: &str) -> Vec<PathBuf> {
    vec![fixture(&format!("documents/{name}"))]
}

async fn newest_is(browser: &Browser, state: &str) {
    let expression = format!("{NEWEST}?.dataset.state === '{state}'");
    browser.until(state, &expression).await;
}

fn text(browser: &Browser, expression: &str) -> String {
    let value = browser.evaluate(&format!("({expression}).textContent"));
    value
        .as_str()
        .unwrap_or_else(|| panic!("{expression}: {value}"))
        .to_owned()
}

#[tokio::test]
async fn a_document_is_followed_to_its_pdf() {
    let Some((local, browser)) = opened().await else { return };
    browser.pictures("empty");
    browser.choose("#files", &document("plain/invoice.docx"));
    newest_is(&browser, "succeeded").await;
    browser
        .until(
            "all steps are shown",
            &format!("{NEWEST}.querySelectorAll('.steps .good').length === 8"),
        )
        .await;
    let steps = browser.evaluate(&format!(
        "[...{NEWEST}.querySelectorAll('.steps li')].map((step) => step.dataset.step)"
    ));
    assert_eq!(
        steps,
        json!([
            "uploaded",
            "delivered",
            "fetched",
            "converted",
            "stored",
            "signed",
            "published",
            "acknowledged"
        ])
    );
    let times = browser.evaluate(&format!(
        "[...{NEWEST}.querySelectorAll('.steps .number')].map(({{ textContent }}) => parseFloat(textContent) * (textContent.endsWith('ms') ? 1 : 1000))"
    ));
    let times: Vec<f64> = serde_json::from_value(times).unwrap();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!(
        text(&browser, &format!("{NEWEST}.querySelector('.name')")),
        "invoice.docx"
    );

    // The link, as copied, and what it leads to.
    let permissions = json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.call("Browser.grantPermissions", &permissions);
    browser.click(&format!("{NEWEST}.querySelector('.copy')"));
    browser
        .until(
            "it is copied",
            &format!("{NEWEST}.querySelector('.copy').textContent === 'Copied'"),
        )
        .await;
    let copied = browser.evaluate("navigator.clipboard.readText()");
    assert_eq!(
        copied,
        browser.evaluate(&format!("{NEWEST}.querySelector('.signed').href"))
    );
    let answer = local.http.get(copied.as_str().unwrap()).send().await.unwrap();
    assert!(answer.bytes().await.unwrap().starts_with(b"%PDF-"));
    let shown = browser.evaluate(&format!(
        "fetch({NEWEST}.querySelector('.open').href).then(async (answer) => [answer.headers.get('content-type'), (await answer.text()).slice(0, 5)])"
    ));
    assert_eq!(shown, json!(["application/pdf", "%PDF-"]));
    let expires = text(&browser, &format!("{NEWEST}.querySelector('.expires')"));
    // Within the first second it is the whole hour.
    let hour = ["expires in 59 min", "expires in 60 min"];
    assert!(hour.iter().any(|text| expires.starts_with(text)), "{expires}");

    // Its result message, and the same message again: the job is done, and says so under the same id.
    browser.click(&format!("{NEWEST}.querySelector('.more summary')"));
    browser
        .until("details", &format!("{NEWEST}.querySelector('.more pre') !== null"))
        .await;
    let result: Value = serde_json::from_str(&text(&browser, &format!("{NEWEST}.querySelector('.more pre')"))).unwrap();
    assert_eq!(result["status"], "succeeded");
    browser.pictures("succeeded");
    browser.click(&format!("{NEWEST}.querySelector('.again')"));
    browser
        .until("another row", "document.querySelectorAll('#jobs > li').length === 2")
        .await;
    newest_is(&browser, "succeeded").await;
    let jobs = local.control(Method::GET, "/api/jobs", &Value::Null, 200).await;
    assert_eq!(jobs[0]["result"]["jobId"], jobs[1]["result"]["jobId"]);
    assert_ne!(jobs[0]["messageId"], jobs[1]["messageId"]);
}

#[tokio::test]
async fn options_make_a_job_and_its_link_is_seen_to_expire() {
    let Some((local, browser)) = opened().await else { return };
    browser.evaluate("document.getElementById('asking').open = true");
    let set = |field: &str, value: &str| {
        browser.evaluate(&format!(
            "((control) => {{ control.value = {}; for (const type of ['input', 'change']) control.dispatchEvent(new Event(type, {{ bubbles: true }})); }})(document.querySelector({}))",
            json!(value), json!(field)
        ));
    };
    set(".output-head select", "png");
    browser.evaluate("document.querySelector('.options').open = true");
    set("[data-name=width] input", "400");
    set("[data-name=ttl] input", "2s");
    browser.pictures("options");
    // What the schema does not allow is not sent.
    set("[data-name=ttl] input", "soon");
    browser.choose("#files", &document("plain/invoice.docx"));
    assert_eq!(
        browser.evaluate("document.getElementById('job-form').checkValidity()"),
        false
    );
    set("[data-name=ttl] input", "2s");
    browser.choose("#files", &document("plain/invoice.docx"));
    newest_is(&browser, "succeeded").await;
    let jobs = local.control(Method::GET, "/api/jobs", &Value::Null, 200).await;
    assert_eq!(
        jobs.as_array().unwrap().len(),
        1,
        "one job, and none of the notification: {jobs}"
    );
    let asked = &jobs[0]["asked"];
    assert_eq!(asked["outputs"], json!([{"format": "png", "options": {"width": 400}}]));
    assert_eq!(asked["signedUrl"], json!({"ttl": "2s"}));
    assert_eq!(
        text(&browser, &format!("{NEWEST}.querySelector('.asked')")),
        "png width 400, signedUrl ttl 2s"
    );
    browser
        .until(
            "the link has expired",
            &format!("{NEWEST}.querySelector('.expires').textContent === 'link expired'"),
        )
        .await;
    let link = jobs[0]["result"]["outputs"][0]["signedUrl"].as_str().unwrap();
    let answer = local.http.get(link).send().await.unwrap();
    assert_eq!(answer.status(), 400);
    assert!(answer.text().await.unwrap().contains("ExpiredToken"));
}

#[tokio::test]
async fn failures_say_what_to_do_and_what_is_broken_is_coped_with() {
    let Some((local, browser)) = opened().await else { return };
    browser.choose("#files", &document("hostile/random-bytes.docx"));
    newest_is(&browser, "failed").await;
    assert_eq!(
        text(&browser, &format!("{NEWEST}.querySelector('.error code')")),
        "source.unsupported"
    );
    let failures = local.control(Method::GET, "/api/failures", &Value::Null, 200).await;
    let advice = failures["source.unsupported"]["whatToDo"].as_str().unwrap();
    assert_eq!(
        text(&browser, &format!("{NEWEST}.querySelector('.advice')")),
        format!("What to do: {advice}")
    );

    // A switch: the worker may not sign, which a delivery shows, until it may again.
    let switch = "[...document.querySelectorAll('#toggles label')].find((label) => label.textContent.includes('may not sign')).querySelector('input')";
    browser.click(switch);
    until("the right is taken away", || {
        let state = browser.evaluate("fetch('api/state').then((answer) => answer.json())");
        let rights = state["rights"].as_array().unwrap();
        rights.iter().any(|right| right["granted"] == false).then_some(())
    })
    .await;
    browser.choose("#files", &document("plain/invoice.docx"));
    browser
        .until(
            "a delivery is refused",
            &format!(
                "[...{NEWEST}.querySelectorAll('.steps .bad')].some((step) => step.textContent.startsWith('IAM 403'))"
            ),
        )
        .await;
    assert_eq!(browser.evaluate(&format!("{NEWEST}.dataset.state")), "under-way");
    browser.pictures("broken");
    browser.click(switch);
    newest_is(&browser, "succeeded").await;
    let jobs = local.control(Method::GET, "/api/jobs", &Value::Null, 200).await;
    assert!(jobs[1]["deliveries"].as_array().unwrap().len() > 1, "{jobs}");

    let before = local.state().await["worker"]["pid"].clone();
    browser.click("document.querySelector('[data-action=kill]')");
    browser
        .until("another worker", &format!("document.getElementById('worker').textContent.startsWith('worker: ready') && !document.getElementById('worker').textContent.includes('{before}')"))
        .await;
}

/// Counts, in the page, how many rows one turn of its program touches.
const COUNT_ROWS: &str = r"
window.most = 0;
new MutationObserver((changes) => {
  const touched = new Set();
  for (const { target, addedNodes } of changes) {
    const at = target.closest?.('.job');
    if (at && !target.matches('.expires')) touched.add(at);
    for (const node of addedNodes) if (node.matches?.('.job')) touched.add(node);
  }
  window.most = Math.max(window.most, touched.size);
}).observe(document.getElementById('jobs'), { childList: true, subtree: true });
";

#[tokio::test]
async fn two_hundred_documents_at_once() {
    let Some((local, browser)) = opened().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("reports");
    std::fs::create_dir(&folder).unwrap();
    for number in 0..200 {
        std::fs::write(folder.join(format!("{number}.txt")), format!("Report {number}.\n")).unwrap();
    }
    browser.evaluate(COUNT_ROWS);
    browser.drop_on("#drop", &[folder]);
    browser
        .until(
            "a first result",
            "document.querySelector('[data-state=succeeded]') !== null",
        )
        .await;
    // Keys are taken while jobs run, and do their work.
    browser.evaluate("document.getElementById('named').focus()");
    browser.press("/7.txt");
    let typed = browser.evaluate(
        "({value: document.getElementById('named').value, underWay: document.querySelectorAll('[data-state=under-way]').length, \
         shown: [...document.querySelectorAll('.job:not([hidden]) .name')].map((name) => name.textContent)})",
    );
    assert_eq!(typed["value"], "/7.txt");
    assert!(typed["underWay"].as_u64().unwrap() > 0, "all had ended: {typed}");
    let shown: Vec<String> = serde_json::from_value(typed["shown"].clone()).unwrap();
    assert!(shown.iter().all(|name| name == "reports/7.txt"), "{shown:?}");
    browser.evaluate(
        "((field) => { field.value = ''; field.dispatchEvent(new Event('input')); })(document.getElementById('named'))",
    );
    browser.pictures("many");
    let end = "document.querySelectorAll('.job:is([data-state=succeeded], [data-state=failed]):not([hidden])').length === 200";
    browser.until("every job shows its end", end).await;
    let jobs = local.control(Method::GET, "/api/jobs", &Value::Null, 200).await;
    let of = |state: &str| {
        let jobs = jobs.as_array().unwrap().iter();
        jobs.filter(|job| job["state"] == state).count()
    };
    let (succeeded, failed) = (of("succeeded"), of("failed"));
    let states = browser.evaluate(
        "['succeeded', 'failed'].map((state) => document.querySelectorAll(`.job[data-state=${state}]`).length)",
    );
    assert_eq!(states, json!([succeeded, failed]));
    // No more pushes are under way than there are slots, so that none is refused until it is a dead letter.
    assert_eq!((succeeded, failed), (200, 0));
    assert!(text(&browser, "document.getElementById('tally')").starts_with("200 jobs: "));
    assert_eq!(browser.evaluate("document.getElementById('uploading').hidden"), true);
    assert_eq!(browser.evaluate("document.getElementById('notice').textContent"), "");

    let most = browser.evaluate("window.most").as_u64().unwrap();
    assert!((1..=20).contains(&most), "{most} rows in one turn");
    // Nothing that was drawn before is kept: what is in memory is what is on the page.
    browser.call("HeapProfiler.collectGarbage", &json!({}));
    let counters = browser.call("Memory.getDOMCounters", &json!({}));
    let nodes = counters["nodes"].as_u64().unwrap();
    let on_page = "((walker) => { let count = 1; while (walker.nextNode()) count += 1; return count; })(document.createTreeWalker(document))";
    let on_page = browser.evaluate(on_page).as_u64().unwrap();
    assert!(nodes < on_page * 2, "{nodes} nodes are kept, {on_page} are on the page");
    assert!(on_page < 200 * 100, "{on_page} nodes for 200 jobs");
    println!(
        "{succeeded} succeeded, {failed} failed; {on_page} nodes on the page, {nodes} kept, {most} rows in one turn at most"
    );
    drop(local);
}
