//! Two SHA-256 at once on one core.
//!
//! A core's SHA instructions wait for each other within one content, and can go on with another one meanwhile: two contents
//! together take little longer than one. So there are twice as many threads as cores, and whoever comes with a piece while
//! somebody else waits with one hashes both.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::digest::common::hazmat::{SerializableState, SerializedState};
use sha2::{Digest as _, Sha256};

/// How long another piece is waited for: what hashing one takes.
const PATIENCE: Duration = Duration::from_millis(1);

const BLOCK: usize = 64;

/// A piece of a content, and what its beginning has come to. The hasher is between two blocks.
struct Job {
    hasher: Sha256,
    piece: Vec<u8>,
}

/// One who waits for somebody with another piece.
struct Waiting {
    number: u64,
    job: Job,
    done: Sender<Job>,
}

/// Where threads meet.
#[derive(Default)]
pub(super) struct Pairs {
    waiting: Mutex<Option<Waiting>>,
    numbers: AtomicU64,
    /// How many threads read a content that is hashed so.
    readers: AtomicUsize,
}

/// A thread that reads such a content, as long as this lives.
pub(super) struct Reader<'a>(&'a Pairs);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether this machine hashes two at once in less time than one after the other.
pub(super) fn are_quick() -> bool {
    quick::is_there()
}

impl Pairs {
    pub(super) fn reader(&self) -> Reader<'_> {
        self.readers.fetch_add(1, Ordering::Relaxed);
        Reader(self)
    }

    /// Hashes a piece of whole blocks; `hasher` is between two blocks, and so it is afterwards.
    ///
    /// # Errors
    /// When the thread that hashed it with its own piece ended before it was done.
    pub(super) fn update(&self, hasher: &mut Sha256, piece: &mut Vec<u8>) -> io::Result<()> {
        if self.readers.load(Ordering::Relaxed) < 2 || !piece.len().is_multiple_of(BLOCK) || !are_quick() {
            hasher.update(&*piece);
            return Ok(());
        }
        let mut job = Job { hasher: hasher.clone(), piece: std::mem::take(piece) };
        let mut slot = self.slot();
        if let Some(Waiting { job: mut other, done, .. }) = slot.take() {
            drop(slot);
            both(&mut job, &mut other);
            let _ = done.send(other);
        } else {
            let (done, wait) = channel();
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            *slot = Some(Waiting { number, job, done });
            drop(slot);
            job = match wait.recv_timeout(PATIENCE) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => match self.withdraw(number) {
                    Some(mut job) => {
                        job.hasher.update(&job.piece);
                        job
                    }
                    // Somebody is at it.
                    None => wait.recv().map_err(io::Error::other)?,
                },
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::other("the thread that hashed it ended"));
                }
            };
        }
        *hasher = job.hasher;
        *piece = job.piece;
        Ok(())
    }

    /// What still waits under this number.
    fn withdraw(&self, number: u64) -> Option<Job> {
        self.slot().take_if(|waiting| waiting.number == number).map(|waiting| waiting.job)
    }

    fn slot(&self) -> MutexGuard<'_, Option<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hashes two pieces, side by side as far as the shorter one goes.
fn both(one: &mut Job, other: &mut Job) {
    let (mut states, taken) = match (State::of(&one.hasher), State::of(&other.hasher)) {
        (Some(a), Some(b)) => {
            let (left, right) = (one.piece.as_chunks::<BLOCK>().0, other.piece.as_chunks::<BLOCK>().0);
            let blocks = left.len().min(right.len());
            let mut states = [a, b];
            quick::compress(&mut states, [&left[..blocks], &right[..blocks]]);
            (states.map(Some), blocks)
        }
        _ => ([None, None], 0),
    };
    for (job, state) in [one, other].into_iter().zip(&mut states) {
        let rest = match state.take().and_then(|state| state.hasher(taken as u64)) {
            Some(hasher) => {
                job.hasher = hasher;
                &job.piece[taken * BLOCK..]
            }
            None => &job.piece[..],
        };
        job.hasher.update(rest);
    }
}

/// What a hasher has come to between two blocks, in the form in which the crate `sha2` keeps it: eight words and the number
/// of blocks, little end first, then the buffer, in which nothing is.
struct State {
    words: [u32; 8],
    kept: SerializedState<Sha256>,
}

impl State {
    fn of(hasher: &Sha256) -> Option<Self> {
        let kept = hasher.serialize();
        let (words, _) = kept.get(..32)?.as_chunks::<4>();
        let words: [u32; 8] = <[[u8; 4]; 8]>::try_from(words).ok()?.map(u32::from_le_bytes);
        Some(State { words, kept })
    }

    /// The hasher so many blocks later.
    fn hasher(self, blocks: u64) -> Option<Sha256> {
        let State { words, mut kept } = self;
        let count = u64::from_le_bytes(kept.get(32..40)?.try_into().ok()?);
        for (place, word) in kept[..32].as_chunks_mut::<4>().0.iter_mut().zip(words) {
            *place = word.to_le_bytes();
        }
        kept[32..40].copy_from_slice(&count.checked_add(blocks)?.to_le_bytes());
        Sha256::deserialize(&kept).ok()
    }
}

