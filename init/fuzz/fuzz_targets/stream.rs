//! What comes on a connection of the resolver's, in parts: it is the same in whatever parts it comes.
#![no_main]

use coracle_init::net::resolver::frames::Frames;

fn messages(parts: impl Iterator<Item = impl AsRef<[u8]>>) -> Vec<Vec<u8>> {
    let mut frames = Frames::default();
    let mut messages = Vec::new();
    for part in parts {
        frames.push(part.as_ref());
        while let Ok(Some(message)) = frames.next(1000) {
            messages.push(message);
        }
    }
    messages
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((step, bytes)) = bytes.split_first() else {
        return;
    };
    let step = usize::from(*step).max(1);
    assert_eq!(messages(bytes.chunks(step)), messages([bytes].into_iter()));
});
