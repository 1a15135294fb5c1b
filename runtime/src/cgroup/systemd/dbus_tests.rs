use super::*;

/// A message as a service sends it: the header fields given, and a body.
pub(in super::super) fn encode(kind: u8, fields: impl FnOnce(&mut Writer), body: &[u8]) -> Vec<u8> {
    let mut writer = Writer(vec![b'l', kind, 0, 1]);
    writer.u32(body.len() as u32);
    writer.u32(1);
    writer.array(8, fields);
    writer.align(8);
    writer.0.extend(body);
    writer.0
}

/// The answer to the call of a serial number; an error with a name.
pub(in super::super) fn reply(serial: u32, error: Option<&str>, body: &[u8]) -> Vec<u8> {
    let fields = |writer: &mut Writer| {
        writer.0.push(REPLY_SERIAL);
        writer.signature("u");
        writer.u32(serial);
        if let Some(name) = error {
            writer.align(8);
            writer.0.push(ERROR_NAME);
            writer.signature("s");
            writer.text(name);
        }
    };
    encode(if error.is_some() { ERROR } else { 2 }, fields, body)
}

pub(in super::super) fn signal(member: &str, body: &[u8]) -> Vec<u8> {
    let fields = |writer: &mut Writer| {
        writer.0.push(MEMBER);
        writer.signature("s");
        writer.text(member);
    };
    encode(SIGNAL, fields, body)
}

pub(in super::super) fn body(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::default();
    write(&mut writer);
    writer.0
}

#[test]
fn a_call_is_the_bytes_of_the_specification() {
    let call = encode_call(1, BUS, "Hello", "", &[]);
    let expected = b"l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00\x6e\x00\x00\x00\
        \x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00\
        \x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
        \x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00\
        \x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00";
    assert_eq!(call, expected);
    assert_eq!(call.len() % 8, 0);
}

#[test]
fn properties_are_aligned_structures() {
    let bytes = body(|writer| {
        writer.properties(&[
            ("A", Value::Bool(true)),
            ("B", Value::U32s(vec![7])),
            ("C", Value::U64(9)),
        ]);
    });
    let expected: &[u8] = &[
        64, 0, 0, 0, 0, 0, 0, 0, // length, and padding that does not count
        1, 0, 0, 0, b'A', 0, 1, b'b', 0, 0, 0, 0, 1, 0, 0, 0, // name, signature, value
        1, 0, 0, 0, b'B', 0, 2, b'a', b'u', 0, 0, 0, 4, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, //
        1, 0, 0, 0, b'C', 0, 1, b't', 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn what_is_not_the_protocol_is_refused_without_a_panic() {
    let good = reply(5, Some("org.x.Failed"), &body(|writer| writer.text("no")));
    for end in 0..good.len() {
        let (mut ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.write_all(&good[..end]).expect("written");
        drop(ours);
        let mut connection = Connection {
            stream: theirs,
            serial: 0,
            signals: VecDeque::new(),
        };
        assert!(connection.receive().is_err(), "{end} bytes");
    }
    for at in 0..good.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut bad = good.clone();
            bad[at] = byte;
            let fields = u32::from_le_bytes(bad[12..16].try_into().expect("four")) as usize;
            let _ = decode(bad[1], &bad[16..], fields.min(bad.len()));
        }
    }
}
