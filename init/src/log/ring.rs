//! The rings: lines between PID 1, which writes, and the log process, which reads, in one memfd.
//!
//! Written and read by pwrite and pread, so that their pages count for neither process. A ring is bytes under
//! positions that only grow, modulo its capacity, and three cells: `start` and `head` enclose what is there and are
//! the writer's, `tail` is how far it is in the files and is the reader's. All three are ends of batches. The writer
//! moves `start` before it overwrites anything, so a reader that looks at `start` again after it has read knows what
//! of it is whole. A cell carries a check value, as nothing promises that eight bytes are read at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use rustix::fs::MemfdFlags;

use super::batch::{Batch, HEADER, Head, Origin, Stamp};

/// Bytes of a ring's cells.
const CELLS: u64 = 64;
/// Offset of each cell.
const START: u64 = 0;
const HEAD: u64 = 16;
const TAIL: u64 = 32;
/// How often a cell is read that is just being written.
const ATTEMPTS: usize = 64;
/// What is read at once of the batches that make room.
const SKIP: usize = 4096;

/// Where everything lies in the memfd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Number of rings.
    pub rings: usize,
    /// Bytes of each.
    pub capacity: u64,
}

impl Layout {
    const fn cell(&self, ring: usize, cell: u64) -> u64 {
        ring as u64 * CELLS + cell
    }

    const fn data(&self, ring: usize) -> u64 {
        (self.rings as u64 * CELLS).next_multiple_of(4096) + ring as u64 * self.capacity
    }

    /// The two stretches of the file that `length` bytes from `position` on take up: offset and length of each.
    fn stretches(&self, ring: usize, position: u64, length: u64) -> [(u64, u64); 2] {
        let at = position % self.capacity;
        let first = length.min(self.capacity - at);
        let data = self.data(ring);
        [(data + at, first), (data, length - first)]
    }

    fn read(&self, file: &File, ring: usize, position: u64, bytes: &mut [u8]) -> io::Result<()> {
        let [(at, first), (begin, _)] = self.stretches(ring, position, bytes.len() as u64);
        let (head, rest) = bytes.split_at_mut(first as usize);
        file.read_exact_at(head, at)?;
        file.read_exact_at(rest, begin)
    }

    fn write(&self, file: &File, ring: usize, position: u64, bytes: &[u8]) -> io::Result<()> {
        let [(at, first), (begin, _)] = self.stretches(ring, position, bytes.len() as u64);
        let (head, rest) = bytes.split_at(first as usize);
        file.write_all_at(head, at)?;
        file.write_all_at(rest, begin)
    }

    /// `None`: never written, or not to be had whole.
    fn load(&self, file: &File, ring: usize, cell: u64) -> Option<u64> {
        for _ in 0..ATTEMPTS {
            let mut bytes = [0; 16];
            file.read_exact_at(&mut bytes, self.cell(ring, cell)).ok()?;
            if let Some(value) = checked(&bytes) {
                return Some(value);
            }
            if bytes == [0; 16] {
                return None;
            }
            std::thread::yield_now();
        }
        None
    }

    fn store(&self, file: &File, ring: usize, cell: u64, value: u64) -> io::Result<()> {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        bytes[8..].copy_from_slice(&check(value).to_le_bytes());
        file.write_all_at(&bytes, self.cell(ring, cell))
    }
}

/// A cell's value, if its check value fits.
fn checked(cell: &[u8]) -> Option<u64> {
    let (value, rest) = cell.split_first_chunk()?;
    let value = u64::from_le_bytes(*value);
    (rest.first_chunk() == Some(&check(value).to_le_bytes())).then_some(value)
}

