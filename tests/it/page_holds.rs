//! The page of `platen local` when it is not treated kindly: what others publish, documents that come in every way, faults, the
//! command's end and its return, and people who use a keyboard, a screen reader or a small screen.

use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use reqwest::Method;
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::harness::{fixture, signal};
use crate::local_command::Local;

/// The newest row.
const NEWEST: &str = "document.querySelector('#jobs > li')";
const NOTICE: &str = "document.getElementById('notice').textContent";

async fn opened() -> Option<(Local, Browser)> {
    let browser = Browser::start()?;
    let local = Local::start();
    open(&browser, &local).await;
    Some((local, browser))
}

async fn open(browser: &Browser, local: &Local) {
    browser.open(local.url("page")).await;
    let ready = "document.querySelectorAll('.output').length === 1 && document.getElementById('worker').dataset.state === 'ready'";
    browser.until("the options are there", ready).await;
}

async fn newest_is(browser: &Browser, name: &str, state: &str) {
    let expression =
        format!("{NEWEST}?.dataset.state === '{state}' && {NEWEST}.querySelector('.name').textContent === '{name}'");
    browser.until(&format!("{name} {state}"), &expression).await;
}

fn invoice() -> Vec<PathBuf> {
    vec![fixture("documents/plain/invoice.docx")]
}

