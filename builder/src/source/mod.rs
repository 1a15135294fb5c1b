//! Everything that comes into an image: container images, Debian packages, kernels, boot loaders.
//!
//! Each source yields values (trees, contents as ranges of cached files); none writes an image. What comes from
//! outside is checked by digest where there is one, and refused by name where it is broken.

pub mod blob;
pub mod cache;
pub mod debian;
pub mod efi;
pub mod error;
pub mod image;
pub mod kernel;
pub mod layer;
pub mod modules;
mod pax;
pub mod tar;
pub mod user;
