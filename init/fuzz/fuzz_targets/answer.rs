//! What a name server sends: what is kept of it can be read again, and answers what was asked.
#![no_main]

use coracle_init::net::resolver::question::Key;
use coracle_init::net::resolver::upstream::{Outcome, accept};
use domain::base::Name;
use domain::base::iana::Rtype;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let name = Name::vec_from_str("www.example.org").expect("a name");
    for rtype in [Rtype::A, Rtype::TXT, Rtype::ANY] {
        let mut key = Key::new(&name, rtype);
        key.dnssec_ok = bytes.first().is_some_and(|byte| byte & 1 == 1);
        // The number is the fuzzer's, so that it gets further than to there.
        let id = bytes.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        if let Outcome::Answer(answer, _) = accept(bytes, &key, id, true) {
            let message = answer.message();
            assert!(message.sole_question().is_ok_and(|it| it.qtype() == rtype));
            assert!(message.answer().into_iter().flatten().all(|record| record.is_ok()));
        }
    }
});
