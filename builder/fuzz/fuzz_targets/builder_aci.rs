//! See `properties::Place::aci`.
#![no_main]

use std::sync::LazyLock;

use coracle_builder_fuzz::properties::Place;

static PLACE: LazyLock<Place> = LazyLock::new(Place::default);

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| PLACE.aci(bytes));
