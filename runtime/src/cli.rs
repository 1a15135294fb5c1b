//! The command line, as runc's: `coracle-runtime [global options] COMMAND [options] ID [arguments]`.
//!
//! Pure: words in, [`Invocation`] out. Options may stand before or after the command and the id, as `--name value`
//! or `--name=value`; `--` ends them. Refuses options that the command does not have and options whose effect
//! this runtime cannot give.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::launch::Options;
use crate::log::Format;
use crate::signal;

/// Where state is kept unless `--root` says otherwise.
const DEFAULT_ROOT: &str = "/run/coracle/runtime";

/// The help text.
pub const USAGE: &str = "\
usage: coracle-runtime [--root DIR] [--log FILE] [--log-format text|json] [--debug] COMMAND

  run [--detach] [--bundle DIR] [--pid-file FILE] ID    create a container and start it
  create [--bundle DIR] [--pid-file FILE] ID            set a container up
  start ID                                              execute its command
  state ID                                              print its state as JSON
  kill [--all] ID [SIGNAL]                              send a signal, by default TERM
  delete [--force] ID                                   remove it; with --force kill it first
  features                                              print what this runtime can do as JSON

  run and create also take: --preserve-fds N, --no-new-keyring
";

/// What to do, and how to report.
#[derive(Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `--root`.
    pub root: PathBuf,
    /// `--log`.
    pub log: Option<PathBuf>,
    /// `--log-format`.
    pub log_format: Format,
    /// `--debug`.
    pub debug: bool,
    /// The command.
    pub command: Command,
}

/// The commands.
#[derive(Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it; see USAGE")]
pub enum Command {
    Create {
        id: String,
        options: Options,
    },
    Run {
        id: String,
        options: Options,
        detach: bool,
    },
    Start {
        id: String,
    },
    State {
        id: String,
    },
    Kill {
        id: String,
        signal: i32,
        all: bool,
    },
    Delete {
        id: String,
        force: bool,
    },
    Features,
    Version,
    Help,
}

/// Option names with the commands they belong to ("" is every command) and whether a value follows.
const OPTIONS: &[(&str, &str, bool)] = &[
    ("root", "", true),
    ("log", "", true),
    ("log-format", "", true),
    ("debug", "", false),
    ("rootless", "", true),
    ("help", "", false),
    ("version", "", false),
    ("bundle", "create run", true),
    ("pid-file", "create run", true),
    ("preserve-fds", "create run", true),
    ("no-new-keyring", "create run", false),
    ("no-subreaper", "run", false),
    ("detach", "run", false),
    ("all", "kill", false),
    ("force", "delete", false),
];

const SHORT: &[(&str, &str)] = &[
    ("-b", "bundle"),
    ("-d", "detach"),
    ("-a", "all"),
    ("-f", "force"),
    ("-h", "help"),
    ("-v", "version"),
];

/// Options of runc that would change what happens, and that are refused rather than ignored.
const UNSUPPORTED: &[&str] = &[
    "console-socket",
    "no-pivot",
    "systemd-cgroup",
    "cgroup-manager",
    "criu",
    "keep",
];

/// Parses the words after the name of the program.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Invocation> {
    let mut words = split(words)?;
    let name = words.positional.pop_front();
    let command = if words.given("help") {
        Command::Help
    } else if words.given("version") {
        Command::Version
    } else {
        let name = name.ok_or_else(|| Error::Usage("no command; see --help".into()))?;
        let command = command(&name, &mut words)?;
        check_options(&name, &words.options)?;
        command
    };
    if let (Some(extra), false) = (words.positional.front(), command.is_about_the_program()) {
        return Err(Error::Usage(format!("unexpected argument {extra:?}")));
    }
    let log_format = match words.value("log-format") {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            return Err(Error::Usage(format!(
                "--log-format {other:?} is not text or json"
            )));
        }
    };
    Ok(Invocation {
        root: words.path("root").unwrap_or_else(|| DEFAULT_ROOT.into()),
        log: words.path("log"),
        log_format,
        debug: words.given("debug"),
        command,
    })
}

fn command(name: &str, words: &mut Words) -> Result<Command> {
    Ok(match name {
        "help" => Command::Help,
        "features" => Command::Features,
        "create" => Command::Create {
            id: words.id(name)?,
            options: words.launch_options()?,
        },
        "run" => {
            let (options, detach) = (words.launch_options()?, words.given("detach"));
            Command::Run {
                id: words.id(name)?,
                options,
                detach,
            }
        }
        "start" => Command::Start {
            id: words.id(name)?,
        },
        "state" => Command::State {
            id: words.id(name)?,
        },
        "kill" => {
            let id = words.id(name)?;
            let signal = words.positional.pop_front();
            let signal = signal.map_or(Ok(libc::SIGTERM), |text| signal::parse(&text))?;
            Command::Kill {
                id,
                signal,
                all: words.given("all"),
            }
        }
        "delete" => Command::Delete {
            id: words.id(name)?,
            force: words.given("force"),
        },
        other => {
            return Err(Error::Usage(format!(
                "unknown command {other:?}; see --help"
            )));
        }
    })
}

impl Command {
    fn is_about_the_program(&self) -> bool {
        matches!(self, Self::Help | Self::Version)
    }
}

