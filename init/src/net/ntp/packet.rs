//! NTP's 48 bytes (RFC 5905 §7.3), as a client sends and reads them.
//!
//! A codec of this program's own: the client crates that were looked at bring a whole protocol machine with threads or an
//! asynchronous runtime, or keep neither the root distance nor the kiss codes, which are needed here; the packet is the
//! small part. The request tells nothing of this machine: the only field that is set is the transmit timestamp, and it is
//! a random number, which a reply must repeat.

/// The bytes of a packet without extensions.
pub const SIZE: usize = 48;
/// Seconds from 1900 to 1970.
const UNIX_EPOCH: i64 = 2_208_988_800;
const NANOSECONDS: i64 = 1_000_000_000;
/// A server whose own time is that unsure is none (RFC 5905 appendix A.5.5.2, `MAXDIST`), in nanoseconds.
const MOST_DISTANCE: i64 = 1_500_000_000;
const MOST_STRATUM: u8 = 15;

/// What a leap second is announced for the end of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Leap {
    /// None.
    #[default]
    None,
    /// The last minute has 61 seconds.
    Inserted,
    /// The last minute has 59 seconds.
    Deleted,
}

/// What a server tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// The announcement.
    pub leap: Leap,
    /// How many servers there are between this one and a clock, with this one.
    pub stratum: u8,
    /// How unsure the server's time is: half its way to the clock and back, and what may have gone wrong there since; in
    /// nanoseconds.
    pub distance: i64,
    /// When the request came, in nanoseconds since 1970.
    pub received: i64,
    /// When the reply left.
    pub sent: i64,
}

/// Why a packet is no [`Reply`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unfit {
    /// It is not the reply to this request: the right one may still come.
    Foreign,
    /// The server is asked too often.
    TooOften,
    /// The server wants to be asked no more.
    Denied,
    /// The server has no time to give, or none that can be.
    Useless,
}

/// A request with this number.
#[must_use]
pub fn request(nonce: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    // No announcement, version 4, mode 3: a client.
    bytes[0] = 4 << 3 | 3;
    bytes[40..].copy_from_slice(&nonce.to_be_bytes());
    bytes
}

/// Reads the reply to [`request`]. `pivot`: timestamps are taken for the first time that they may mean from then on, in
/// seconds since 1970 (RFC 4330 §3); the machine's clock is not asked, as it may be wrong.
///
/// # Errors
/// What to make of a packet that tells no time.
pub fn parse(bytes: &[u8], nonce: u64, pivot: i64) -> Result<Reply, Unfit> {
    let (head, _) = bytes.split_first_chunk::<SIZE>().ok_or(Unfit::Foreign)?;
    let (leap, version, mode) = (head[0] >> 6, head[0] >> 3 & 7, head[0] & 7);
    if mode != 4 || !(3..=4).contains(&version) || word(head, 24) != nonce {
        return Err(Unfit::Foreign);
    }
    let stratum = head[1];
    if stratum == 0 {
        return Err(match &head[12..16] {
            b"RATE" => Unfit::TooOften,
            b"DENY" | b"RSTR" => Unfit::Denied,
            _ => Unfit::Useless,
        });
    }
    let leap = match leap {
        0 => Leap::None,
        1 => Leap::Inserted,
        2 => Leap::Deleted,
        _ => return Err(Unfit::Useless),
    };
    let distance = short(head, 4) / 2 + short(head, 8);
    let (received, sent) = (word(head, 32), word(head, 40));
    let is_usable =
        stratum <= MOST_STRATUM && distance <= MOST_DISTANCE && received != 0 && sent != 0;
    let reply = Reply {
        leap,
        stratum,
        distance,
        received: since_1970(received, pivot),
        sent: since_1970(sent, pivot),
    };
    if !is_usable || reply.sent < reply.received {
        return Err(Unfit::Useless);
    }
    Ok(reply)
}

fn word(bytes: &[u8; SIZE], at: usize) -> u64 {
    let field = bytes[at..at + 8].try_into().expect("eight bytes");
    u64::from_be_bytes(field)
}

/// Seconds with a fraction of 16 bits, in nanoseconds.
fn short(bytes: &[u8; SIZE], at: usize) -> i64 {
    let field = bytes[at..at + 4].try_into().expect("four bytes");
    (i64::from(u32::from_be_bytes(field)) * NANOSECONDS) >> 16
}

