//! DNS messages in a stream: two bytes of length in front of each (RFC 1035 §4.2.2).

/// What has come of a stream and is no whole message yet.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next whole message. `Err`: it says to be longer than `most` bytes.
    ///
    /// # Errors
    /// The stream is of no more use then.
    pub fn next(&mut self, most: usize) -> Result<Option<Vec<u8>>, TooLong> {
        let Some((length, rest)) = self.bytes.split_first_chunk() else {
            return Ok(None);
        };
        let length = usize::from(u16::from_be_bytes(*length));
        if length > most {
            return Err(TooLong);
        }
        let Some(message) = rest.get(..length) else {
            return Ok(None);
        };
        let message = message.to_vec();
        self.bytes.drain(..2 + length);
        Ok(Some(message))
    }

    /// Whether [`Frames::next`] would have something to say.
    #[must_use]
    pub fn has_whole(&self) -> bool {
        let length = self.bytes.split_first_chunk();
        length.is_some_and(|(length, rest)| rest.len() >= u16::from_be_bytes(*length).into())
    }

    /// How many bytes there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Nothing is left over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A message is longer than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLong;

/// A message with its length in front; nothing for one that no length can say.
#[must_use]
pub fn frame(message: &[u8]) -> Vec<u8> {
    let Ok(length) = u16::try_from(message.len()) else {
        return Vec::new();
    };
    let mut bytes = length.to_be_bytes().to_vec();
    bytes.extend_from_slice(message);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_came_in() {
        let stream = [frame(b"one"), frame(b""), frame(b"three")].concat();
        for step in 1..stream.len() {
            let mut frames = Frames::default();
            let mut messages = Vec::new();
            for part in stream.chunks(step) {
                frames.push(part);
                while let Some(message) = frames.next(5).unwrap() {
                    messages.push(message);
                }
            }
            assert_eq!(messages, [&b"one"[..], b"", b"three"]);
            assert!(frames.is_empty());
        }
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_has_come() {
        let mut frames = Frames::default();
        frames.push(&[0, 6]);
        assert_eq!(frames.next(6), Ok(None));
        assert_eq!(frames.next(5), Err(TooLong));
        assert!(frame(&vec![0; 1 << 16]).is_empty());
    }
}