/// The command line with the options taken out.
struct Words {
    options: Vec<(&'static str, String)>,
    positional: VecDeque<String>,
}

impl Words {
    fn given(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    /// The last one given wins.
    fn value(&self, name: &str) -> Option<&str> {
        let found = self
            .options
            .iter()
            .rev()
            .find(|(option, _)| *option == name);
        found.map(|(_, value)| value.as_str())
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    fn id(&mut self, command: &str) -> Result<String> {
        let id = self.positional.pop_front();
        id.ok_or_else(|| Error::Usage(format!("{command}: no container id")))
    }

    fn launch_options(&self) -> Result<Options> {
        Ok(Options {
            bundle: self.path("bundle").unwrap_or_else(|| ".".into()),
            pid_file: self.path("pid-file"),
            preserve_fds: self.value("preserve-fds").map_or(Ok(0), count)?,
            no_new_keyring: self.given("no-new-keyring"),
        })
    }
}

fn split(words: impl IntoIterator<Item = OsString>) -> Result<Words> {
    let mut words = words.into_iter().map(|word| {
        word.into_string()
            .map_err(|word| Error::Usage(format!("{:?} is not UTF-8", word.to_string_lossy())))
    });
    let (mut options, mut positional) = (Vec::new(), VecDeque::new());
    let mut only_positional = false;
    while let Some(word) = words.next().transpose()? {
        if only_positional || word == "-" || !word.starts_with('-') {
            positional.push_back(word);
            continue;
        }
        if word == "--" {
            only_positional = true;
            continue;
        }
        let (name, attached) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        let (name, takes_value) = find_option(name)?;
        let value = match (takes_value, attached) {
            (true, Some(value)) => value,
            (true, None) => words
                .next()
                .transpose()?
                .ok_or_else(|| Error::Usage(format!("--{name} needs a value")))?,
            (false, None) => String::new(),
            (false, Some(_)) => return Err(Error::Usage(format!("--{name} takes no value"))),
        };
        options.push((name, value));
    }
    Ok(Words {
        options,
        positional,
    })
}

fn find_option(word: &str) -> Result<(&'static str, bool)> {
    let short = SHORT
        .iter()
        .find(|(short, _)| *short == word)
        .map(|(_, long)| *long);
    // Go's flag package takes one dash for two, and so do callers of runc.
    let long = short
        .or_else(|| word.strip_prefix("--"))
        .or_else(|| word.strip_prefix('-'))
        .unwrap_or(word);
    if UNSUPPORTED.contains(&long) {
        return Err(Error::Unsupported(format!("option --{long}")));
    }
    let found = OPTIONS.iter().find(|(name, _, _)| *name == long);
    found
        .map(|&(name, _, value)| (name, value))
        .ok_or_else(|| Error::Usage(format!("unknown option {word}; see --help")))
}

fn check_options(command: &str, options: &[(&str, String)]) -> Result<()> {
    for (given, _) in options {
        let belongs = OPTIONS.iter().any(|(name, commands, _)| {
            name == given
                && (commands.is_empty() || commands.split(' ').any(|name| name == command))
        });
        if !belongs {
            return Err(Error::Usage(format!("{command} has no option --{given}")));
        }
    }
    Ok(())
}

fn count(text: &str) -> Result<u32> {
    match text.parse() {
        Ok(count @ 0..=65_536) => Ok(count),
        _ => Err(Error::Usage(format!(
            "--preserve-fds {text:?} is not a number from 0 to 65536"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn options_may_stand_anywhere() {
        let expected = Command::Run {
            id: "web".into(),
            options: Options {
                bundle: "/b".into(),
                pid_file: Some("/p".into()),
                ..Options::default()
            },
            detach: true,
        };
        for line in [
            "--root /r run --detach --bundle /b --pid-file /p web",
            "--root=/r run web -d -b /b --pid-file=/p",
            "run -detach web --bundle /b --root /r --pid-file /p",
        ] {
            let invocation = parse_line(line).expect(line);
            assert_eq!(
                (&invocation.command, invocation.root.as_path()),
                (&expected, "/r".as_ref()),
                "{line}"
            );
        }
    }

    #[test]
    fn kill_takes_signals_by_name_and_number() {
        for (line, signal, all) in [
            ("kill x", 15, false),
            ("kill x 9", 9, false),
            ("kill --all x SIGKILL", 9, true),
            ("kill x usr1 -a", 10, true),
            ("kill x 64", 64, false),
        ] {
            let expected = Command::Kill {
                id: "x".into(),
                signal,
                all,
            };
            assert_eq!(parse_line(line).expect(line).command, expected, "{line}");
        }
        for line in [
            "kill",
            "kill x 0",
            "kill x 65",
            "kill x -9",
            "kill x NOPE",
            "kill x 9 9",
        ] {
            assert!(matches!(parse_line(line), Err(Error::Usage(_))), "{line}");
        }
    }

    #[test]
    fn wrong_lines_are_usage_errors() {
        for line in [
            "",
            "nonsense",
            "start",
            "start a b",
            "start --force a",
            "delete --force=yes a",
            "run --bundle",
            "state --unknown a",
            "run --preserve-fds 4294967295 a",
            "run --preserve-fds -1 a",
            "--log-format xml state a",
        ] {
            assert!(matches!(parse_line(line), Err(Error::Usage(_))), "{line:?}");
        }
        assert!(matches!(
            parse_line("--systemd-cgroup run a"),
            Err(Error::Unsupported(_))
        ));
    }

    #[test]
    fn version_and_help_need_nothing_else() {
        assert_eq!(
            parse_line("--version").expect("valid").command,
            Command::Version
        );
        assert_eq!(
            parse_line("run --help").expect("valid").command,
            Command::Help
        );
    }
}
