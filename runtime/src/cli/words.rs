//! The words of a command line, with the options taken out: which exist, where they stand, how they are written.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;

use super::values::wrong;
use crate::error::{Error, Result};

/// What follows the name of an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
}

use Takes::{Nothing, Value};

/// Name, short name ("" for none), commands it belongs to ("" is every command), and whether a value follows.
const OPTIONS: &[(&str, &str, &str, Takes)] = &[
    ("root", "", "", Value),
    ("log", "", "", Value),
    ("log-format", "", "", Value),
    ("debug", "", "", Nothing),
    ("systemd-cgroup", "", "", Nothing),
    ("cgroup-manager", "", "", Value),
    ("help", "h", "", Nothing),
    ("version", "v", "", Nothing),
    ("bundle", "b", "create run spec", Value),
    ("config", "f", "create run", Value),
    ("console-socket", "", "create run exec", Value),
    ("pid-file", "", "create run exec", Value),
    ("no-pivot", "", "create run", Nothing),
    ("no-new-keyring", "", "create run", Nothing),
    ("preserve-fds", "", "create run exec", Value),
    ("no-subreaper", "", "run exec", Nothing),
    ("detach", "d", "run exec", Nothing),
    ("keep", "", "run", Nothing),
    ("tty", "t", "exec", Nothing),
    ("cwd", "", "exec", Value),
    ("env", "e", "exec", Value),
    ("user", "u", "exec", Value),
    ("additional-gids", "g", "exec", Value),
    ("process", "p", "exec", Value),
    ("process-label", "", "exec", Value),
    ("apparmor", "", "exec", Value),
    ("no-new-privs", "", "exec", Nothing),
    ("cap", "c", "exec", Value),
    ("ignore-paused", "", "exec", Nothing),
    ("cgroup", "", "exec", Value),
    ("all", "a", "kill", Nothing),
    ("force", "f", "delete", Nothing),
    ("format", "f", "list ps", Value),
    ("quiet", "q", "list", Nothing),
    ("stats", "", "events", Nothing),
    ("interval", "", "events", Value),
    ("resources", "r", "update", Value),
    ("blkio-weight", "", "update", Value),
    ("cpu-burst", "", "update", Value),
    ("cpu-idle", "", "update", Value),
    ("cpu-period", "", "update", Value),
    ("cpu-quota", "", "update", Value),
    ("cpu-rt-period", "", "update", Value),
    ("cpu-rt-runtime", "", "update", Value),
    ("cpu-share", "", "update", Value),
    ("cpuset-cpus", "", "update", Value),
    ("cpuset-mems", "", "update", Value),
    ("l3-cache-schema", "", "update", Value),
    ("mem-bw-schema", "", "update", Value),
    ("memory", "", "update", Value),
    ("memory-reservation", "", "update", Value),
    ("memory-swap", "", "update", Value),
    ("pids-limit", "", "update", Value),
];

/// `--rootless` tells runc whether to expect privileges; here that is found by trying. For `spec` it takes no value.
const ROOTLESS: (&str, Takes) = ("rootless", Value);

/// Commands after whose id all words are somebody else's.
const PASSING_ON: [&str; 2] = ["exec", "ps"];

/// The command line with the options taken out.
#[derive(Debug)]
pub(super) struct Words {
    options: Vec<(&'static str, String)>,
    pub(super) positional: VecDeque<String>,
}

impl Words {
    pub(super) fn split(words: impl IntoIterator<Item = OsString>) -> Result<Self> {
        let mut words = words.into_iter().map(|word| {
            word.into_string()
                .map_err(|word| Error::Usage(format!("{:?} is not UTF-8", word.to_string_lossy())))
        });
        let mut found = Self {
            options: Vec::new(),
            positional: VecDeque::new(),
        };
        let mut only_positional = false;
        while let Some(word) = words.next().transpose()? {
            if word == "--" && !only_positional {
                only_positional = true;
            } else if only_positional || word == "-" || !word.starts_with('-') {
                found.positional.push_back(word);
                if found.is_passing_on() && found.positional.len() == 2 {
                    // One `--` may divide the two.
                    only_positional = true;
                    match words.next().transpose()? {
                        Some(word) if word != "--" => found.positional.push_back(word),
                        _ => {}
                    }
                }
            } else {
                found.take_option(&word, &mut words)?;
            }
        }
        Ok(found)
    }

