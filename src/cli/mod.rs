//! The commands, one file each. [`run`] alone chooses, and alone prints why one failed.

mod backfill;
mod cloud;
mod convert;
#[cfg(feature = "local-cloud")]
mod demo;
mod doctor;
#[cfg(feature = "local-cloud")]
mod local;
mod output;
mod password;
mod redrive;
mod schema;
mod secrets;
mod serve;
mod sign;
mod submit;
mod token;
mod usage;
#[cfg(feature = "local-cloud")]
mod world;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Environment, Problems};
use crate::telemetry::{self, LogFormat};
use usage::Wrong;

/// Drop a document in a bucket, get a signed PDF link on a topic.
///
/// Example: platen convert report.docx --out pdfs
/// Example: platen demo report.docx --out pdfs
#[derive(Debug, Parser)]
#[command(
    name = "platen",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    verbatim_doc_comment
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Backfill(backfill::Arguments),
    Serve(serve::Arguments),
    #[cfg(feature = "local-cloud")]
    Demo(demo::Arguments),
    Convert(convert::Arguments),
    Doctor(doctor::Arguments),
    #[cfg(feature = "local-cloud")]
    Local(local::Arguments),
    Redrive(redrive::Arguments),
    Schema(schema::Arguments),
    Secrets(secrets::Arguments),
    Sign(sign::Arguments),
    Submit(submit::Arguments),
    Token(token::Arguments),
}

/// How a command ends when it does not succeed.
#[derive(Debug)]
enum Failure {
    /// Exit code 1, with a sentence unless everything has been said already.
    Work(Option<String>),
    /// Exit code 64, likewise.
    Usage(Option<String>),
    /// Exit code 70.
    Bug(String),
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Usage(Some(problems.to_string()))
    }
}

/// Reads the arguments, runs the command and gives its exit code: 0 success, 1 the work failed, 64 wrong usage or
/// configuration, 70 a bug.
pub fn run() -> ExitCode {
    let arguments = match usage::read::<Arguments>(std::env::args_os().collect()) {
        Ok(arguments) => arguments,
        Err(wrong) => {
            if let Wrong::Said(said) = &wrong {
                // Printing help can only fail when nobody reads it.
                let _nobody_reads = said.print();
                if !said.use_stderr() {
                    return ExitCode::SUCCESS;
                }
            }
            eprintln!("platen: {wrong}");
            return ExitCode::from(64);
        }
    };
    // Every command holds secrets: passwords, keys, tokens. What a debugger or a core dump could see must be closed before.
    if let Err(error) = crate::sandbox::harden_worker() {
        eprintln!("platen: the memory cannot be hidden: {error}");
        return ExitCode::FAILURE;
    }
    let result = match arguments.command {
        Command::Backfill(arguments) => backfill::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        #[cfg(feature = "local-cloud")]
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Convert(arguments) => convert::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        #[cfg(feature = "local-cloud")]
        Command::Local(arguments) => local::run(&arguments),
        Command::Redrive(arguments) => redrive::run(&arguments),
        Command::Schema(arguments) => schema::run(&arguments),
        Command::Secrets(arguments) => secrets::run(&arguments),
        Command::Sign(arguments) => sign::run(&arguments),
        Command::Submit(arguments) => submit::run(&arguments),
        Command::Token(arguments) => token::run(&arguments),
    };
    let result = match (result, output::lost()) {
        (Ok(()), Some(error)) => Err(Failure::Work(Some(format!(
            "what should be on stdout could not be written: {error}"
        )))),
        (result, _) => result,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let (code, message) = match failure {
                Failure::Work(message) => (1, message),
                Failure::Usage(message) => (64, message),
                Failure::Bug(message) => (70, Some(format!("this is a bug: {message}"))),
            };
            if let Some(message) = message {
                output::note(&format!("platen: {message}"));
            }
            ExitCode::from(code)
        }
    }
}

/// Whether these are arguments of platen, its own name left out: what the commands' documentation is held to.
///
/// # Errors
///
/// What a person would be told.
pub fn check(arguments: impl IntoIterator<Item = String>) -> Result<(), String> {
    let program = std::iter::once("platen".into());
    let arguments = program.chain(arguments.into_iter().map(Into::into)).collect();
    match usage::read::<Arguments>(arguments) {
        Err(Wrong::Said(help)) if !help.use_stderr() => Ok(()),
        Err(wrong) => Err(wrong.to_string()),
        Ok(_) => Ok(()),
    }
}

/// What a command is told by its environment, with how it logs: every problem of either at once.
fn configured<T>(config: Result<T, Problems>) -> Result<T, Failure> {
    let mut problems = telemetry::problems(&Environment);
    match (config, LogFormat::load(&Environment)) {
        (Ok(config), Ok(format)) if problems.is_empty() => {
            telemetry::start_quiet(format, &Environment);
            Ok(config)
        }
        (config, _) => {
            problems.extend(config.err().into_iter().flat_map(|Problems(problems)| problems));
            Err(Problems(problems).into())
        }
    }
}

/// The runtime of every command that talks to something.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Work(Some(format!("no runtime can be started: {error}"))))
}

/// Comes when a person or a service manager asks the command to end.
fn interrupted() -> Result<impl Future<Output = ()>, Failure> {
    let listen =
        |kind| signal(kind).map_err(|error| Failure::Work(Some(format!("signals cannot be listened to: {error}"))));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
