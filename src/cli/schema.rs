//! `platen schema`: what the worker takes and what it publishes, for editors, validators and generators of clients.

use schemars::Schema;
use schemars::generate::SchemaSettings;

use super::Failure;
use super::output::say;
use crate::deliver::ResultMessage;
use crate::job::Request;

/// Print the JSON Schema of what the worker takes or publishes.
///
/// Example: platen schema job > job.schema.json
/// Example: platen schema result | jq '."$defs".FailureCode'
///
/// The dialect is draft 2020-12. Every job that the worker takes is valid; what is valid may still be refused where a
/// schema cannot say why, such as a page range that goes backwards.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Arguments {
    /// The message to describe.
    #[arg(value_enum)]
    message: Message,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Message {
    /// What asks the worker for something.
    Job,
    /// What the worker publishes.
    Result,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let schema = of(arguments.message);
    let text = serde_json::to_string_pretty(&schema).map_err(|error| Failure::Bug(error.to_string()))?;
    say(&text);
    Ok(())
}

/// The schema of jobs, for what else asks for them.
#[cfg(feature = "local-cloud")]
pub(super) fn of_jobs() -> Schema {
    of(Message::Job)
}

fn of(message: Message) -> Schema {
    let settings = SchemaSettings::draft2020_12();
    let mut schema = match message {
        Message::Job => settings
            .for_deserialize()
            .into_generator()
            .into_root_schema_for::<Request>(),
        Message::Result => settings
            .for_serialize()
            .into_generator()
            .into_root_schema_for::<ResultMessage>(),
    };
    // Results may get fields in a version that is to come, and jobs options: who keeps a copy can say of which it is.
    schema.insert(
        "$comment".to_owned(),
        concat!("platen ", env!("CARGO_PKG_VERSION")).into(),
    );
    schema
}
