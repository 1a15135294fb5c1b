//! What must hold for any bytes that reach a parser of the builder.
//!
//! Used by the fuzz targets and by `tests/properties.rs`. Each function panics if its property does not hold.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use builder::format::erofs;
use builder::format::region::Region;
use builder::format::{fat, gpt, pe};
use builder::image::DiskImage;
use builder::lock::{Lock, Pinned, Pins};
use builder::progress::Progress;
use builder::source::cache::{Cache, CacheKind};
use builder::source::image::Image;
use builder::source::kernel::Kernel;
use builder::source::layer::read_tar;
use builder::source::trust::{cosign, openpgp};
use builder::source::{debian, load, modules};
use builder::tree::{Content, Kind, Tree};
use sha2::{Digest, Sha256};

/// The most bytes that are read of one file of a broken file system.
const READ_CAP: u64 = 1 << 20;

/// A folder for the bytes, and a cache.
pub struct Place {
    folder: tempfile::TempDir,
    cache: Cache,
}

impl Default for Place {
    fn default() -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let cache = Cache::open(Some(&folder.path().join("cache"))).expect("a cache is made");
        Self { folder, cache }
    }
}

impl Place {
    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        let parent = path.parent().expect("it is in the folder");
        fs::create_dir_all(parent).expect("a folder is made");
        fs::write(&path, bytes).expect("there is room for the bytes");
        path
    }

    fn load(&self, reference: &str) {
        let progress = Progress::silent();
        if let Ok(image) = load(reference, self.folder.path(), &self.cache, &progress) {
            check_image(&image);
        }
        assert_no_litter(&self.cache);
    }

    /// A layer's archive.
    pub fn archive(&self, bytes: &[u8]) {
        let path = self.put("layer.tar", bytes);
        if let Ok(layer) = read_tar(&path, "00", &self.cache) {
            check_tree(&layer.tree);
        }
        // What was expanded of an earlier archive is not this one's.
        let _ = fs::remove_dir_all(self.cache.root().join("sparse"));
        assert_no_litter(&self.cache);
    }

    /// An App Container image.
    pub fn aci(&self, bytes: &[u8]) {
        self.put("app.aci", bytes);
        self.load("aci:app.aci");
    }

    /// The archive of an OCI layout.
    pub fn oci_archive(&self, bytes: &[u8]) {
        self.put("app.tar", bytes);
        self.load("oci-archive:app.tar");
    }

    /// What `docker save` writes.
    pub fn docker_archive(&self, bytes: &[u8]) {
        self.put("app.tar", bytes);
        self.load("docker-archive:app.tar");
    }

    /// The index of a layout that has nothing else.
    pub fn index(&self, bytes: &[u8]) {
        self.put("layout/oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        self.put("layout/index.json", bytes);
        self.load("oci:layout");
    }

    /// A Debian package, which its digest names.
    pub fn package(&self, bytes: &[u8]) {
        let sha256 = format!("{:x}", Sha256::digest(bytes));
        let put = self.cache.put(CacheKind::Blob, &sha256, |file| {
            std::io::Write::write_all(file, bytes).expect("there is room for the bytes");
            Ok::<(), builder::source::cache::CacheError>(())
        });
        put.expect("an entry is made");
        let pin = Pinned {
            name: "a".into(),
            version: "1".into(),
            architecture: "all".into(),
            sha256,
            size: bytes.len() as u64,
            filename: "pool/a.deb".into(),
        };
        if let Ok(tree) = debian::read_package(&pin, None, &self.cache, &Progress::silent()) {
            check_tree(&tree);
        }
        assert_no_litter(&self.cache);
    }

    /// A kernel module.
    pub fn module(&self, bytes: &[u8]) {
        let image = self.put("vmlinuz", b"kernel");
        let folder = self.folder.path().join("modules/6.1");
        self.put("modules/6.1/kernel/a.ko", bytes);
        if let Ok(kernel) = Kernel::from_paths(&image, &folder) {
            let _ = modules::resolve(&kernel, &["a"], &self.cache);
        }
    }

    /// A whole disk.
    pub fn disk(&self, bytes: &[u8]) {
        let path = self.put("a.img", bytes);
        let Ok(image) = DiskImage::open(&path) else {
            return;
        };
        if let Ok(uki) = image.uki()
            && let Some(hash) = uki.root_hash()
        {
            let _ = image.verify(&hash);
        }
        let _ = image.boot_spec();
    }

    /// A partition table.
    pub fn partition_table(&self, bytes: &[u8]) {
        let file = self.open(bytes);
        if let Ok(table) = gpt::read(&file) {
            assert!(table.disk_len <= bytes.len() as u64);
        }
    }

    /// A FAT file system.
    pub fn fat(&self, bytes: &[u8]) {
        let file = self.open(bytes);
        let region = Region::new(&file, 0, bytes.len() as u64);
        if let Ok(files) = fat::list(&region) {
            for listed in files.iter().take(16) {
                let _ = fat::read_file(&region, &listed.path);
            }
        }
    }

    /// An EROFS file system.
    pub fn erofs(&self, bytes: &[u8]) {
        let file = self.open(bytes);
        let region = Region::new(&file, 0, bytes.len() as u64);
        let Ok(image) = erofs::Image::open(region) else {
            return;
        };
        for (_, node) in image.walk().into_iter().flatten().take(64) {
            let _ = image.content(&node, READ_CAP);
            let _ = image.xattrs(&node);
        }
    }

    /// `coracle.lock`.
    pub fn lock(&self, bytes: &[u8]) {
        let path = self.put("coracle.lock", bytes);
        let _ = Lock::open(&path, Pins::Keep);
    }

    fn open(&self, bytes: &[u8]) -> File {
        File::open(self.put("bytes", bytes)).expect("it was just written")
    }
}

/// An EFI binary: its sections lie inside, and it takes more of them or refuses.
pub fn pe(bytes: &[u8]) {
    if let Ok(sections) = pe::sections(bytes) {
        for section in &sections {
            let _ = section.data(bytes);
        }
    }
    let _ = pe::append_sections(bytes, &[(".cmdline", b"quiet"), (".linux", &[0; 5000])]);
}

/// Keys and detached signatures.
pub fn signature(bytes: &[u8]) {
    let open = || Ok(&b"an image"[..]);
    let _ = cosign::CosignKey::parse(bytes);
    if let Ok(certificates) = openpgp::parse(bytes) {
        let _ = openpgp::verify(&certificates, bytes, open, 2_000_000_000);
    }
    // Without a key nothing holds.
    assert!(openpgp::verify(&[], bytes, open, 2_000_000_000).is_err());
}

/// Nothing of a layer lies elsewhere than in its archive, and no name leads away.
fn check_tree(tree: &Tree) {
    for (path, id) in tree.walk() {
        assert!(!path.split(|b| *b == b'/').any(|name| name == b".."));
        if let Kind::File(Content::Range { path, offset, len }) = &tree.inode(id).kind {
            let end = offset.checked_add(*len).expect("a range has an end");
            assert!(end <= length(path), "{path:?}");
        }
    }
}

fn check_image(image: &Image) {
    image
        .layers
        .iter()
        .for_each(|layer| check_tree(&layer.tree));
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).expect("the archive is there").len()
}

fn assert_no_litter(cache: &Cache) {
    let left = fs::read_dir(cache.root().join("tmp")).expect("the cache has it");
    assert_eq!(left.count(), 0, "litter");
}