/// The time of a timestamp, whose seconds begin anew every 136 years.
fn since_1970(timestamp: u64, pivot: i64) -> i64 {
    let seconds = i64::try_from(timestamp >> 32).expect("32 bits");
    let fraction = i64::try_from(timestamp & 0xffff_ffff).expect("32 bits");
    let behind = (seconds - UNIX_EPOCH - pivot).rem_euclid(1 << 32);
    (pivot + behind) * NANOSECONDS + ((fraction * NANOSECONDS) >> 32)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const PIVOT: i64 = 1_735_689_600;

    fn timestamp(nanoseconds: i64) -> u64 {
        let seconds = nanoseconds.div_euclid(NANOSECONDS) + UNIX_EPOCH;
        let rest = nanoseconds.rem_euclid(NANOSECONDS);
        let fraction = (u128::try_from(rest).unwrap() << 32).div_ceil(1_000_000_000);
        u64::try_from(seconds & 0xffff_ffff).unwrap() << 32 | u64::try_from(fraction).unwrap()
    }

    /// What a good server answers to `request` at these times.
    pub(in super::super) fn reply(request: &[u8], received: i64, sent: i64) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        bytes[0] = 4 << 3 | 4;
        bytes[1] = 2;
        bytes[9..12].copy_from_slice(&[0, 0x10, 0]);
        bytes[24..32].copy_from_slice(&request[40..48]);
        bytes[32..40].copy_from_slice(&timestamp(received).to_be_bytes());
        bytes[40..48].copy_from_slice(&timestamp(sent).to_be_bytes());
        bytes
    }

    #[test]
    fn a_request_tells_nothing_and_its_reply_is_read() {
        let request = request(0x0123_4567_89ab_cdef);
        assert_eq!(request[0], 0x23);
        assert!(request[1..40].iter().all(|&byte| byte == 0));
        let now = 1_800_000_000 * NANOSECONDS + 250_000_000;
        let bytes = reply(&request, now, now + 1000);
        let read = parse(&bytes, 0x0123_4567_89ab_cdef, PIVOT).unwrap();
        assert_eq!((read.received, read.sent), (now, now + 1000));
        assert_eq!((read.leap, read.stratum), (Leap::None, 2));
        assert_eq!(read.distance, 62_500_000);
    }

    #[test]
    fn a_timestamp_means_the_first_time_behind_the_image() {
        for seconds in [
            PIVOT,
            PIVOT + 1,
            2_085_978_495,
            2_085_978_496,
            PIVOT + (1 << 32) - 1,
        ] {
            let time = seconds * NANOSECONDS;
            assert_eq!(since_1970(timestamp(time), PIVOT), time, "{seconds}");
        }
        let before = since_1970(timestamp((PIVOT - 1) * NANOSECONDS), PIVOT);
        assert_eq!(before, (PIVOT - 1 + (1 << 32)) * NANOSECONDS);
    }

    #[test]
    fn what_is_no_good_reply_is_refused() {
        let now = 1_800_000_000 * NANOSECONDS;
        let good = reply(&request(7), now, now);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = good.clone();
            change(&mut bytes);
            parse(&bytes, 7, PIVOT).err()
        };
        assert_eq!(with(&|_| {}), None);
        type Change<'a> = &'a dyn Fn(&mut Vec<u8>);
        let cases: [(Change<'_>, Unfit); 13] = [
            (&|bytes| bytes.truncate(47), Unfit::Foreign),
            (&|bytes| bytes[31] ^= 1, Unfit::Foreign),
            (&|bytes| bytes[0] = 4 << 3 | 3, Unfit::Foreign),
            (&|bytes| bytes[0] = 4 << 3 | 5, Unfit::Foreign),
            (&|bytes| bytes[0] = 7 << 3 | 4, Unfit::Foreign),
            (&|bytes| bytes[0] |= 3 << 6, Unfit::Useless),
            (&|bytes| bytes[1] = 16, Unfit::Useless),
            (&|bytes| bytes[9] = 0xff, Unfit::Useless),
            (&|bytes| bytes[40..].fill(0), Unfit::Useless),
            (&|bytes| bytes[36] = 1, Unfit::Useless),
            (&|bytes| kiss(bytes, b"RATE"), Unfit::TooOften),
            (&|bytes| kiss(bytes, b"DENY"), Unfit::Denied),
            (&|bytes| kiss(bytes, b"INIT"), Unfit::Useless),
        ];
        for (number, (change, expected)) in cases.iter().enumerate() {
            assert_eq!(with(change), Some(*expected), "{number}");
        }
        // A kiss that does not repeat the number is anybody's.
        let forged = |bytes: &mut Vec<u8>| {
            kiss(bytes, b"DENY");
            bytes[24] ^= 1;
        };
        assert_eq!(with(&forged), Some(Unfit::Foreign));
    }

    pub(in super::super) fn kiss(bytes: &mut [u8], code: &[u8; 4]) {
        bytes[1] = 0;
        bytes[12..16].copy_from_slice(code);
    }

    #[test]
    fn no_bytes_do_harm() {
        let mut state = 1_u64;
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..SIZE)
                .map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    state.to_be_bytes()[0]
                })
                .collect();
            let nonce = u64::from_be_bytes(bytes[24..32].try_into().unwrap());
            if let Ok(reply) = parse(&bytes, nonce, PIVOT) {
                assert!(reply.received >= PIVOT * NANOSECONDS);
            }
        }
    }
}