/// Publishes as anybody with the right to does.
async fn publish(local: &Local, topic: &str, data: &Value) {
    let url = format!(
        "{}/v1/projects/local-project/topics/{topic}:publish",
        local.url("pubsub")
    );
    let body = json!({"messages": [{"data": STANDARD.encode(data.to_string())}]});
    let request = local.http.post(url).bearer_auth(local.token().await).json(&body);
    assert_eq!(request.send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn what_others_publish_stands_in_nobodys_way() {
    let Some((local, browser)) = opened().await else { return };
    for job in [
        json!({"source": "gs://documents/<img src=x onerror=alert(1)>", "outputs": "pdf"}),
        json!({"source": "gs://documents/b", "outputs": [null, 1, {"format": {"a": 1}, "options": null}], "signedUrl": 1}),
    ] {
        publish(&local, "document-events", &job).await;
    }
    let output = json!({"name": "x.pdf", "format": "pdf", "contentType": "application/pdf", "signedUrl": "javascript:document.title='obeyed'"});
    for result in [
        json!({"x": 1}),
        json!([1]),
        json!({"status": "succeeded", "messageId": "a", "outputs": [output]}),
        json!({"status": "succeeded", "messageId": "b", "outputs": 5, "timings": []}),
        json!({"status": "failed", "messageId": "c", "error": {"code": "<b>", "message": null}}),
        json!({"status": "succeeded", "messageId": "d", "outputs": [{"warnings": 7}], "source": 1}),
    ] {
        publish(&local, "results", &result).await;
    }
    let rows = "document.querySelectorAll('#jobs > li').length === 6";
    browser.until("all but what has no status", rows).await;
    browser.choose("#files", &invoice());
    newest_is(&browser, "invoice.docx", "succeeded").await;
    let names = browser.evaluate("[...document.querySelectorAll('.name')].map((name) => name.textContent)");
    assert!(
        names
            .as_array()
            .unwrap()
            .contains(&json!("<img src=x onerror=alert(1)>")),
        "{names}"
    );
    assert_eq!(
        browser.evaluate("document.querySelectorAll('#jobs img, #jobs b, [href^=javascript]').length"),
        0
    );
    assert!(
        browser
            .evaluate("document.getElementById('jobs').textContent")
            .as_str()
            .unwrap()
            .contains("This cannot be shown")
    );
    // And so it is for who comes later.
    open(&browser, &local).await;
    newest_is(&browser, "invoice.docx", "succeeded").await;
    let words = browser.evaluate("document.getElementById('tally').textContent");
    assert!(words.as_str().unwrap().starts_with("7 jobs: "), "{words}");
}

#[tokio::test]
async fn outputs_open_as_what_they_are_around_all_faults() {
    let local = Local::start();
    // Where the notification starts no job, whose output would replace this one's.
    let generation = local
        .upload("documents/plain/invoice.docx", "with-options/Gr%C3%BC%C3%9Fe%22.docx")
        .await;
    let job = json!({"source": "gs://documents/with-options/Grüße\".docx", "generation": generation,
        "outputs": [{"format": "pdf"}, {"format": "txt"}, {"format": "html"}]});
    local.control(Method::POST, "/api/jobs", &job, 200).await;
    let job = local
        .job("with-options/Grüße\".docx", "three outputs", |job| {
            job["result"]["outputs"][2].is_object()
        })
        .await;
    let fault =
        json!({"peer": "storage", "method": "GET", "pathPrefix": "/", "count": null, "effect": {"status": 503}});
    local.control(Method::POST, "/api/faults", &fault, 200).await;
    let get = |index: usize| {
        let url = format!("{}/api/jobs/{}/outputs/{index}", local.url("page"), job["number"]);
        local.http.get(url).send()
    };
    for (index, content_type, extension) in [(0, "application/pdf", "pdf"), (1, "text/plain; charset=utf-8", "txt")] {
        let answer = get(index).await.unwrap();
        assert_eq!(answer.status(), 200);
        let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
        assert_eq!(header("content-type"), content_type);
        assert_eq!(
            header("content-disposition"),
            format!("inline; filename*=UTF-8''Gr%C3%BC%C3%9Fe%22%2E{extension}")
        );
        assert_eq!(header("x-content-type-options"), "nosniff");
        assert!(header("content-security-policy").contains("default-src 'none'"));
        let output = &job["result"]["outputs"][index];
        assert_eq!(answer.bytes().await.unwrap().len().to_string(), output["size"]);
    }
    // What could act on the page is not shown at its address.
    let answer = get(2).await.unwrap();
    assert_eq!(answer.status(), 404);
    let refusal: Value = answer.json().await.unwrap();
    assert!(
        refusal["error"]["message"].as_str().unwrap().contains("signed URL"),
        "{refusal}"
    );
    let hits = &local.state().await["faultHits"];
    assert_eq!(*hits, json!([]), "the page's own request was hit");
}

#[tokio::test]
async fn a_dead_letter_has_ended_and_is_delivered_again() {
    let Some((local, browser)) = opened().await else { return };
    local
        .control(Method::POST, "/api/worker", &json!({"action": "stop"}), 200)
        .await;
    browser.choose("#files", &invoice());
    newest_is(&browser, "invoice.docx", "failed").await;
    let of = |part: &str| browser.evaluate(&format!("{NEWEST}.querySelector('{part}').textContent"));
    assert_eq!(of(".state"), "dead letter");
    assert!(of(".result").as_str().unwrap().contains("deliver it again"));
    assert_eq!(
        browser.evaluate("document.getElementById('tally').textContent"),
        "1 job: 1 failed"
    );
    assert_eq!(
        browser.evaluate(&format!("{NEWEST}.querySelectorAll('.to-come').length")),
        0
    );
    browser.click("document.querySelector('[data-action=start]')");
    let ready = "document.getElementById('worker').dataset.state === 'ready'";
    browser.until("a worker", ready).await;
    browser.evaluate(&format!("{NEWEST}.querySelector('.more').open = true"));
    browser
        .until("details", &format!("{NEWEST}.querySelector('.again') !== null"))
        .await;
    browser.click(&format!("{NEWEST}.querySelector('.again')"));
    newest_is(&browser, "invoice.docx", "succeeded").await;
    let tally = "document.getElementById('tally').textContent === '2 jobs: 1 failed, 1 succeeded'";
    browser.until("both", tally).await;
    // Said to who listens, when there is a pause.
    browser
        .until(
            "it is read aloud",
            "document.getElementById('said').textContent === document.getElementById('tally').textContent",
        )
        .await;
}

#[tokio::test]
async fn documents_come_by_paste_by_folder_and_by_drop() {
    let Some((local, browser)) = opened().await else { return };
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("reports");
    for name in ["a.txt", "deep/deeper/b ü#%?.txt"] {
        let file = folder.join(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, name).unwrap();
    }
    std::fs::create_dir(folder.join("empty")).unwrap();
    let names = "[...document.querySelectorAll('[data-state=succeeded] .name')].map((name) => name.textContent).sort()";
    let are = |wanted: &Value| format!("JSON.stringify({names}) === {}", json!(wanted.to_string()));

    // What the chooser of folders gives.
    browser.choose("#folder", std::slice::from_ref(&folder));
    let chosen = json!(["reports/a.txt", "reports/deep/deeper/b ü#%?.txt"]);
    browser.until("chosen", &are(&chosen)).await;
    browser.drop_on("#drop", &[folder.join("deep"), fixture("documents/plain/invoice.docx")]);
    let dropped = json!([
        "deep/deeper/b ü#%?.txt",
        "invoice.docx",
        "reports/a.txt",
        "reports/deep/deeper/b ü#%?.txt"
    ]);
    browser.until("dropped", &are(&dropped)).await;

    // A picture that was copied somewhere, and Ctrl-V.
    let permissions = json!({"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]});
    browser.call("Browser.grantPermissions", &permissions);
    browser.evaluate(
        "(async () => { const picture = new OffscreenCanvas(40, 40); picture.getContext('2d').fillRect(5, 5, 20, 20); \
         await navigator.clipboard.write([new ClipboardItem({'image/png': await picture.convertToBlob()})]); })()",
    );
    browser.call(
        "Input.dispatchKeyEvent",
        &json!({"type": "keyDown", "key": "v", "code": "KeyV", "modifiers": 2, "commands": ["paste"]}),
    );
    newest_is(&browser, "image.png", "succeeded").await;
    assert_eq!(browser.evaluate(NOTICE), "");

    // Nothing in it; nothing of it that can be uploaded; and the folder whose notifications are left out.
    browser.drop_on("#drop", &[folder.join("empty")]);
    browser
        .until("said", &format!("{NOTICE} === 'there is no file in it'"))
        .await;
    let long = directory.path().join("l".repeat(200));
    let mut deep = long.clone();
    for _ in 0..5 {
        deep.push("d".repeat(200));
    }
    std::fs::create_dir_all(&deep).unwrap();
    for name in ["1.txt", "2.txt"] {
        std::fs::write(deep.join(name), name).unwrap();
    }
    browser.drop_on("#drop", &[long]);
    browser
        .until(
            "said",
            &format!("{NOTICE}.endsWith('2 of 2 documents were not uploaded')"),
        )
        .await;
    assert!(
        browser
            .evaluate(NOTICE)
            .as_str()
            .unwrap()
            .contains("Invalid object name")
    );
    let unannounced = directory.path().join("with-options");
    std::fs::create_dir(&unannounced).unwrap();
    std::fs::write(unannounced.join("c.txt"), "c").unwrap();
    browser.drop_on("#drop", &[unannounced]);
    newest_is(&browser, "c.txt", "succeeded").await;
    let jobs = local.control(Method::GET, "/api/jobs", &Value::Null, 200).await;
    assert_eq!(
        jobs.as_array().unwrap().last().unwrap()["source"],
        "gs://documents/with-options/c.txt"
    );
}

#[tokio::test]
async fn live_changes_take_neither_focus_nor_selection() {
    let Some((local, browser)) = opened().await else { return };
    // A right, taken away by keyboard and given back.
    browser.evaluate("for (const part of document.querySelectorAll('#breaking details')) part.open = true");
    browser.evaluate("document.querySelector('#rights input').focus()");
    for left in [1, 0] {
        browser.press(" ");
        let shown = format!("document.querySelectorAll('#rights input:not(:checked)').length === {left}");
        browser.until("it is shown", &shown).await;
        assert_eq!(
            browser.evaluate("document.activeElement === document.querySelector('#rights input')"),
            true
        );
    }
    // The variables can be copied while the state is looked at, and the worker is not announced again and again.
    browser.evaluate(
        "getSelection().selectAllChildren(document.getElementById('environment')); window.asked = performance.getEntriesByName(new URL('api/state', location)).length; window.said = 0; \
         new MutationObserver((changes) => { said += changes.length; }).observe(document.getElementById('worker'), {childList: true, subtree: true, characterData: true})",
    );
    browser
        .until(
            "the state was asked for twice",
            "performance.getEntriesByName(new URL('api/state', location)).length >= asked + 3",
        )
        .await;
    assert!(
        browser
            .evaluate("getSelection().toString()")
            .as_str()
            .unwrap()
            .contains("export ")
    );
    assert_eq!(browser.evaluate("said"), 0);

    // Details that are open, with the focus on their button, while deliveries fail.
    let fault = json!({"peer": "iam", "count": null, "effect": {"status": 503}});
    local.control(Method::POST, "/api/faults", &fault, 200).await;
    browser.choose("#files", &invoice());
    browser.until("a row", &format!("{NEWEST} !== null")).await;
    browser.evaluate(&format!("{NEWEST}.querySelector('.more').open = true"));
    browser
        .until("details", &format!("{NEWEST}.querySelector('.again') !== null"))
        .await;
    browser.evaluate(&format!("{NEWEST}.querySelector('.again').focus()"));
    let deliveries = format!("{NEWEST}.querySelector('dl').textContent.includes('Delivery 2')");
    browser.until("another delivery", &deliveries).await;
    assert_eq!(
        browser.evaluate(&format!("document.activeElement === {NEWEST}.querySelector('.again')")),
        true
    );
    assert_eq!(browser.evaluate(&format!("{NEWEST}.querySelector('.more').open")), true);
    browser.click("document.getElementById('clear')");
    newest_is(&browser, "invoice.docx", "succeeded").await;
}

#[tokio::test]
async fn every_switch_breaks_what_it_says_and_mends_it() {
    let Some((local, browser)) = opened().await else { return };
    let first = local.state().await;
    let count = browser
        .evaluate("document.querySelectorAll('#toggles input').length")
        .as_u64()
        .unwrap();
    assert_eq!(count, 6);
    for index in 0..count {
        let switch = format!("document.querySelectorAll('#toggles input')[{index}]");
        browser.click(&switch);
        browser.until("it is on", &format!("{switch}.checked && fetch('api/state').then((answer) => answer.json()).then(({{rights, faults}}) => rights.filter((one) => !one.granted).length + faults.length === 1)")).await;
        let state = local.state().await;
        // Another tab has switched the same on: off is off.
        if let Some(fault) = state["faults"].as_array().unwrap().first() {
            local.control(Method::POST, "/api/faults", fault, 200).await;
        }
        browser.click(&switch);
        browser.until("it is off", &format!("fetch('api/state').then((answer) => answer.json()).then(({{rights, faults}}) => !{switch}.checked && rights.every((one) => one.granted) && !faults.length)")).await;
    }
    let last = local.state().await;
    assert_eq!((&first["rights"], &first["faults"]), (&last["rights"], &last["faults"]));
    // All of it, and what it loaded, came from its own port.
    let loaded = browser.evaluate("performance.getEntriesByType('resource').map((one) => one.name)");
    let loaded = loaded.as_array().unwrap();
    let own = format!("{}/", local.url("page"));
    assert!(
        loaded.iter().any(|one| one.as_str().unwrap().ends_with("/jobs.js")),
        "{loaded:?}"
    );
    assert!(
        loaded.iter().all(|one| one.as_str().unwrap().starts_with(&own)),
        "{loaded:?}"
    );
}

#[tokio::test]
async fn it_says_that_the_command_has_ended_and_goes_on_with_the_next() {
    let Some(browser) = Browser::start() else { return };
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
        .to_string();
    let mut local = Local::with(&["--port", &port]);
    open(&browser, &local).await;
    browser.choose("#files", &invoice());
    newest_is(&browser, "invoice.docx", "succeeded").await;
    signal(local.child.id(), Signal::SIGINT);
    local.child.wait().unwrap();
    let ended = "document.getElementById('worker').textContent.startsWith('platen local has ended')";
    browser.until("it says so", ended).await;
    browser.choose("#files", &invoice());
    browser
        .until(
            "an upload says so",
            &format!("{NOTICE} === 'invoice.docx: platen local does not answer: has it ended?'"),
        )
        .await;

    // Another program has the port for a while: an event stream that is answered otherwise does not come again by itself.
    let other = std::net::TcpListener::bind(("127.0.0.1", port.parse::<u16>().unwrap())).unwrap();
    let answering = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        loop {
            let (mut stream, _) = other.accept().unwrap();
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or(0);
            let _gone =
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone");
            if head[..read].windows(11).any(|part| part == b"/api/events") {
                return;
            }
        }
    });
    answering.join().unwrap();
    assert_eq!(browser.evaluate(ended), true);
    let local = Local::with(&["--port", &port]);
    let ready = "document.getElementById('worker').dataset.state === 'ready' && document.querySelectorAll('#jobs > li').length === 0";
    browser
        .until("the next one's state, without the jobs of the last", ready)
        .await;
    local.upload("documents/plain/invoice.docx", "next.docx").await;
    newest_is(&browser, "next.docx", "succeeded").await;
}

/// The least contrast of the texts on the page, and of the edges of its controls, as WCAG 2 reckons; with what has it.
const CONTRAST: &str = r"
(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (colour) => colour
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const ratio = (one, other) => {
    const [high, low] = [luminance(one), luminance(other)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (node) => {
    const all = [];
    for (let at = node; at; at = at.parentElement) all.unshift(getComputedStyle(at).backgroundColor);
    return all;
  };
  const opacity = (node) => (node ? Number(getComputedStyle(node).opacity) * opacity(node.parentElement) : 1);
  let text = [99];
  let edge = [99];
  for (const node of document.querySelectorAll('body *')) {
    if (!node.checkVisibility()) continue;
    const style = getComputedStyle(node);
    if ([...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim())) {
      const [, red, green, blue] = /(\d+), (\d+), (\d+)/.exec(style.color);
      const back = behind(node);
      const value = ratio(over([...back, `rgba(${red}, ${green}, ${blue}, ${opacity(node)})`]), over(back));
      if (value < text[0]) text = [value, `${node.className} ${node.textContent}`];
    }
    if (node.matches('button, select, input:not([type=checkbox], [type=file])')) {
      const value = ratio(over([...behind(node.parentElement), style.borderTopColor]), over(behind(node.parentElement)));
      if (value < edge[0]) edge = [value, node.outerHTML];
    }
  }
  return { text, edge };
})()";

#[tokio::test]
async fn it_is_read_on_small_screens_in_the_dark_and_aloud() {
    let Some((local, browser)) = opened().await else { return };
    let fault = json!({"peer": "iam", "count": null, "effect": {"status": 503}});
    browser.choose("#files", &invoice());
    newest_is(&browser, "invoice.docx", "succeeded").await;
    browser
        .until(
            "all steps",
            &format!("{NEWEST}.querySelectorAll('.steps .good').length === 8"),
        )
        .await;
    let line = |selector: &str| {
        format!("new Set([...{NEWEST}.querySelectorAll('{selector}')].map((one) => one.offsetTop)).size === 1")
    };
    let wide = json!({"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": false});
    browser.call("Emulation.setDeviceMetricsOverride", &wide);
    assert_eq!(
        browser.evaluate(&line(".steps li")),
        true,
        "the steps are one line on a wide screen"
    );
    browser.choose("#files", &[fixture("documents/hostile/random-bytes.docx")]);
    newest_is(&browser, "random-bytes.docx", "failed").await;
    browser.pictures("failure");
    local.control(Method::POST, "/api/faults", &fault, 200).await;
    let mut under_way = invoice();
    under_way.push(fixture("documents/plain/letter.doc"));
    browser.choose("#files", &under_way);
    browser
        .until(
            "steps to come",
            "document.querySelector('.steps .to-come') !== null && document.querySelector('.steps .bad') !== null",
        )
        .await;
    browser.pictures("faults");
    browser.evaluate("for (const part of document.querySelectorAll('details')) part.open = true");
    for (width, scheme) in [
        (1280, "light"),
        (1280, "dark"),
        (640, "light"),
        (320, "light"),
        (320, "dark"),
    ] {
        let metrics = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", &metrics);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.call("Emulation.setEmulatedMedia", &json!({"features": features}));
        let beyond = browser.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(beyond, 0, "{width} pixels are enough");
        let filter = browser.evaluate(
            "(([which, label, named]) => Math.abs(which.top - named.top) < which.height && which.right <= label.left && label.left < named.left && named.width > 40)\
             (['#which', '.filter label:has(#named)', '#named'].map((one) => document.querySelector(one).getBoundingClientRect()))",
        );
        assert_eq!(filter, true, "the filter is one line at {width}");
        let contrast = browser.evaluate(CONTRAST);
        assert!(
            contrast["text"][0].as_f64().unwrap() >= 4.5,
            "{width} {scheme}: {contrast}"
        );
        assert!(
            contrast["edge"][0].as_f64().unwrap() >= 3.0,
            "{width} {scheme}: {contrast}"
        );
    }
    // Every control has a name that says what it is for, and no two links of the page have the same one.
    browser.call("Accessibility.enable", &json!({}));
    let tree = browser.call("Accessibility.getFullAXTree", &json!({}));
    for node in tree["nodes"].as_array().unwrap() {
        let role = node["role"]["value"].as_str().unwrap_or_default();
        if [
            "button",
            "link",
            "checkbox",
            "switch",
            "textbox",
            "searchbox",
            "combobox",
            "spinbutton",
            "progressbar",
        ]
        .contains(&role)
        {
            assert!(!node["name"]["value"].as_str().unwrap_or_default().is_empty(), "{node}");
        }
    }
}
