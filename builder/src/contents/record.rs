//! Making the record: most of it from a build's inputs, without I/O; the files of the EFI system partition once they are
//! packed.

use std::collections::BTreeMap;

use config::Spec;
use sha2::{Digest as _, Sha256};

use super::{
    BootFiles, CONTENTS_FORMAT, Contents, Kernel, Layer, Loader, Package, Program, Source,
    Workload, crates,
};
use crate::bundle::LAYERS_DIR;
use crate::guest;
use crate::identity::hex;
use crate::inputs::{Inputs, WorkloadInput};
use crate::lock::Pinned;
use crate::plan::layer_name;
use crate::source::origin::Origin;
use crate::tree::{Kind, Tree};

impl Contents {
    /// The record of a build, without its boot files.
    pub(crate) fn of(spec: &Spec, inputs: &Inputs, epoch: i64) -> Self {
        let mut packages = Packages::of(inputs);
        let mut layers: Vec<Layer> = Vec::new();
        let workloads = inputs.workloads.iter();
        let workloads = workloads
            .map(|input| workload(input, &mut packages, &mut layers))
            .collect();
        Self {
            format: CONTENTS_FORMAT,
            coracle: env!("CARGO_PKG_VERSION").to_owned(),
            name: spec.name.clone(),
            version: spec.version.clone(),
            epoch,
            kernel: Kernel {
                release: inputs.kernel.release.clone(),
                package: packages.place(inputs.kernel.package.as_ref()),
            },
            loader: Loader {
                version: inputs.efi.version.clone(),
                package: packages.place(inputs.efi.package.as_ref()),
            },
            programs: vec![
                program("coracle-init", guest::INIT),
                program("coracle-runtime", guest::RUNTIME),
            ],
            crates: crates::crates(),
            packages: packages.list,
            layers,
            workloads,
            boot: BootFiles::default(),
        }
    }
}

/// The packages of a build, each once, in the order of their names.
struct Packages {
    list: Vec<Package>,
    places: BTreeMap<Package, usize>,
}

impl Packages {
    fn of(inputs: &Inputs) -> Self {
        let of_workloads = inputs
            .workloads
            .iter()
            .flat_map(|input| match &input.origin {
                Origin::Debian { packages, .. } => &packages[..],
                Origin::Image { .. } => &[],
            });
        let of_boot = [&inputs.kernel.package, &inputs.efi.package];
        let all = of_boot.into_iter().flatten().chain(of_workloads);
        let mut list: Vec<Package> = all.map(package).collect();
        list.sort();
        list.dedup();
        let places = list.iter().cloned().zip(0..).collect();
        Self { list, places }
    }

    fn place(&self, pin: Option<&Pinned>) -> Option<usize> {
        self.places.get(&package(pin?)).copied()
    }
}

fn package(pin: &Pinned) -> Package {
    Package {
        name: pin.name.clone(),
        version: pin.version.clone(),
        architecture: pin.architecture.clone(),
        sha256: pin.sha256.clone(),
        size: pin.size,
        filename: pin.filename.clone(),
    }
}

fn program(name: &str, bytes: &[u8]) -> Program {
    Program {
        name: name.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        size: bytes.len() as u64,
        sha256: hex(&Sha256::digest(bytes)),
    }
}

fn workload(input: &WorkloadInput, packages: &mut Packages, layers: &mut Vec<Layer>) -> Workload {
    let mut places = Vec::new();
    for layer in &input.layers {
        let known = layers.iter().position(|known| known.id == layer.id);
        places.push(known.unwrap_or(layers.len()));
        if known.is_none() {
            let (names, bytes) = measure(&layer.tree);
            layers.push(Layer {
                path: format!("{LAYERS_DIR}/{}", layer_name(&layer.id)),
                id: layer.id.clone(),
                names,
                bytes,
            });
        }
    }
    let source = match &input.origin {
        Origin::Image {
            reference,
            digest,
            signers,
        } => Source::Image {
            reference: reference.clone(),
            digest: digest.clone(),
            signed_by: signers.iter().map(|signer| signer.key.clone()).collect(),
        },
        Origin::Debian {
            requested,
            suite,
            packages: pins,
        } => Source::Debian {
            requested: requested.clone(),
            suite: suite.clone(),
            packages: pins
                .iter()
                .filter_map(|pin| packages.place(Some(pin)))
                .collect(),
        },
    };
    Workload {
        name: input.workload.name.clone(),
        source,
        layers: places,
        own_layer: input.own_layer,
    }
}

/// Names in a tree, its root left out, and bytes of regular files behind them.
fn measure(tree: &Tree) -> (u64, u64) {
    let mut names = 0;
    let mut bytes = 0;
    for (path, id) in tree.walk() {
        names += u64::from(!path.is_empty());
        if let Kind::File(content) = &tree.inode(id).kind {
            bytes += content.len();
        }
    }
    (names, bytes)
}
