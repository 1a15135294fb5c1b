//! Hostile packets for tests: random ones, and good ones with some bytes changed, cut or repeated. The same each time.

/// A sequence of numbers (xorshift64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % limit.max(1)
    }

    fn byte(&mut self) -> u8 {
        u8::try_from(self.below(256)).unwrap()
    }
}

/// Gives `take` so many times 0 to `most` random bytes.
pub(crate) fn random_bytes(rounds: usize, most: usize, mut take: impl FnMut(&[u8])) {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..rounds {
        let length = numbers.below(most + 1);
        let bytes: Vec<u8> = (0..length).map(|_| numbers.byte()).collect();
        take(&bytes);
    }
}

/// Gives `take` so many times `good` with up to eight changes.
pub(crate) fn mutated(rounds: usize, good: &[u8], mut take: impl FnMut(&[u8])) {
    let mut numbers = Numbers(0x2545_f491_4f6c_dd1d);
    for _ in 0..rounds {
        let mut bytes = good.to_vec();
        for _ in 0..=numbers.below(8) {
            let at = numbers.below(bytes.len());
            match numbers.below(8) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, numbers.byte()),
                2 => bytes.extend_from_within(at..),
                3 if at < bytes.len() => bytes[at] = [0, 1, 127, 128, 255][numbers.below(5)],
                _ if at < bytes.len() => bytes[at] = numbers.byte(),
                _ => {}
            }
            bytes.truncate(4096);
        }
        take(&bytes);
    }
}
