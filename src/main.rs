//! The one binary: the worker and every command, and, under a hidden subcommand, the engine's zygote.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread: the zygote forks, and a fork has one thread only.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == platen::engine::ZYGOTE_COMMAND)
    {
        return platen::engine::zygote();
    }
    // What a panic says is on stderr already; 70 tells it from work that failed.
    std::panic::catch_unwind(platen::cli::run).unwrap_or(ExitCode::from(70))
}
