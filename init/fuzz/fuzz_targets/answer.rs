//! What a name server sends: what is kept of it can be read again, and answers what was asked. The question is given, as
//! the number is, so that the fuzzer gets behind them.
#![no_main]

use coracle_init::net::resolver::question::Key;
use coracle_init::net::resolver::upstream::{Outcome, accept};
use domain::base::Name;
use domain::base::iana::Rtype;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = Name::vec_from_str("www.example.org").expect("a name");
    let Some((&[choice, flags, code, answers, others], rest)) = bytes.split_first_chunk() else {
        return;
    };
    let types = [Rtype::A, Rtype::TXT, Rtype::ANY, Rtype::CNAME, Rtype::SRV, Rtype::DS];
    let rtype = types[usize::from(choice >> 1) % types.len()];
    let mut key = Key::new(&name, rtype);
    key.dnssec_ok = choice & 1 == 1;
    let mut message = vec![0, 0, 0x80 | flags & 0x87, code, 0, 1];
    message.extend([0, answers % 8, 0, others % 8, 0, others >> 7]);
    message.extend(name.as_slice());
    message.extend(rtype.to_int().to_be_bytes());
    message.extend([0, 1]);
    message.extend(rest);
    // The whole, too, with a head of the fuzzer's.
    for message in [message.as_slice(), bytes] {
        if let Outcome::Answer(answer, _) = accept(message, &key, 0, true) {
            let message = answer.message();
            assert!(message.sole_question().is_ok_and(|it| it.qtype() == rtype));
            let records = message.answer().into_iter().flatten();
            let mut records = records.chain(message.authority().into_iter().flatten());
            assert!(records.all(|record| record.is_ok()));
        }
    }
});
