//! The commands, one file each.

/// Runs the command that the arguments name.
pub fn run() -> std::process::ExitCode {
    std::process::ExitCode::SUCCESS
}