#[cfg(target_arch = "x86_64")]
mod quick {
    use core::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8,
        _mm_shuffle_epi32,
    };

    use super::{BLOCK, State};

    /// FIPS 180-4, 4.2.2: of the cube roots of the first 64 primes the first 32 bits of the fraction.
    #[rustfmt::skip]
    const K: [u32; 64] = [
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
        0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
        0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
        0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
        0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
        0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
        0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
        0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
    ];

    pub(super) fn is_there() -> bool {
        is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("sse4.1")
            && is_x86_feature_detected!("ssse3")
    }

    pub(super) fn compress(states: &mut [State; 2], blocks: [&[[u8; BLOCK]]; 2]) {
        debug_assert!(is_there());
        #[expect(
            unsafe_code,
            reason = "the instructions are there: see `is_there`, which is asked before any pair is made"
        )]
        // SAFETY: whoever makes a pair has asked `is_there`.
        unsafe {
            two(states, blocks);
        }
    }

    /// Both contents block by block. Each round needs what the one before it gave; the other content's does not.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn two(states: &mut [State; 2], blocks: [&[[u8; BLOCK]]; 2]) {
        // As the instructions have them: A, B, E, F in one register, C, D, G, H in the other, the first one highest.
        let word = |state: &State, at: usize| state.words[at] as i32;
        let pick = |state: &State, at: [usize; 4]| {
            _mm_set_epi32(word(state, at[0]), word(state, at[1]), word(state, at[2]), word(state, at[3]))
        };
        let mut abef = [pick(&states[0], [0, 1, 4, 5]), pick(&states[1], [0, 1, 4, 5])];
        let mut cdgh = [pick(&states[0], [2, 3, 6, 7]), pick(&states[1], [2, 3, 6, 7])];
        for (left, right) in blocks[0].iter().zip(blocks[1]) {
            let before = (abef, cdgh);
            let mut words = [message(left), message(right)];
            for group in 0..16 {
                let key = &K[4 * group..4 * group + 4];
                let key = _mm_set_epi32(key[3] as i32, key[2] as i32, key[1] as i32, key[0] as i32);
                let now = group % 4;
                for of in 0..2 {
                    let w = &mut words[of];
                    if group >= 4 {
                        let (next, third, last) = (w[(now + 1) % 4], w[(now + 2) % 4], w[(now + 3) % 4]);
                        let sum = _mm_add_epi32(
                            _mm_sha256msg1_epu32(w[now], next),
                            _mm_alignr_epi8::<4>(last, third),
                        );
                        w[now] = _mm_sha256msg2_epu32(sum, last);
                    }
                    let sum = _mm_add_epi32(w[now], key);
                    cdgh[of] = _mm_sha256rnds2_epu32(cdgh[of], abef[of], sum);
                    abef[of] = _mm_sha256rnds2_epu32(abef[of], cdgh[of], _mm_shuffle_epi32::<0x0e>(sum));
                }
            }
            for of in 0..2 {
                abef[of] = _mm_add_epi32(abef[of], before.0[of]);
                cdgh[of] = _mm_add_epi32(cdgh[of], before.1[of]);
            }
        }
        for of in 0..2 {
            let (x, y) = (abef[of], cdgh[of]);
            let words = [
                _mm_extract_epi32::<3>(x),
                _mm_extract_epi32::<2>(x),
                _mm_extract_epi32::<3>(y),
                _mm_extract_epi32::<2>(y),
                _mm_extract_epi32::<1>(x),
                _mm_extract_epi32::<0>(x),
                _mm_extract_epi32::<1>(y),
                _mm_extract_epi32::<0>(y),
            ];
            states[of].words = words.map(|word| word as u32);
        }
    }

    /// The sixteen words of a block, which has them with the big end first.
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn message(block: &[u8; BLOCK]) -> [__m128i; 4] {
        let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let (halves, _) = block.as_chunks::<8>();
        let half = |at: usize| i64::from_le_bytes(halves[at]);
        let four = |at: usize| _mm_shuffle_epi8(_mm_set_epi64x(half(2 * at + 1), half(2 * at)), swap);
        [four(0), four(1), four(2), four(3)]
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod quick {
    use super::{BLOCK, State};

    pub(super) fn is_there() -> bool {
        false
    }

    /// Never called: see `is_there`.
    pub(super) fn compress(_: &mut [State; 2], _: [&[[u8; BLOCK]]; 2]) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn two_at_once_are_as_each_alone() {
        if !are_quick() {
            return;
        }
        for (left, right) in [(0, 0), (1, 1), (1, 5), (64, 7), (1024, 1024)] {
            let (left, right) = (bytes(1, left * BLOCK), bytes(2, right * BLOCK));
            // Also behind a beginning.
            let begun = |seed| Sha256::new().chain_update(bytes(seed, 3 * BLOCK));
            let mut one = Job { hasher: begun(3), piece: left.clone() };
            let mut other = Job { hasher: Sha256::new(), piece: right.clone() };
            both(&mut one, &mut other);
            assert_eq!(one.hasher.serialize(), begun(3).chain_update(&left).serialize());
            assert_eq!(one.hasher.finalize(), begun(3).chain_update(&left).finalize());
            assert_eq!(other.hasher.finalize(), Sha256::digest(&right));
        }
    }

    #[test]
    fn many_threads_that_meet_have_the_hashes_of_their_own_contents() {
        let pairs = Pairs::default();
        std::thread::scope(|scope| {
            for seed in 0..5 {
                let pairs = &pairs;
                scope.spawn(move || {
                    let _reader = pairs.reader();
                    let mut hasher = Sha256::new();
                    let mut all = Sha256::new();
                    for round in 0..40 {
                        let mut piece = bytes(seed * 100 + round, BLOCK * (1 + (seed + round) as usize % 9));
                        all.update(&piece);
                        let length = piece.len();
                        pairs.update(&mut hasher, &mut piece).unwrap();
                        assert_eq!(piece.len(), length, "the piece is given back");
                    }
                    assert_eq!(hasher.finalize(), all.finalize());
                });
            }
        });
        assert_eq!(pairs.readers.load(Ordering::Relaxed), 0);
    }
}
