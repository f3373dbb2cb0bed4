//! A program that prints the subject token (google.aip.dev/auth/4117, "executable-sourced credentials").
//!
//! It runs only where the operator allows it, gets the variables that Google defines and no other of ours, and what it
//! writes to stderr is seen by nobody: programs like to say there what they know.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::super::file::Context;
use super::source::Subject;
use crate::google::http::clean;
use crate::google::secret::Secret;
use crate::google::{Error, Kind};

const OPERATION: &str = "run the credentials' program";
/// The most that is read of what it prints.
const LIMIT: u64 = 1024 * 1024;
/// As Google's clients have it, in milliseconds.
const DEFAULT_TIMEOUT: u64 = 30_000;
const TIMEOUTS: std::ops::RangeInclusive<u64> = 5_000..=120_000;

#[derive(Deserialize)]
pub(super) struct ExecutableFile {
    command: String,
    timeout_millis: Option<u64>,
    output_file: Option<String>,
}

/// The program and how it is run.
pub(super) struct Executable {
    program: PathBuf,
    arguments: Vec<String>,
    timeout: Duration,
    output_file: Option<PathBuf>,
    environment: Vec<(&'static str, String)>,
}

/// What it prints.
#[derive(Deserialize)]
struct Response {
    version: u32,
    success: bool,
    token_type: Option<String>,
    id_token: Option<Secret>,
    saml_response: Option<Secret>,
    expiration_time: Option<u64>,
    code: Option<String>,
    message: Option<String>,
}

impl ExecutableFile {
    pub(super) fn read(self, context: &Context<'_>, subject: &Subject<'_>) -> Result<Executable, Error> {
        if !context.settings.allow_executables {
            return Err(context.refused(
                "names a program to run for its tokens: set GOOGLE_EXTERNAL_ACCOUNT_ALLOW_EXECUTABLES=1 if you trust it",
            ));
        }
        let mut words = words(&self.command);
        let program = words.next().map(PathBuf::from).filter(|program| program.is_absolute());
        let program = program.ok_or_else(|| {
            context.refused("has an executable.command that does not begin with the absolute path of a program")
        })?;
        let timeout = self.timeout_millis.unwrap_or(DEFAULT_TIMEOUT);
        if !TIMEOUTS.contains(&timeout) {
            return Err(context.refused("has an executable.timeout_millis that is not 5000 to 120000"));
        }
        let mut environment = vec![
            ("GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE", subject.audience.to_owned()),
            ("GOOGLE_EXTERNAL_ACCOUNT_TOKEN_TYPE", subject.token_type.to_owned()),
            ("GOOGLE_EXTERNAL_ACCOUNT_INTERACTIVE", "0".to_owned()),
        ];
        if let Some(email) = subject.account {
            environment.push(("GOOGLE_EXTERNAL_ACCOUNT_IMPERSONATED_EMAIL", email.to_owned()));
        }
        if let Some(file) = &self.output_file {
            environment.push(("GOOGLE_EXTERNAL_ACCOUNT_OUTPUT_FILE", file.clone()));
        }
        Ok(Executable {
            program,
            arguments: words.collect(),
            timeout: Duration::from_millis(timeout),
            output_file: self.output_file.map(PathBuf::from),
            environment,
        })
    }
}

impl Executable {
    /// The token that an earlier run left in the output file while it is good, else what the program prints now.
    pub(super) async fn run(&self) -> Result<Secret, Error> {
        if let Some(file) = &self.output_file
            && let Some(token) = self.left_behind(file).await
        {
            return Ok(token);
        }
        let (printed, succeeded) = self.print().await?;
        match serde_json::from_slice::<Response>(&printed) {
            Ok(response) if succeeded || !response.success => self.token(response),
            _ if !succeeded => Err(self.failed("it failed; run it by hand to see what it says")),
            _ => Err(self.failed("what it prints is not the JSON that Google defines for such programs")),
        }
    }

    async fn left_behind(&self, file: &Path) -> Option<Secret> {
        let text = tokio::fs::read(file).await.ok()?;
        let response = serde_json::from_slice(&text).ok()?;
        self.token(response).ok()
    }

    fn token(&self, response: Response) -> Result<Secret, Error> {
        if response.version != 1 {
            return Err(self.failed("it answers in a version other than 1"));
        }
        if !response.success {
            let (code, message) = (response.code.unwrap_or_default(), response.message.unwrap_or_default());
            return Err(self.failed(format!("it says: {}", clean(&format!("{code} {message}")))));
        }
        let token = match response.token_type.as_deref() {
            Some("urn:ietf:params:oauth:token-type:jwt" | "urn:ietf:params:oauth:token-type:id_token") => {
                response.id_token
            }
            Some("urn:ietf:params:oauth:token-type:saml2") => response.saml_response,
            _ => return Err(self.failed("its token_type is none of jwt, id_token and saml2")),
        };
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        match response.expiration_time {
            Some(time) if time <= now => return Err(self.failed("its token has expired")),
            None if self.output_file.is_some() => {
                return Err(self.failed("it names no expiration_time, which is needed with an output_file"));
            }
            _ => {}
        }
        token
            .filter(|token| !token.expose().is_empty())
            .ok_or_else(|| self.failed("it says success and gives no token of its token_type"))
    }

    /// What it prints, and whether it ended well.
    async fn print(&self) -> Result<(Vec<u8>, bool), Error> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .env_clear()
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| self.failed(format!("it cannot be started: {error}")))?;
        let group = Group::of(&child);
        match timeout(self.timeout, output(&mut child)).await {
            Ok(Ok(output)) => {
                group.ended();
                Ok(output)
            }
            Ok(Err(error)) => Err(self.failed(format!("what it prints cannot be read: {error}"))),
            Err(_) => {
                let message = format!("it was ended after {} s without an answer", self.timeout.as_secs());
                Err(Error {
                    kind: Kind::Unavailable,
                    ..self.failed(message)
                })
            }
        }
    }

    fn failed(&self, message: impl Into<String>) -> Error {
        Error::new(Kind::Invalid, OPERATION, self.program.display().to_string(), message)
    }
}

async fn output(child: &mut Child) -> std::io::Result<(Vec<u8>, bool)> {
    let mut printed = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(LIMIT).read_to_end(&mut printed).await?;
    }
    let status = child.wait().await?;
    Ok((printed, status.success()))
}

/// All that the program started: ended with it where it does not end by itself, and where nobody waits any more.
struct Group(Option<Pid>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw))
    }

    /// Its number may be another's from now on.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Gone already, which is what is wanted.
            let _ended = killpg(group, Signal::SIGKILL);
        }
    }
}

/// The words of a command line: double quotes hold one together. No shell reads it.
fn words(command: &str) -> impl Iterator<Item = String> {
    let mut words = Vec::new();
    let (mut word, mut quoted) = (None::<String>, false);
    for character in command.chars() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            space if space.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_and_no_shell_reads_it() {
        let split = |text: &str| words(text).collect::<Vec<_>>();
        assert_eq!(split("/a/b --c=d  e"), ["/a/b", "--c=d", "e"]);
        assert_eq!(split(r#""/a b/c" --d="e f" """#), ["/a b/c", "--d=e f", ""]);
        assert_eq!(split("/a; rm $HOME"), ["/a;", "rm", "$HOME"]);
        assert!(split("  ").is_empty());
    }
}
