//! The command line, as runc's: `coracle-runtime [global options] COMMAND [options] ID [arguments]`.
//!
//! Pure: words in, [`Invocation`] out. Options may stand before or after the command and the id, as `--name value`
//! or `--name=value`; `--` ends them. Refuses options that the command does not have and options whose effect
//! this runtime cannot give.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::launch::Options;
use crate::log::Format;

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
    let Words {
        options,
        positional,
    } = split(words)?;
    let given = |name: &str| options.iter().any(|(option, _)| *option == name);
    let value = |name: &str| {
        options
            .iter()
            .rev()
            .find(|(option, _)| *option == name)
            .map(|(_, value)| value.clone())
    };
    let path = |name: &str| value(name).map(PathBuf::from);
    let mut positional = positional.into_iter();
    let name = positional.next();
    let command = match name.as_deref() {
        _ if given("help") => Command::Help,
        _ if given("version") => Command::Version,
        None => return Err(Error::Usage("no command; see --help".into())),
        Some("help") => Command::Help,
        Some("features") => Command::Features,
        Some(name) => {
            let mut id = || {
                positional
                    .next()
                    .ok_or_else(|| Error::Usage(format!("{name}: no container id")))
            };
            let launch = || -> Result<Options> {
                Ok(Options {
                    bundle: path("bundle").unwrap_or_else(|| ".".into()),
                    pid_file: path("pid-file"),
                    preserve_fds: value("preserve-fds").map_or(Ok(0), |text| count(&text))?,
                    no_new_keyring: given("no-new-keyring"),
                })
            };
            match name {
                "create" => Command::Create {
                    id: id()?,
                    options: launch()?,
                },
                "run" => Command::Run {
                    id: id()?,
                    options: launch()?,
                    detach: given("detach"),
                },
                "start" => Command::Start { id: id()? },
                "state" => Command::State { id: id()? },
                "kill" => {
                    let id = id()?;
                    let signal = positional
                        .next()
                        .map_or(Ok(libc::SIGTERM), |text| signal(&text))?;
                    Command::Kill {
                        id,
                        signal,
                        all: given("all"),
                    }
                }
                "delete" => Command::Delete {
                    id: id()?,
                    force: given("force"),
                },
                other => {
                    return Err(Error::Usage(format!(
                        "unknown command {other:?}; see --help"
                    )));
                }
            }
        }
    };
    if !matches!(command, Command::Help | Command::Version) {
        check_options(name.as_deref().unwrap_or_default(), &options)?;
        if let Some(extra) = positional.next() {
            return Err(Error::Usage(format!("unexpected argument {extra:?}")));
        }
    }
    let log_format = match value("log-format").as_deref() {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            return Err(Error::Usage(format!(
                "--log-format {other:?} is not text or json"
            )));
        }
    };
    let root = path("root").unwrap_or_else(|| DEFAULT_ROOT.into());
    Ok(Invocation {
        root,
        log: path("log"),
        log_format,
        debug: given("debug"),
        command,
    })
}

struct Words {
    options: Vec<(&'static str, String)>,
    positional: Vec<String>,
}

fn split(words: impl IntoIterator<Item = OsString>) -> Result<Words> {
    let mut words = words.into_iter().map(|word| {
        word.into_string()
            .map_err(|word| Error::Usage(format!("{:?} is not UTF-8", word.to_string_lossy())))
    });
    let (mut options, mut positional) = (Vec::new(), Vec::new());
    let mut only_positional = false;
    while let Some(word) = words.next().transpose()? {
        if only_positional || word == "-" || !word.starts_with('-') {
            positional.push(word);
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

/// A signal by number, or by name with or without `SIG`, in any case.
pub fn signal(text: &str) -> Result<i32> {
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let by_name = || {
        SIGNALS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| *number)
    };
    let by_number = || {
        text.parse()
            .ok()
            .filter(|number| (1..=libc::SIGRTMAX()).contains(number))
    };
    by_name()
        .or_else(by_number)
        .ok_or_else(|| Error::Usage(format!("unknown signal {text:?}")))
}

const SIGNALS: &[(&str, i32)] = &[
    ("ABRT", libc::SIGABRT),
    ("ALRM", libc::SIGALRM),
    ("BUS", libc::SIGBUS),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("FPE", libc::SIGFPE),
    ("HUP", libc::SIGHUP),
    ("ILL", libc::SIGILL),
    ("INT", libc::SIGINT),
    ("IO", libc::SIGIO),
    ("IOT", libc::SIGABRT),
    ("KILL", libc::SIGKILL),
    ("PIPE", libc::SIGPIPE),
    ("POLL", libc::SIGIO),
    ("PROF", libc::SIGPROF),
    ("PWR", libc::SIGPWR),
    ("QUIT", libc::SIGQUIT),
    ("SEGV", libc::SIGSEGV),
    ("STKFLT", libc::SIGSTKFLT),
    ("STOP", libc::SIGSTOP),
    ("SYS", libc::SIGSYS),
    ("TERM", libc::SIGTERM),
    ("TRAP", libc::SIGTRAP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("VTALRM", libc::SIGVTALRM),
    ("WINCH", libc::SIGWINCH),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
];

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
