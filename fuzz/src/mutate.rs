//! Deterministic mutation: the same seed gives the same inputs on every machine.

/// The longest input that mutation makes, in bytes.
const MAX_LEN: usize = 64 << 10;

/// Integers at which arithmetic breaks.
const EDGES: [u64; 14] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    100_000_000,
    100_000_001,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// The same in decimal digits, and other words that parsers take for numbers.
const WORDS: [&str; 16] = [
    "-1",
    "0",
    "1.0",
    "1e999",
    "9223372036854775807",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "NaN",
    "-Infinity",
    "null",
    "{}",
    "[",
    "\"",
    "\n---\n",
    "*a",
];

/// A random number generator (splitmix64), good enough to choose mutations.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator whose numbers follow from `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 for an `end` of 0.
    pub fn below(&mut self, end: usize) -> usize {
        (self.next_u64() % (end as u64).max(1)) as usize
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// A range within `len` bytes, mostly short.
    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len + 1);
        let longest = if self.below(4) == 0 { len } else { 32 };
        start..(start + self.below(longest + 1)).min(len)
    }
}

/// Makes an input from one of `corpus`, and for splices from a second one.
pub fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    if corpus.is_empty() {
        return Vec::new();
    }
    let mut bytes = corpus[rng.below(corpus.len())].clone();
    for _ in 0..=rng.below(5) {
        mutate_once(rng, &mut bytes, corpus);
        bytes.truncate(MAX_LEN);
    }
    bytes
}

fn mutate_once(rng: &mut Rng, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    let at = rng.below(bytes.len() + 1);
    match rng.below(10) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << rng.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = rng.next_u64() as u8;
            }
        }
        3 => bytes.truncate(at),
        4 => drop(bytes.drain(rng.range(bytes.len()))),
        5 => {
            let edge = rng.pick(&EDGES).to_le_bytes();
            let width = rng.pick(&[1, 2, 4, 8]);
            let end = (at + width).min(bytes.len());
            bytes.splice(at..end, edge[..width].iter().copied());
        }
        6 => {
            // A number in the text, if there is one behind this place, becomes another.
            let is_digit = |b: &u8| b.is_ascii_digit();
            let start = at + bytes[at..].iter().position(is_digit).unwrap_or(0);
            let end = start + bytes[start..].iter().take_while(|b| is_digit(b)).count();
            bytes.splice(start..end, rng.pick(&WORDS).bytes());
        }
        7 => {
            let block = bytes[rng.range(bytes.len())].to_vec();
            let times = if rng.below(8) == 0 { 200 } else { 1 + rng.below(3) };
            bytes.splice(at..at, block.repeat(times));
        }
        8 => {
            let other = &corpus[rng.below(corpus.len())];
            let block = other[rng.range(other.len())].to_vec();
            bytes.splice(at..at, block);
        }
        _ => {
            let other = &corpus[rng.below(corpus.len())];
            bytes.truncate(at);
            bytes.extend_from_slice(&other[rng.below(other.len() + 1)..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_input() {
        let corpus = [b"{\"a\": 12}".to_vec(), b"xyz".to_vec(), Vec::new()];
        let run = |seed| {
            let mut rng = Rng::new(seed);
            (0..2000).map(|_| mutate(&mut rng, &corpus)).collect::<Vec<_>>()
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
        assert_eq!(mutate(&mut Rng::new(0), &[]), Vec::<u8>::new());
    }
}