/// Changes all over when one bit of `value` changes (the finalizer of SplitMix64).
const fn check(value: u64) -> u64 {
    let mut mixed = value ^ 0x9e37_79b9_7f4a_7c15;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[derive(Debug, Clone, Copy)]
struct Ring {
    start: u64,
    head: u64,
    /// As the reader said it last.
    tail: u64,
    /// The number of the next line.
    next: u64,
}

/// The writer's side.
#[derive(Debug)]
pub struct Rings {
    file: File,
    layout: Layout,
    rings: Vec<Ring>,
}

impl Rings {
    /// Makes the memfd. Its memory is taken only as lines come.
    ///
    /// # Errors
    /// When there is no memfd to be had.
    pub fn new(layout: Layout) -> io::Result<Self> {
        let file = File::from(rustix::fs::memfd_create("log", MemfdFlags::CLOEXEC)?);
        file.set_len(layout.data(layout.rings))?;
        let ring = Ring {
            start: 0,
            head: 0,
            tail: 0,
            next: 1,
        };
        for index in 0..layout.rings {
            layout.store(&file, index, TAIL, 0)?;
        }
        Ok(Self {
            file,
            layout,
            rings: vec![ring; layout.rings],
        })
    }

    /// The memfd, for the reader.
    #[must_use]
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// Where everything lies.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// What can be appended without a loss, as far as is known.
    #[must_use]
    pub fn room(&self, ring: usize) -> u64 {
        let ring = &self.rings[ring];
        self.layout.capacity.saturating_sub(ring.head - ring.tail)
    }

    /// Looks how far the reader is. A position that cannot be true is not believed.
    pub fn refresh(&mut self, index: usize) {
        let ring = &mut self.rings[index];
        match self.layout.load(&self.file, index, TAIL) {
            Some(tail) if (ring.tail..=ring.head).contains(&tail) => ring.tail = tail,
            _ => {}
        }
    }

    /// Appends the lines; the oldest ones go where there is no room. Lines that cannot be written at all take
    /// numbers nevertheless, so that the reader misses them.
    pub fn append(&mut self, index: usize, origin: Origin, stamp: Stamp, batch: &Batch) {
        let first = self.rings[index].next;
        self.rings[index].next += u64::from(batch.lines());
        let length = HEADER + batch.text().len();
        let Ok(short) = u32::try_from(length) else {
            return;
        };
        if length as u64 > self.layout.capacity || batch.lines() == 0 {
            return;
        }
        let head = Head {
            length: short,
            lines: batch.lines(),
            first,
            stamp,
            origin,
        };
        // Only without memory; the lines are counted as lost.
        let _ = self.write(index, &head.encode(), batch.text());
    }

    fn write(&mut self, index: usize, header: &[u8], text: &[u8]) -> io::Result<()> {
        let length = (header.len() + text.len()) as u64;
        self.make_room(index, length)?;
        let (layout, ring) = (self.layout, &mut self.rings[index]);
        layout.write(&self.file, index, ring.head, header)?;
        layout.write(&self.file, index, ring.head + header.len() as u64, text)?;
        ring.head += length;
        layout.store(&self.file, index, HEAD, ring.head)
    }

    fn make_room(&mut self, index: usize, length: u64) -> io::Result<()> {
        let (layout, ring) = (self.layout, &mut self.rings[index]);
        let wanted = (ring.head + length).saturating_sub(layout.capacity);
        if ring.start >= wanted {
            return Ok(());
        }
        let mut bytes = [0; SKIP];
        while ring.start < wanted {
            let window = &mut bytes[..SKIP.min((ring.head - ring.start) as usize)];
            layout.read(&self.file, index, ring.start, window)?;
            ring.start = skip(window, ring.start, wanted).unwrap_or(ring.head);
        }
        layout.store(&self.file, index, START, ring.start)
    }
}

/// The first end of a batch at or behind `wanted`, or the last one whose header is in the window. `None`: no batch.
fn skip(window: &[u8], start: u64, wanted: u64) -> Option<u64> {
    let mut at = start;
    while at < wanted {
        let Some(rest) = window.get((at - start) as usize..) else {
            break;
        };
        match Head::decode(rest) {
            Some(head) => at += u64::from(head.length),
            None if at > start => break,
            None => return None,
        }
    }
    Some(at)
}

/// The reader's side.
#[derive(Debug)]
pub struct Reader {
    file: File,
    layout: Layout,
    positions: Vec<u64>,
}

impl Reader {
    /// Goes on where the last reader was acknowledged to be.
    #[must_use]
    pub fn new(file: File, layout: Layout) -> Self {
        let position = |ring| layout.load(&file, ring, TAIL).unwrap_or(0);
        let positions = (0..layout.rings).map(position).collect();
        Self {
            file,
            layout,
            positions,
        }
    }

    /// The rings that have something to read.
    ///
    /// # Errors
    /// When the memfd cannot be read.
    pub fn filled(&self) -> io::Result<Vec<usize>> {
        let mut cells = vec![0; self.layout.rings * CELLS as usize];
        self.file.read_exact_at(&mut cells, 0)?;
        let rings = cells.chunks_exact(CELLS as usize).enumerate();
        let has_more = |(index, cells): (usize, &[u8])| {
            let head = &cells[HEAD as usize..];
            // One that is just being written counts: it is looked at in any case.
            let is_new =
                checked(head).map_or(head[..16] != [0; 16], |head| head > self.positions[index]);
            is_new.then_some(index)
        };
        Ok(rings.filter_map(has_more).collect())
    }

    /// Reads what is there, at most as much as `bytes` takes; returns how much of it, and its position. It begins
    /// with a batch; the last batch may be incomplete.
    ///
    /// # Errors
    /// When the memfd cannot be read.
    pub fn read(&mut self, ring: usize, bytes: &mut [u8]) -> io::Result<usize> {
        let position = &mut self.positions[ring];
        loop {
            let load = |cell| self.layout.load(&self.file, ring, cell).unwrap_or(0);
            *position = load(START).max(*position);
            let head = load(HEAD);
            let length = head.saturating_sub(*position).min(bytes.len() as u64);
            let bytes = &mut bytes[..length as usize];
            self.layout.read(&self.file, ring, *position, bytes)?;
            if load(START) <= *position {
                return Ok(bytes.len());
            }
        }
    }

    /// Goes on behind the next `length` bytes, without telling the writer.
    pub fn pass(&mut self, ring: usize, length: u64) {
        self.positions[ring] += length;
    }

    /// Tells the writer that everything up to here is kept.
    ///
    /// # Errors
    /// When the memfd cannot be written.
    pub fn acknowledge(&self, ring: usize) -> io::Result<()> {
        self.layout
            .store(&self.file, ring, TAIL, self.positions[ring])
    }

    /// Goes back to what was acknowledged.
    pub fn rewind(&mut self, ring: usize) {
        if let Some(tail) = self.layout.load(&self.file, ring, TAIL) {
            self.positions[ring] = tail;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::batch::batches;

    const LAYOUT: Layout = Layout {
        rings: 2,
        capacity: 4096,
    };

    fn rings() -> (Rings, Reader) {
        let rings = Rings::new(LAYOUT).unwrap();
        let reader = Reader::new(rings.file().try_clone().unwrap(), LAYOUT);
        (rings, reader)
    }

    fn append(rings: &mut Rings, ring: usize, lines: &[&str]) {
        let mut batch = Batch::default();
        lines.iter().for_each(|line| batch.push(line));
        rings.append(ring, Origin::Out, Stamp::now(), &batch);
    }

    /// Numbers and lines of everything that can be read now, acknowledged.
    fn take(reader: &mut Reader, ring: usize) -> Vec<(u64, String)> {
        let mut bytes = vec![0; LAYOUT.capacity as usize];
        let mut lines = Vec::new();
        let length = reader.read(ring, &mut bytes).unwrap();
        let mut end = 0;
        for (head, text, next) in batches(&bytes[..length]) {
            lines.extend((head.first..).zip(text.lines().map(str::to_owned)));
            end = next;
        }
        reader.pass(ring, end as u64);
        reader.acknowledge(ring).unwrap();
        lines
    }

    #[test]
    fn lines_come_out_as_they_went_in_each_ring_by_itself() {
        let (mut rings, mut reader) = rings();
        assert_eq!(reader.filled().unwrap(), [] as [usize; 0]);
        append(&mut rings, 0, &["one", "", "three"]);
        append(&mut rings, 1, &["other"]);
        append(&mut rings, 0, &["four"]);
        assert_eq!(reader.filled().unwrap(), [0, 1]);
        let lines = take(&mut reader, 0);
        let texts = [(1, "one"), (2, ""), (3, "three"), (4, "four")];
        assert_eq!(lines, texts.map(|(n, text)| (n, text.to_owned())));
        assert_eq!(take(&mut reader, 1), [(1, "other".to_owned())]);
        assert_eq!(reader.filled().unwrap(), [] as [usize; 0]);
    }

    #[test]
    fn room_comes_back_with_the_acknowledgement() {
        let (mut rings, mut reader) = rings();
        let line = "x".repeat(999);
        append(&mut rings, 0, &[&line]);
        assert_eq!(rings.room(0), 4096 - 1000 - HEADER as u64);
        rings.refresh(0);
        assert!(rings.room(0) < 4096);
        take(&mut reader, 0);
        rings.refresh(0);
        assert_eq!(rings.room(0), 4096);
    }

    #[test]
    fn a_position_that_cannot_be_true_is_not_believed() {
        let (mut rings, _) = rings();
        append(&mut rings, 0, &["line"]);
        let before = rings.room(0);
        LAYOUT
            .store(&rings.file, 0, TAIL, u64::MAX)
            .and_then(|()| rings.file.write_all_at(&[1], LAYOUT.cell(1, TAIL)))
            .unwrap();
        rings.refresh(0);
        rings.refresh(1);
        assert_eq!((rings.room(0), rings.room(1)), (before, 4096));
    }

    #[test]
    fn without_a_reader_the_oldest_lines_go_and_the_numbers_tell() {
        let (mut rings, mut reader) = rings();
        for number in 1..=1000 {
            append(&mut rings, 0, &[&format!("line {number}")]);
        }
        let lines = take(&mut reader, 0);
        assert_eq!(lines.last(), Some(&(1000, "line 1000".to_owned())));
        for (number, text) in &lines {
            assert_eq!(*text, format!("line {number}"));
        }
        assert!((80..1000).contains(&lines.len()), "{}", lines.len());
    }

    #[test]
    fn a_batch_larger_than_the_ring_is_missed_by_its_numbers() {
        let (mut rings, mut reader) = rings();
        append(&mut rings, 0, &[&"x".repeat(5000)]);
        append(&mut rings, 0, &["next"]);
        assert_eq!(take(&mut reader, 0), [(2, "next".to_owned())]);
    }

    #[test]
    fn a_new_reader_goes_on_behind_what_was_acknowledged() {
        let (mut rings, mut reader) = rings();
        append(&mut rings, 0, &["one"]);
        take(&mut reader, 0);
        append(&mut rings, 0, &["two"]);
        let mut bytes = [0; 4096];
        let length = reader.read(0, &mut bytes).unwrap();
        reader.pass(0, length as u64);
        let mut next = Reader::new(rings.file().try_clone().unwrap(), LAYOUT);
        assert_eq!(take(&mut next, 0), [(2, "two".to_owned())]);
    }

    #[test]
    fn whatever_is_written_when_the_lines_that_are_read_are_whole_and_in_order() {
        let (mut rings, mut reader) = rings();
        let (mut random, mut written, mut seen) = (88_172_645_463_325_252_u64, 0, 0);
        for _ in 0..20_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            if random % 5 > 0 {
                let count = (random >> 8) % 4 + 1;
                let lines: Vec<String> = (written + 1..=written + count)
                    .map(|n| format!("{n} {}", "y".repeat((random >> 16) as usize % 300)))
                    .collect();
                append(
                    &mut rings,
                    1,
                    &lines.iter().map(String::as_str).collect::<Vec<_>>(),
                );
                written += count;
            } else {
                for (number, text) in take(&mut reader, 1) {
                    assert!(number > seen && text.starts_with(&format!("{number} ")));
                    seen = number;
                }
                assert_eq!(seen, written, "the last line is always there");
            }
        }
    }
}
