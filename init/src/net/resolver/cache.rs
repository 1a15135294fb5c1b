//! Answers that are kept while they live; the ones that were not asked for the longest time go first.
//!
//! Nothing is served beyond its time. An answer of a name server counts for what was asked and for nothing else.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use super::answer::Answer;
use super::question::Key;

/// What an entry takes beside its answer and the names in its two keys, about.
const OVERHEAD: usize = 256;

#[derive(Debug)]
struct Entry {
    answer: Rc<Answer>,
    since: Duration,
    until: Duration,
    used: u64,
    size: usize,
}

/// Bounded in entries and in bytes.
#[derive(Debug)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    by_use: BTreeMap<u64, Key>,
    uses: u64,
    size: usize,
    most_entries: usize,
    most_bytes: usize,
}

impl Cache {
    /// Empty.
    #[must_use]
    pub fn new(most_entries: usize, most_bytes: usize) -> Self {
        Self {
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            size: 0,
            most_entries,
            most_bytes,
        }
    }

    /// An answer that still lives, with its age in seconds.
    pub fn get(&mut self, key: &Key, now: Duration) -> Option<(Rc<Answer>, u32)> {
        let entry = self.entries.get_mut(key)?;
        if entry.until <= now {
            self.remove(key);
            return None;
        }
        self.uses += 1;
        let key = self
            .by_use
            .remove(&entry.used)
            .expect("each entry has its use");
        entry.used = self.uses;
        self.by_use.insert(self.uses, key);
        let age = now.saturating_sub(entry.since).as_secs();
        Some((entry.answer.clone(), u32::try_from(age).unwrap_or(u32::MAX)))
    }

    /// Keeps an answer for so many seconds.
    pub fn insert(&mut self, key: Key, answer: Rc<Answer>, seconds: u32, now: Duration) {
        let size = OVERHEAD + 2 * key.name.len() + answer.size();
        if seconds == 0 || size > self.most_bytes / 16 {
            return;
        }
        self.remove(&key);
        self.uses += 1;
        let entry = Entry {
            answer,
            since: now,
            until: now + Duration::from_secs(seconds.into()),
            used: self.uses,
            size,
        };
        self.size += size;
        self.by_use.insert(self.uses, key.clone());
        self.entries.insert(key, entry);
        while self.entries.len() > self.most_entries || self.size > self.most_bytes {
            let (_, oldest) = self.by_use.first_key_value().expect("it is not empty");
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.by_use.remove(&entry.used);
            self.size -= entry.size;
        }
    }

    /// Forgets everything: other name servers may answer otherwise.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.by_use.clear();
        self.size = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::base::Name;
    use domain::base::iana::{OptRcode, Rtype};

    fn key(number: usize) -> Key {
        let name = Name::vec_from_str(&format!("host-{number}.example")).unwrap();
        Key::new(&name, Rtype::A)
    }

    fn answer(number: usize) -> Rc<Answer> {
        Rc::new(Answer::empty(&key(number), OptRcode::NXDOMAIN, false))
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_answer_lives_as_long_as_it_says() {
        let mut cache = Cache::new(10, 1 << 20);
        cache.insert(key(1), answer(1), 30, at(100));
        assert_eq!(cache.get(&key(1), at(129)), Some((answer(1), 29)));
        assert_eq!(cache.get(&key(2), at(129)), None);
        assert_eq!(cache.get(&key(1), at(130)), None);
        cache.insert(key(1), answer(1), 0, at(100));
        assert_eq!(cache.get(&key(1), at(100)), None, "for no time");
        assert_eq!((cache.size, cache.by_use.len()), (0, 0));
    }

    #[test]
    fn what_was_not_asked_for_longest_goes_first() {
        let mut cache = Cache::new(3, 1 << 20);
        for number in 0..3 {
            cache.insert(key(number), answer(number), 30, at(0));
        }
        assert!(cache.get(&key(0), at(1)).is_some());
        cache.insert(key(3), answer(3), 30, at(1));
        let mut there = |number| cache.get(&key(number), at(2)).is_some();
        assert_eq!([0, 1, 2, 3].map(&mut there), [true, false, true, true]);
    }

    #[test]
    fn its_bytes_are_bounded_and_counted_right() {
        let mut cache = Cache::new(usize::MAX, 32 << 10);
        for number in 0..1000 {
            cache.insert(key(number), answer(number), 30, at(0));
            cache.insert(key(number / 2), answer(number), 30, at(0));
            assert!(cache.size <= 32 << 10);
        }
        assert!(cache.entries.len() > 20);
        let size: usize = cache.entries.values().map(|entry| entry.size).sum();
        assert_eq!(
            (size, cache.entries.len()),
            (cache.size, cache.by_use.len())
        );
        cache.clear();
        assert_eq!(cache.get(&key(999), at(0)), None);
    }

    #[test]
    fn no_answer_takes_all_of_it() {
        let mut cache = Cache::new(10, 1024);
        cache.insert(key(1), answer(1), 30, at(0));
        assert_eq!(cache.get(&key(1), at(0)), None);
    }
}
