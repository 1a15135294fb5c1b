//! What makes a bare signature of a digest: a key in memory, or a command that knows where the key is.
//!
//! The command's protocol: standard input is the SHA-256 digest, 32 bytes, and nothing else; standard output is to be the
//! RSA PKCS #1 v1.5 signature of it, as long as the key. `CORACLE_SIGN` says in the environment what is signed (`uki`,
//! `loader`). It runs in the folder of the machine's file without a shell, and has five minutes, for somebody may have to
//! touch a token. What it writes is checked against the certificate before it is used.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rsa::rand_core::OsRng;
use rsa::{Pkcs1v15Sign, RsaPrivateKey, RsaPublicKey};

use super::{Certificate, SecureBootError};

/// How long the command may take.
const TIME_LIMIT: Duration = Duration::from_secs(300);
/// More than the longest signature, so that garbage is told from one.
const OUTPUT_CAP: u64 = 4096;
/// DER of `DigestInfo` of SHA-256 up to the digest (RFC 8017 §9.2).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];

/// A command that signs.
#[derive(Debug, Clone)]
pub struct SignCommand {
    /// Program and arguments; never empty.
    pub words: Vec<String>,
    /// Where it runs.
    pub folder: PathBuf,
    /// How long it may take.
    pub time_limit: Duration,
}

impl SignCommand {
    /// A command with the time that it usually has.
    pub fn new(words: Vec<String>, folder: PathBuf) -> Self {
        Self {
            words,
            folder,
            time_limit: TIME_LIMIT,
        }
    }
}

/// Makes signatures.
pub enum Signer {
    /// A key in memory.
    Key(Box<RsaPrivateKey>),
    /// A command.
    Command(SignCommand),
}

impl fmt::Debug for Signer {
    /// A key is never shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(_) => f.write_str("Key"),
            Self::Command(command) => command.fmt(f),
        }
    }
}

impl Signer {
    /// The signature of a digest.
    ///
    /// # Errors
    /// [`SecureBootError::Command`] and [`SecureBootError::Mismatch`].
    pub fn sign(
        &self,
        what: &str,
        digest: &[u8; 32],
        certificate: &Certificate,
    ) -> Result<Vec<u8>, SecureBootError> {
        let signature = match self {
            Self::Key(key) => sign_with(key, digest)?,
            Self::Command(command) => ask(command, what, digest)?,
        };
        if verifies(certificate.key(), digest, &signature) {
            return Ok(signature);
        }
        Err(match self {
            Self::Key(_) => SecureBootError::Mismatch {
                subject: certificate.subject(),
            },
            Self::Command(command) => failed(
                command,
                format!(
                    "wrote {} bytes that are no signature by the key of {}",
                    signature.len(),
                    certificate.subject()
                ),
            ),
        })
    }

    /// Whether the key is the certificate's; a command is not asked.
    ///
    /// # Errors
    /// [`SecureBootError::Mismatch`].
    pub fn check(&self, certificate: &Certificate) -> Result<(), SecureBootError> {
        match self {
            Self::Key(key) if key.to_public_key() != *certificate.key() => {
                Err(SecureBootError::Mismatch {
                    subject: certificate.subject(),
                })
            }
            _ => Ok(()),
        }
    }
}

/// Random numbers only blind the computation: the signature is always the same.
pub(super) fn sign_with(key: &RsaPrivateKey, digest: &[u8; 32]) -> Result<Vec<u8>, rsa::Error> {
    key.sign_with_rng(&mut OsRng, padding(), digest)
}

pub(super) fn verifies(key: &RsaPublicKey, digest: &[u8; 32], signature: &[u8]) -> bool {
    key.verify(padding(), digest, signature).is_ok()
}

fn padding() -> Pkcs1v15Sign {
    Pkcs1v15Sign {
        hash_len: Some(32),
        prefix: Box::new(DIGEST_INFO),
    }
}

fn failed(command: &SignCommand, reason: String) -> SecureBootError {
    SecureBootError::Command {
        command: command.words.join(" "),
        reason,
    }
}

fn ask(command: &SignCommand, what: &str, digest: &[u8; 32]) -> Result<Vec<u8>, SecureBootError> {
    let fail = |reason: String| failed(command, reason);
    let (program, arguments) = command
        .words
        .split_first()
        .ok_or_else(|| fail("is empty".to_owned()))?;
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(&command.folder)
        .env("CORACLE_SIGN", what)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| fail(format!("does not start: {error}")))?;
    // A program that does not read its input shows that by what it writes.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(digest);
    }
    let output = child.stdout.take();
    let (give, written) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.map(|output| output.take(OUTPUT_CAP).read_to_end(&mut bytes));
        // Nobody listens any more once the time is over.
        let _ = give.send(read.transpose().map(|_| bytes));
    });
    let deadline = Instant::now() + command.time_limit;
    let status = match wait(&mut child, deadline) {
        Ok(Some(status)) => status,
        Ok(None) => {
            let _ = child.kill();
            let _ = child.wait();
            let seconds = command.time_limit.as_secs();
            return Err(fail(format!(
                "was stopped: it took longer than {seconds} s"
            )));
        }
        Err(error) => return Err(fail(format!("cannot be waited for: {error}"))),
    };
    if !status.success() {
        return Err(fail(format!("failed: {status}")));
    }
    // An agent that it started may hold its output open for ever.
    match written.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(fail(format!("gave no output: {error}"))),
        Err(_) => Err(fail(
            "ended, but something that it started holds its output open".to_owned(),
        )),
    }
}

fn wait(child: &mut Child, deadline: Instant) -> std::io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(10));
    }
}
