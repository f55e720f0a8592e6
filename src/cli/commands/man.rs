//! `man`: the manual pages, one after the other.

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::cli::args::CommandLine;
use crate::cli::output::Output;
use crate::cli::report::{Exit, Failure};

/// What holds for every command, at the end of the program's page.
const COMMON: &str = r#".SH "EXIT STATUS"
.TP
0
Done.
.TP
1
Failed; standard error says why.
.TP
2
The command line or the configuration is wrong.
.TP
3
Refused by pre\-flight; nothing was changed.
.TP
4
Some tables are done, some not.
.TP
130
Interrupted; what was being done is left resumable or undone, and it is said which. A stream that runs until it is stopped ends with 0
after SIGTERM or
.BR "repcloud stop" .
.SH FILES
.TP
\fIREPCLOUD_HOME/config/\fR
Configurations, and in \fItable_conf/\fR settings of single tables.
.TP
\fIREPCLOUD_HOME/logs/\fR
Log files, where the configuration asks for them.
.TP
\fIREPCLOUD_HOME/pid/\fR
What running streams show of themselves.
.SH ENVIRONMENT
.TP
\fBREPCLOUD_HOME\fR
The folder of all files; default \fI~/.repcloud\fR.
.TP
\fBPGPASSWORD\fR, \fBPGPASSFILE\fR
Where a password that the configuration leaves out is looked up.
"#;

/// Prints the program's page, then one for each command.
pub fn run(output: Output) -> Result<Exit, Failure> {
    let mut program = CommandLine::command().disable_help_subcommand(true);
    // Gives each command its page's name, repcloud-COMMAND.
    program.build();
    let render = |command: clap::Command, pages: &mut Vec<u8>| {
        Man::new(command).render(pages).context("cannot write the manual")
    };
    let mut pages = Vec::new();
    render(program.clone(), &mut pages)?;
    pages.extend_from_slice(COMMON.as_bytes());
    for command in program.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        render(command.clone(), &mut pages)?;
    }
    output.bytes(&pages)?;
    Ok(Exit::Done)
}
