//! The program: argument parsing and nothing else.

use std::process::ExitCode;

use satellite_pipeline::node::app;
use satellite_pipeline::node::cli::Invocation;

/// Why not the system's: docs/decisions.md.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Invocation::parse(std::env::args_os()) {
        Ok(invocation) => app::main(invocation),
        Err(error) => error.exit(),
    }
}
