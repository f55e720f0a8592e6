//! Configurations as people write them, and what is said about them.
#![allow(clippy::panic)]

mod files;
mod reading;
mod repack;
mod rpcl;
mod rules;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret as _, SecretString};

use super::environment::{Environment, Login};
use super::*;
use crate::model::{TableName, TablePattern};

#[derive(Default)]
struct Fake {
    vars: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<PathBuf, String>,
    passfile: Option<&'static str>,
}

impl Environment for Fake {
    fn var(&self, name: &str) -> Option<String> {
        self.vars.get(name).map(|v| (*v).to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<String> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn passfile_password(&self, login: Login<'_>) -> Result<Option<SecretString>, String> {
        Ok(self
            .passfile
            .map(|p| format!("{p}@{}:{}/{}/{}", login.host, login.port, login.database, login.user)))
        .map(|p| p.map(SecretString::from))
    }
}

fn read_with(text: &str, fake: &Fake) -> Result<Loaded, Vec<Finding>> {
    let source =
        Source { file: Path::new("/c/my.toml"), name: "my", text, log_dir: Path::new("/home/r/logs") };
    resolve(source, fake)
}

fn read(text: &str) -> Result<Loaded, Vec<Finding>> {
    read_with(text, &Fake::default())
}

/// Errors without the file's name: `line: key: problem; advice`.
fn errors(text: &str) -> Vec<String> {
    let findings = read(text).map(|_| ()).unwrap_err();
    findings.iter().map(|f| f.to_string().replacen("/c/my.toml:", "", 1)).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = read(text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    loaded.warnings.iter().map(|f| f.to_string().replacen("/c/my.toml:", "", 1)).collect()
}

const TWO: &str = "[connections.a]\nhost = \"h\"\nuser = \"u\"\ndatabase = \"d\"\n\
                   [connections.b]\nhost = \"h\"\nuser = \"u\"\ndatabase = \"e\"\n";

/// Two connections (8 lines) and one entry with these lines from line 10 on.
fn entry(lines: &str) -> String {
    format!("{TWO}[[replicate]]\n{lines}")
}

const PLAIN: &str = "source = \"a\"\ntarget = \"b\"\nmode = \"dml\"\ntables = [\"p.t\"]\n";