    fn is_passing_on(&self) -> bool {
        let command = self.positional.front();
        command.is_some_and(|command| PASSING_ON.contains(&command.as_str()))
    }

    fn take_option(
        &mut self,
        word: &str,
        words: &mut impl Iterator<Item = Result<String>>,
    ) -> Result<()> {
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word, None),
        };
        let command = self.positional.front().map(String::as_str);
        let (name, takes) = find_option(name, command)?;
        let value = match (takes, attached) {
            (Value, Some(value)) => value,
            (Value, None) => words
                .next()
                .transpose()?
                .ok_or_else(|| Error::Usage(format!("--{name} needs a value")))?,
            (Nothing, None) => String::new(),
            (Nothing, Some(value)) if value == "true" => String::new(),
            (Nothing, Some(value)) if value == "false" => {
                self.options.retain(|(given, _)| *given != name);
                return Ok(());
            }
            (Nothing, Some(_)) => return Err(Error::Usage(format!("--{name} takes no value"))),
        };
        self.options.push((name, value));
        Ok(())
    }

    pub(super) fn given(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The last one given wins.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.values(name).next_back()
    }

    /// All given, in their order.
    pub(super) fn values(&self, name: &str) -> impl DoubleEndedIterator<Item = &str> {
        self.options
            .iter()
            .filter(move |(option, _)| *option == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// The value of an option, parsed by a function that takes the option's name too.
    pub(super) fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str, &str) -> Result<T>,
    ) -> Result<Option<T>> {
        self.value(name).map(|text| parse(name, text)).transpose()
    }

    /// `--format`.
    pub(super) fn is_json(&self) -> Result<bool> {
        match self.value("format") {
            None | Some("table") => Ok(false),
            Some("json") => Ok(true),
            Some(other) => Err(wrong("format", other, "table or json")),
        }
    }

    pub(super) fn id(&mut self, command: &str) -> Result<String> {
        let id = self.positional.pop_front();
        id.ok_or_else(|| Error::Usage(format!("{command}: no container id")))
    }

    /// Refuses options of other commands.
    pub(super) fn check(&self, command: &str) -> Result<()> {
        for (given, _) in &self.options {
            let belongs = *given == ROOTLESS.0
                || OPTIONS
                    .iter()
                    .any(|(name, _, commands, _)| name == given && belongs(commands, command));
            if !belongs {
                return Err(Error::Usage(format!("{command} has no option --{given}")));
            }
        }
        Ok(())
    }
}

fn belongs(commands: &str, command: &str) -> bool {
    commands.is_empty() || commands.split(' ').any(|name| name == command)
}

/// Before the command is known, every option may be meant.
fn find_option(word: &str, command: Option<&str>) -> Result<(&'static str, Takes)> {
    // Go's flag package takes one dash for two, and so do callers of runc.
    let name = word
        .strip_prefix("--")
        .or_else(|| word.strip_prefix('-'))
        .unwrap_or(word);
    if name == ROOTLESS.0 {
        let takes = if command == Some("spec") {
            Nothing
        } else {
            ROOTLESS.1
        };
        return Ok((ROOTLESS.0, takes));
    }
    let is_short = |short: &str| !short.is_empty() && short == name && !word.starts_with("--");
    let mut named = OPTIONS
        .iter()
        .filter(|(long, short, _, _)| *long == name || is_short(short));
    let found = match command {
        Some(command) => named
            .clone()
            .find(|(_, _, commands, _)| belongs(commands, command))
            .or_else(|| named.next()),
        None => named.next(),
    };
    found
        .map(|&(name, _, _, takes)| (name, takes))
        .ok_or_else(|| Error::Usage(format!("unknown option {word}; see --help")))
}
