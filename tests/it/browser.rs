//! A headless Chromium, driven over its debugging pipe: DevTools messages on its descriptors 3 and 4, each ended by a NUL. No
//! driver and no WebSocket is between.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, until};

/// One tab of a browser of its own.
pub(crate) struct Browser {
    child: Child,
    pipe: Mutex<Pipe>,
    session: String,
    _profile: tempfile::TempDir,
}

struct Pipe {
    to: ChildStdin,
    from: Receiver<Value>,
    last: u64,
}

/// The browser of this machine, if it has one.
fn chromium() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|directory| ["chromium", "chromium-browser", "google-chrome"].map(|name| directory.join(name)))
        .find(|file| file.is_file())
}

impl Browser {
    /// Starts it on an empty page, or says that there is none.
    pub(crate) fn start() -> Option<Self> {
        let Some(chromium) = chromium() else {
            println!("skipped: there is no chromium on the PATH");
            return None;
        };
        let profile = tempfile::tempdir().unwrap();
        let mut child = Command::new("sh")
            .args(["-c", r#"exec "$0" "$@" 3<&0 4>&1 </dev/null >/dev/null"#])
            .arg(chromium)
            .args(["--headless=new", "--remote-debugging-pipe", "--disable-gpu"])
            // Its own sandbox does not start as root, nor in most containers; it sees nothing but the page under test.
            .args(["--no-sandbox", "--disable-dev-shm-usage", "--no-first-run"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (sender, from) = channel();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|read| read > 0) {
                message.pop();
                if sender.send(serde_json::from_slice(&message).unwrap()).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let pipe = Pipe {
            to: child.stdin.take().unwrap(),
            from,
            last: 0,
        };
        let mut browser = Self {
            child,
            pipe: Mutex::new(pipe),
            session: String::new(),
            _profile: profile,
        };
        let made = browser.call("Target.createTarget", &json!({"url": "about:blank"}));
        let attach = json!({"targetId": made["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", &attach)["sessionId"]
            .as_str()
            .unwrap()
            .to_owned();
        Some(browser)
    }

    /// One DevTools command and its result.
    pub(crate) fn call(&self, method: &str, parameters: &Value) -> Value {
        let mut pipe = self.pipe.lock().unwrap();
        pipe.last += 1;
        let id = pipe.last;
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() && !method.starts_with("Browser.") {
            message["sessionId"] = json!(self.session);
        }
        pipe.to.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            // What has no id is an event, and nothing here waits for one.
            let answer = pipe.from.recv_timeout(PATIENCE).unwrap();
            if answer["id"] == id {
                assert!(answer["error"].is_null(), "{method} {parameters}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression, waited for if it is a promise.
    pub(crate) fn evaluate(&self, expression: &str) -> Value {
        let parameters = json!({
            "expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true,
        });
        let answer = self.call("Runtime.evaluate", &parameters);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {}",
            answer["exceptionDetails"]
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub(crate) async fn until(&self, what: &str, expression: &str) {
        let seen = Mutex::new(Value::Null);
        until(what, || {
            let value = self.evaluate(expression);
            let is_true = value == true;
            *seen.lock().unwrap() = value;
            is_true.then_some(())
        })
        .await;
    }

    pub(crate) async fn open(&self, url: &str) {
        self.call("Page.navigate", &json!({"url": url}));
        self.until("the page is there", "document.readyState === 'complete'")
            .await;
    }

    /// Chooses files in an input of files.
    pub(crate) fn choose(&self, selector: &str, files: &[PathBuf]) {
        let expression = format!("document.querySelector({})", json!(selector));
        let input = self.call("Runtime.evaluate", &json!({"expression": expression}));
        let parameters = json!({"objectId": input["result"]["objectId"], "files": files});
        self.call("DOM.setFileInputFiles", &parameters);
    }

    /// Drops files or folders on an element, as from a file manager.
    pub(crate) fn drop_on(&self, selector: &str, files: &[PathBuf]) {
        let place = self.evaluate(&format!(
            "(({{x, y, width, height}}) => [x + width / 2, y + height / 2])(document.querySelector({}).getBoundingClientRect())",
            json!(selector)
        ));
        let data = json!({"items": [], "files": files, "dragOperationsMask": 1});
        for kind in ["dragEnter", "dragOver", "drop"] {
            let parameters = json!({"type": kind, "x": place[0], "y": place[1], "data": data});
            self.call("Input.dispatchDragEvent", &parameters);
        }
    }

    /// Clicks the one element.
    pub(crate) fn click(&self, expression: &str) {
        self.evaluate(&format!("void ({expression}).click()"));
    }

    /// Types on the keyboard, into what has the focus.
    pub(crate) fn press(&self, keys: &str) {
        for key in keys.chars() {
            for (kind, text) in [("keyDown", json!(key)), ("keyUp", Value::Null)] {
                let mut parameters = json!({"type": kind, "key": key});
                if text.is_string() {
                    parameters["text"] = text;
                }
                self.call("Input.dispatchKeyEvent", &parameters);
            }
        }
    }

    /// Keeps pictures of the page, wide and narrow, light and dark, where somebody asks for them.
    pub(crate) fn pictures(&self, name: &str) {
        let Some(directory) = std::env::var_os("PLATEN_SCREENSHOTS") else {
            return;
        };
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")] {
            self.call(
                "Emulation.setDeviceMetricsOverride",
                &json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
            );
            let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
            self.call("Emulation.setEmulatedMedia", &json!({"features": features}));
            let picture = self.call(
                "Page.captureScreenshot",
                &json!({"format": "png", "captureBeyondViewport": false}),
            );
            let picture = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
            std::fs::write(
                Path::new(&directory).join(format!("{name}-{width}-{scheme}.png")),
                picture,
            )
            .unwrap();
        }
        self.call("Emulation.clearDeviceMetricsOverride", &json!({}));
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _already_dead = self.child.kill();
        let _reaped = self.child.wait();
    }
}
