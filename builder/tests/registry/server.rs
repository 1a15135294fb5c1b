//! A server of HTTP whose answers are a test's own, and an image for it to serve.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use sha2::{Digest, Sha256};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is answered.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// The body ends after so many bytes, whatever its length says.
    pub(crate) cut: Option<usize>,
    /// Nothing comes for so long after the cut.
    pub(crate) stall: Duration,
    /// The body comes again and again, without a length.
    pub(crate) endless: bool,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
            cut: None,
            stall: Duration::ZERO,
            endless: false,
        }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }
}

/// A running server; its threads end with the test's process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    pub(crate) fn new(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (answer.clone(), log.clone());
                thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    log.lock().unwrap().push(request.clone());
                    // The client may hang up in the middle.
                    let _ = write(stream, answer(&request));
                });
            }
        });
        Self { address, asked }
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked()
            .iter()
            .filter(|asked| asked.path.contains(part))
            .count()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    lines.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        lines.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers
        .get("content-length")
        .map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    lines.read_exact(&mut body).ok()?;
    Some(Asked {
        method,
        path,
        headers,
        body: String::from_utf8(body).ok()?,
    })
}

fn write(mut stream: TcpStream, reply: Reply) -> std::io::Result<()> {
    write!(
        stream,
        "HTTP/1.1 {} X\r\nConnection: close\r\n",
        reply.status
    )?;
    for (name, value) in &reply.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    if reply.endless {
        write!(stream, "\r\n")?;
        loop {
            stream.write_all(&reply.body)?;
        }
    }
    write!(stream, "Content-Length: {}\r\n\r\n", reply.body.len())?;
    stream.write_all(&reply.body[..reply.cut.unwrap_or(reply.body.len())])?;
    stream.flush()?;
    thread::sleep(reply.stall);
    Ok(())
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    format!("sha256:{hex}")
}

/// An image of two layers, gzip and zstd, with an index over it.
#[derive(Clone)]
pub(crate) struct Served {
    /// By digest, and by tag.
    pub(crate) documents: BTreeMap<String, Vec<u8>>,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    pub(crate) layers: Vec<String>,
    pub(crate) manifest: String,
    pub(crate) index: String,
}

/// The content of `/data`: longer than what fits into a socket's buffers at once would be slow, shorter would not break.
pub(crate) fn content() -> Vec<u8> {
    (0..60_000u32)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect()
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = vec![0u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..107].copy_from_slice(b"0000644");
    header[108..115].copy_from_slice(b"0000000");
    header[116..123].copy_from_slice(b"0000000");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[136..147].copy_from_slice(b"00000000000");
    header[148..156].copy_from_slice(b"        ");
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    header.extend_from_slice(content);
    header.resize(header.len().div_ceil(512) * 512 + 1024, 0);
    header
}

fn packed(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(tool)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).unwrap());
        child.wait_with_output().unwrap().stdout
    })
}

impl Served {
    pub(crate) fn new() -> Self {
        let plain = [tar("hello", b"hello\n"), tar("data", &content())];
        let layers = [packed("gzip", &plain[0]), packed("zstd", &plain[1])];
        let diff_ids = plain.each_ref().map(|tar| digest(tar));
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/hello"]}},"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#,
            diff_ids[0], diff_ids[1]
        );
        let descriptor = |media_type: &str, bytes: &[u8]| {
            format!(
                r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#,
                digest(bytes),
                bytes.len()
            )
        };
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json","config":{},"layers":[{},{}]}}"#,
            descriptor(
                "application/vnd.docker.container.image.v1+json",
                config.as_bytes()
            ),
            descriptor(
                "application/vnd.docker.image.rootfs.diff.tar.gzip",
                &layers[0]
            ),
            descriptor("application/vnd.oci.image.layer.v1.tar+zstd", &layers[1]),
        );
        let mut all = Self {
            documents: BTreeMap::new(),
            blobs: BTreeMap::new(),
            layers: layers.iter().map(|layer| digest(layer)).collect(),
            manifest: digest(manifest.as_bytes()),
            index: String::new(),
        };
        for blob in layers.into_iter().chain([config.into_bytes()]) {
            all.blobs.insert(digest(&blob), blob);
        }
        all.index = all.add_index(&manifest, "linux", "amd64");
        all.documents
            .insert(all.manifest.clone(), manifest.into_bytes());
        let index = all.documents[&all.index].clone();
        all.documents.insert("1".to_owned(), index);
        all
    }

    /// An index with the document for a platform, and one for another.
    pub(crate) fn add_index(&mut self, document: &str, os: &str, architecture: &str) -> String {
        let index = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
            {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":2,"platform":{{"os":"linux","architecture":"arm64"}}}},
            {{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{}","size":{},"platform":{{"os":"{os}","architecture":"{architecture}"}}}}]}}"#,
            digest(b"{}"),
            digest(document.as_bytes()),
            document.len()
        );
        let name = digest(index.as_bytes());
        self.documents.insert(name.clone(), index.into_bytes());
        name
    }

    /// A signature beside the document with a digest, as cosign puts it there.
    pub(crate) fn add_signature(&mut self, signed: &str, payload: &[u8], signature: &str) {
        let digest = digest(payload);
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":1}},"layers":[{{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json","digest":"{digest}","size":{},"annotations":{{"dev.cosignproject.cosign/signature":"{signature}"}}}}]}}"#,
            payload.len()
        );
        let tag = format!("{}.sig", signed.replace(':', "-"));
        self.documents.insert(tag, manifest.into_bytes());
        self.blobs.insert(digest, payload.to_vec());
    }

    /// What a good registry answers.
    pub(crate) fn reply(&self, asked: &Asked) -> Reply {
        let Some(rest) = asked.path.strip_prefix("/v2/team/app/") else {
            return Reply::new(
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known"}]}"#,
            );
        };
        let (kind, name) = rest.split_once('/').unwrap();
        let found = match kind {
            "manifests" => self.documents.get(name),
            _ => self.blobs.get(name),
        };
        let Some(bytes) = found else {
            return Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            );
        };
        let range = asked
            .header("range")
            .and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-'));
        match range {
            Some(from) => {
                let from: usize = from.parse().unwrap();
                let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                Reply::new(206, &bytes[from..]).header("Content-Range", &range)
            }
            None => Reply::new(200, bytes.as_slice()),
        }
    }
}
