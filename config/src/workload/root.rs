//! Where a workload's root comes from.

use toml::Spanned;

use crate::diagnostic::Diagnostic;
use crate::manifest::{self, Text};
use crate::mistakes::Mistakes;
use crate::registry::Reference;
use crate::value::{self, ImageReference};

/// Where a workload's root comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// An image, `TRANSPORT:PATH[:TAG]`, relative to the file's folder.
    Image(Text),
    /// An image in a registry, and its place.
    Registry(Spanned<Reference>),
    /// Debian packages with all they depend on.
    Debian(Spanned<Vec<String>>),
}

pub(super) fn source(name: &Text, from: &manifest::Workload, mistakes: &mut Mistakes) -> Source {
    let nothing = || Source::Debian(Spanned::new(name.span(), Vec::new()));
    match (&from.image, &from.debian) {
        (Some(image), None) => match mistakes.take(value::image_reference(image)) {
            Some(ImageReference::Registry(reference)) => {
                Source::Registry(Spanned::new(image.span(), reference))
            }
            _ => Source::Image(image.clone()),
        },
        (None, Some(packages)) => {
            if packages.get_ref().is_empty() {
                mistakes.push(
                    Diagnostic::at(packages.span(), "`debian` names no package")
                        .hint("as in debian = [\"nginx-light\"]"),
                );
            }
            Source::Debian(Spanned::new(
                packages.span(),
                mistakes.take_all(packages.get_ref(), value::package),
            ))
        }
        (Some(image), Some(_)) => {
            mistakes.push(
                Diagnostic::at(
                    image.span(),
                    format!(
                        "workload `{}` has both `image` and `debian`",
                        name.get_ref()
                    ),
                )
                .hint("its root comes from one of them: remove the other"),
            );
            nothing()
        }
        (None, None) => {
            mistakes.push(
                Diagnostic::at(
                    name.span(),
                    format!("workload `{}` has no image", name.get_ref()),
                )
                .hint(
                    "add image = \"HOST/NAME:TAG\", image = \"oci:DIR\" or debian = [\"PACKAGE\"]",
                ),
            );
            nothing()
        }
    }
}
