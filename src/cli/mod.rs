//! The command line, one file per command: raw arguments, ready settings, one call into the library, output.
//!
//! What a command was asked for stands alone on stdout; progress and warnings go to stderr. Usage errors exit with 2.
// These macros panic where a reader has gone; `output` does not.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod augment_flags;
mod bench;
mod check;
mod check_text;
mod compare;
mod config;
mod demo;
mod device;
mod devices;
mod evaluate;
mod evaluate_folder;
mod evaluate_text;
mod explain;
mod export;
mod flags;
mod gradcam;
mod import;
mod interrupt;
mod layer_times;
mod lr_find;
mod model_args;
mod output;
mod predict;
mod profile;
mod progress;
mod report;
mod resume;
mod selftest;
mod subject;
mod summary;
mod train;
mod train_lines;
mod weights;
mod workload;

use crate::error::{Error, Result};
use clap::{Parser, Subcommand};
use std::ffi::OsStr;
use std::path::Path;

const EXAMPLES: &str = "\
Examples:
  defrost demo                           the whole job on drawn images
  defrost check photos                   is photos/CLASS/IMAGE.jpg sound?
  defrost train photos --backbone vgg16 --weights random --out runs/first
  defrost summary xception               its layers, which --freeze may name
  defrost explain vgg16 --layer block1_conv1 --grad
                                         a layer's forward and backward pass
  defrost selftest                       is every operation right here?

`defrost COMMAND --help` explains one command.
Exit codes: 0 done, 1 done in part, 2 wrong input, 3 the machine could not,
130 interrupted.";

/// Fine-tunes ImageNet backbones on a folder of images
///
/// Backbones are VGG16, Xception, InceptionV3 and DenseNet121 as Keras Applications defines them. The autograd engine and
/// its kernels are part of the program.
#[derive(Parser)]
#[command(name = "defrost", version, max_term_width = 110, subcommand_required = true, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

// One line per command; its file defines the arguments.
#[derive(Subcommand)]
enum Command {
    Train(Box<train::Args>),
    LrFind(Box<lr_find::Args>),
    Resume(resume::Args),
    Compare(Box<compare::Args>),
    Evaluate(evaluate::Args),
    Predict(predict::Args),
    Import(import::Args),
    Report(report::Args),
    Check(Box<check::Args>),
    Export(export::Args),
    Weights(weights::Args),
    Summary(summary::Args),
    Bench(bench::Args),
    Profile(profile::Args),
    Explain(explain::Args),
    Selftest(selftest::Args),
    Devices(devices::Args),
    Demo(demo::Args),
}

/// Reads a number of images or pixels.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0 | 65_537..) | Err(_) => Err("expected a whole number of at least 1 and at most 65536".into()),
        Ok(n) => Ok(n),
    }
}

/// Reads a config file as `train --config` does, without training.
///
/// # Errors
/// See [`run`]: a key that no setting has, a value of the wrong kind, with its line.
pub fn check_config(path: &Path) -> Result<crate::train::Settings> {
    let words = [OsStr::new("defrost"), "train".as_ref(), "--out".as_ref(), "RUN".as_ref(), "--config".as_ref(), path.as_os_str()];
    match Cli::try_parse_from(words).map(|cli| cli.command) {
        Ok(Command::Train(args)) => train::settings(&args),
        _ => Err(Error::internal("`train --config` is not a command")),
    }
}

/// Reads the command line and carries the command out.
///
/// # Errors
/// Whatever went wrong, ready to be printed; [`crate::error::Error::exit_code`] is the program's exit code.
pub fn run() -> Result<()> {
    execute(Cli::parse())
}

fn execute(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Train(args) => train::run(*args),
        Command::LrFind(args) => lr_find::run(*args),
        Command::Resume(args) => resume::run(args),
        Command::Compare(args) => compare::run(*args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Predict(args) => predict::run(args),
        Command::Import(args) => import::run(args),
        Command::Report(args) => report::run(args),
        Command::Check(args) => check::run(*args),
        Command::Export(args) => export::run(args),
        Command::Weights(args) => weights::run(args),
        Command::Summary(args) => summary::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Profile(args) => profile::run(args),
        Command::Selftest(args) => selftest::run(args),
        Command::Devices(args) => devices::run(args),
        Command::Demo(args) => demo::run(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_commands_do_not_contradict_each_other() {
        super::Cli::command().debug_assert();
    }

    #[test]
    fn help_offers_only_what_a_command_heeds() {
        let help = |name: &str| super::Cli::command().find_subcommand_mut(name).unwrap().render_long_help().to_string();
        for (name, flags) in
            [("compare", &["--backbone <", "--freeze <"][..]), ("lr-find", &["--save-every <", "--tensorboard", "--time-limit <"])]
        {
            assert!(flags.iter().all(|flag| help("train").contains(flag) && !help(name).contains(flag)), "{name}");
        }
    }

    /// Examples are not wrapped at a word but where the terminal ends.
    #[test]
    fn examples_fit_a_terminal_of_eighty_columns() {
        let program = super::Cli::command();
        for command in program.get_subcommands().chain([&program]) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let wide: Vec<&str> = examples.lines().filter(|line| line.chars().count() > 80).collect();
            assert!(wide.is_empty(), "{}: {wide:#?}", command.get_name());
        }
    }
}
