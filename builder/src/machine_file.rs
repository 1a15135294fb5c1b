//! The machine's file on the disk: read, parsed, and held against what it refers to.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use config::manifest::Text;
use config::spec::{FileContent, KernelSource, SignedBy, Source};
use config::{Diagnostic, Diagnostics, Spec};

use crate::failure::Failure;
use crate::source;

/// The most bytes a machine's file may have: far above any real one.
const MAX_LEN: u64 = 4 << 20;

/// A validated file.
#[derive(Debug)]
pub struct MachineFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it says.
    pub spec: Spec,
    text: String,
}

impl MachineFile {
    /// Reads and validates a file, and checks that the files it refers to exist.
    ///
    /// # Errors
    /// [`Failure::File`] with every mistake, or [`Failure::Input`] with the reason why the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, Failure> {
        let text = read(path)?;
        let spec = config::parse(&text).map_err(|mistakes| rendered(path, &text, mistakes))?;
        let file = Self {
            path: path.to_owned(),
            spec,
            text,
        };
        let missing = file.missing_references();
        if missing.is_empty() {
            Ok(file)
        } else {
            Err(rendered(path, &file.text, Diagnostics(missing)))
        }
    }

    /// The folder that the file's relative paths start from.
    pub fn folder(&self) -> &Path {
        match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        }
    }

    /// A failure at a place in the file.
    pub fn mistake(&self, diagnostic: Diagnostic) -> Failure {
        rendered(&self.path, &self.text, diagnostic.into())
    }

    /// A failure of the work at what a place in the file names: the file may be right and the thing broken.
    pub fn failed_at(&self, diagnostic: Diagnostic) -> Failure {
        match self.mistake(diagnostic) {
            Failure::File {
                file,
                text,
                mistakes,
                ..
            } => Failure::File {
                file,
                text,
                mistakes,
                code: 1,
            },
            other => other,
        }
    }

    fn missing_references(&self) -> Vec<Diagnostic> {
        let mut files: Vec<&Text> = Vec::new();
        let mut missing = Vec::new();
        if let Some((loader, stub)) = &self.spec.boot_files {
            files.extend([loader, stub]);
        }
        if let KernelSource::Files { image, modules } = &self.spec.kernel {
            files.extend([image, modules]);
        }
        if let Some(secure_boot) = &self.spec.secure_boot {
            files.push(&secure_boot.certificate);
            files.extend(&secure_boot.enroll);
            if let SignedBy::Key(key) = &secure_boot.signed_by {
                files.push(key);
            }
        }
        for workload in &self.spec.workloads {
            if let Source::Image(text) = &workload.source {
                let path = source::referenced_path(text.get_ref(), self.folder());
                missing.extend(missing_at(text, &path));
            }
            for file in &workload.files {
                if let FileContent::Host(text) = &file.content {
                    files.push(text);
                }
            }
        }
        missing.extend(
            files
                .into_iter()
                .filter_map(|text| missing_at(text, &self.folder().join(text.get_ref()))),
        );
        missing
    }
}

/// The mistake of naming a path that does not exist.
fn missing_at(text: &Text, path: &Path) -> Option<Diagnostic> {
    if path.exists() {
        return None;
    }
    let hint = format!(
        "{} does not exist; paths start from the file's own folder",
        path.display()
    );
    Some(Diagnostic::at(text.span(), format!("`{}`: no such file", text.get_ref())).hint(hint))
}

fn read(path: &Path) -> Result<String, Failure> {
    let cannot =
        |why: String| Failure::Input(format!("error: cannot read {}: {why}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|e| cannot(e.to_string()))?;
    // Opening a FIFO would wait for somebody to write to it; a device has no end.
    if !metadata.is_file() {
        return Err(cannot("it is no regular file".to_owned()));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LEN + 1).read_to_end(&mut bytes))
        .map_err(|e| cannot(e.to_string()))?;
    if bytes.len() as u64 > MAX_LEN {
        return Err(cannot(format!(
            "a machine's file has at most {MAX_LEN} bytes"
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes());
        let span = at..at + '\u{fffd}'.len_utf8();
        let mistake = Diagnostic::at(span, format!("byte {at} is not UTF-8"))
            .hint("TOML is UTF-8: save the file in this encoding");
        rendered(path, &text, mistake.into())
    })
}

fn rendered(path: &Path, text: &str, mistakes: Diagnostics) -> Failure {
    Failure::File {
        file: path.display().to_string(),
        text: text.to_owned(),
        mistakes,
        code: 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_file_refers_to_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("os.toml");
        std::fs::write(
            &path,
            "name = \"a\"\n[workload.w]\nimage = \"oci:none:latest\"\n",
        )
        .unwrap();
        let Err(failure) = MachineFile::load(&path) else {
            panic!("accepted")
        };
        let text = failure.render();
        assert!(
            text.contains("os.toml:3:9") && text.contains("no such file"),
            "{text}"
        );
        std::fs::create_dir(folder.path().join("none")).unwrap();
        assert!(MachineFile::load(&path).is_ok());
        // A tag may have colons, a folder of `dir:` has no tag: as the build reads them.
        let load = |reference: &str| {
            let text = format!("name = \"a\"\n[workload.w]\nimage = \"{reference}\"\n");
            std::fs::write(&path, text).unwrap();
            MachineFile::load(&path)
        };
        assert!(load("oci:none:host:5000").is_ok());
        assert!(load("dir:none:latest").is_err());
    }

    #[test]
    fn a_file_that_is_no_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("os.toml");
        std::fs::write(&path, b"name = \"\xff\"").unwrap();
        let Err(failure) = MachineFile::load(&path) else {
            panic!("accepted")
        };
        let text = failure.render();
        assert!(
            text.contains("byte 8 is not UTF-8") && text.contains("os.toml:1:9"),
            "{text}"
        );
    }

    #[test]
    fn what_is_no_file_or_too_long_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long.toml");
        std::fs::write(&long, vec![b'#'; 5 << 20]).unwrap();
        for (path, want) in [
            (folder.path(), "it is no regular file"),
            (Path::new("/dev/zero"), "it is no regular file"),
            (&long, "at most 4194304 bytes"),
        ] {
            let Err(Failure::Input(text)) = MachineFile::load(path) else {
                panic!("accepted")
            };
            assert!(text.contains(want), "{text}");
        }
    }
}
