//! The `repcloud` binary: arguments in, exit code out.

fn main() -> std::process::ExitCode {
    repcloud::cli::main()
}
