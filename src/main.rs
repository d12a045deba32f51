use defrost::error::Kind;
use std::process::ExitCode;

fn main() -> ExitCode {
    match defrost::cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            match error.kind() {
                Kind::Interrupted => eprintln!("{error}"),
                _ => eprintln!("error: {error}"),
            }
            ExitCode::from(error.exit_code())
        }
    }
}
