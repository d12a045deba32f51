use defrost::error::Kind;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match defrost::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let prefix = if error.kind() == Kind::Interrupted { "" } else { "error: " };
            // Where nobody reads it, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "{prefix}{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
