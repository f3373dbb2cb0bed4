//! `platen secrets`: writes the configuration object of a worker, and shows what one holds.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use zeroize::Zeroizing;

use super::Failure;
use crate::config::{self, Access, Environment};
use crate::job::ObjectAddress;
use crate::secrets::{self, Store, StoreError};

/// Seal the worker's configuration object (CONFIG_OBJECT), or show what it holds.
///
/// Example: platen secrets seal --key projects/p/locations/global/keyRings/platen/cryptoKeys/config \
///   --object gs://bucket/config.enc config.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Seal(Seal),
    Open(Open),
}

/// Check the JSON in FILE, seal it with a Cloud KMS key for its address alone, and write it there.
///
/// Its fields: "passwords" (a name's password, or a list tried in order) and "environment" (variables of platen serve).
/// Workers that run take it up within CONFIG_RELOAD.
///
/// Example: platen secrets seal --key projects/p/locations/global/keyRings/platen/cryptoKeys/config \
///   --object gs://bucket/config.enc config.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Seal {
    /// The key: projects/P/locations/L/keyRings/R/cryptoKeys/K.
    #[arg(long, value_name = "KMS_KEY", value_parser = key)]
    key: String,
    /// Where it goes. The address is sealed with it: moved or renamed, it does not open.
    #[arg(long, value_name = "gs://BUCKET/OBJECT", value_parser = object)]
    object: ObjectAddress,
    /// Replace this generation only, as `platen secrets open` named it (0: nothing may be there). Without it, the one
    /// that is there when the command starts.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(0..))]
    generation: Option<i64>,
    /// The JSON; - for stdin, so that it never has to be on a disk.
    #[arg(value_name = "FILE|-")]
    file: PathBuf,
}

/// Print what a configuration object holds, on stdout, and its generation on stderr.
///
/// Example: umask 077; platen secrets open --key projects/p/locations/global/keyRings/platen/cryptoKeys/config \
///   gs://bucket/config.enc > /dev/shm/config.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
struct Open {
    /// The key: projects/P/locations/L/keyRings/R/cryptoKeys/K.
    #[arg(long, value_name = "KMS_KEY", value_parser = key)]
    key: String,
    /// The object.
    #[arg(value_name = "gs://BUCKET/OBJECT", value_parser = object)]
    object: ObjectAddress,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let access = super::configured(Access::load(&Environment))?;
    match &arguments.command {
        Command::Seal(arguments) => seal(arguments, &access),
        Command::Open(arguments) => open(arguments, &access),
    }
}

fn seal(arguments: &Seal, access: &Access) -> Result<(), Failure> {
    let (shown, json) = read(arguments)?;
    let contents = secrets::contents(&shown, &json).map_err(|error| Failure::Usage(Some(error.message)))?;
    secrets::check_alone(&contents.environment)?;
    let written = super::runtime()?.block_on(async {
        let store = connect(&arguments.object, &arguments.key, access).await?;
        Ok::<_, Failure>(store.seal(&json, arguments.generation).await?)
    })?;
    super::output::say(&format!("{}#{written}", arguments.object));
    eprintln!("sealed {contents:?}; running workers take it up within their CONFIG_RELOAD");
    Ok(())
}

fn open(arguments: &Open, access: &Access) -> Result<(), Failure> {
    let opened = super::runtime()?.block_on(async {
        let store = connect(&arguments.object, &arguments.key, access).await?;
        Ok::<_, Failure>(store.open().await?)
    })?;
    let place = format!("{}#{}", arguments.object, opened.generation);
    let mut stdout = std::io::stdout();
    stdout
        .write_all(&opened.plaintext)
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::Work(Some(format!("stdout takes no more: {error}"))))?;
    eprintln!(
        "{place}; to replace this very one: platen secrets seal --generation {} ...",
        opened.generation
    );
    if stdout.is_terminal() {
        eprintln!("Its passwords are on this terminal now: clear it, its scrollback too.");
    }
    if let Err(error) = secrets::contents(&place, &opened.plaintext) {
        eprintln!("No worker starts with it: {error}");
    }
    Ok(())
}

/// As with every command, having no credentials, or a file that is none, is wrong configuration.
async fn connect(object: &ObjectAddress, key: &str, access: &Access) -> Result<Store, Failure> {
    Store::connect(object, key, access).await.map_err(|error| {
        if error.is_configuration {
            Failure::Usage(Some(error.message))
        } else {
            error.into()
        }
    })
}

/// The file's name for a person, and its bytes.
fn read(arguments: &Seal) -> Result<(String, Zeroizing<Vec<u8>>), Failure> {
    let is_stdin = arguments.file.as_os_str() == "-";
    let shown = if is_stdin {
        "stdin".to_owned()
    } else {
        arguments.file.display().to_string()
    };
    // Room for all from the beginning: a buffer that grows leaves copies behind.
    let most = secrets::LARGEST_CONTENTS as u64;
    let mut bytes = Zeroizing::new(Vec::with_capacity(secrets::LARGEST_CONTENTS + 1));
    let outcome = if is_stdin {
        std::io::stdin().take(most + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(&arguments.file).and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
    };
    let usage = |message| Failure::Usage(Some(message));
    match outcome {
        Err(error) => Err(usage(format!("{shown} cannot be read: {error}"))),
        Ok(size) if size as u64 > most => Err(usage(format!("{shown} is over the {most} bytes that Cloud KMS seals"))),
        Ok(_) => Ok((shown, bytes)),
    }
}

fn key(text: &str) -> Result<String, String> {
    if config::is_kms_key(text) {
        Ok(text.to_owned())
    } else {
        Err("write projects/PROJECT/locations/LOCATION/keyRings/RING/cryptoKeys/KEY, without a version".to_owned())
    }
}

fn object(text: &str) -> Result<ObjectAddress, String> {
    text.parse()
        .map_err(|_| "write gs://BUCKET/OBJECT, with a name that Cloud Storage takes".to_owned())
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Work(Some(error.message))
    }
}
