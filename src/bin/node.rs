//! The program: argument parsing and nothing else.

use std::process::ExitCode;

use satellite_pipeline::node::app;
use satellite_pipeline::node::cli::Invocation;

fn main() -> ExitCode {
    match Invocation::parse(std::env::args_os()) {
        Ok(invocation) => app::main(invocation),
        Err(error) => error.exit(),
    }
}
