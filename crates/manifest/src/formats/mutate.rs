//! Damage for the parsers' property tests.

use proptest::prelude::*;

/// One way to damage a file.
#[derive(Clone, Debug)]
pub(super) enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Number(prop::sample::Index, u64),
    Repeat(prop::sample::Index, prop::sample::Index),
}

pub(super) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let at = any::<prop::sample::Index>;
    let edges =
        prop_oneof![Just(u64::MAX), Just(0), Just(1 << 63), Just(u64::from(u32::MAX)), Just(100_000_000)];
    let one = prop_oneof![
        (at(), any::<u8>()).prop_map(|(i, b)| Damage::Flip(i, b)),
        at().prop_map(Damage::Cut),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(i, b)| Damage::Insert(i, b)),
        (at(), edges).prop_map(|(i, n)| Damage::Number(i, n)),
        (at(), at()).prop_map(|(i, j)| Damage::Repeat(i, j)),
    ];
    prop::collection::vec(one, 1..4)
}

pub(super) fn damaged(mut bytes: Vec<u8>, damages: &[Damage]) -> Vec<u8> {
    for damage in damages {
        let len = bytes.len() + 1;
        match damage {
            Damage::Flip(at, mask) => {
                let at = at.index(len);
                bytes.get_mut(at).into_iter().for_each(|b| *b ^= mask);
            }
            Damage::Cut(at) => bytes.truncate(at.index(len)),
            Damage::Insert(at, new) => {
                let at = at.index(len);
                bytes.splice(at..at, new.iter().copied());
            }
            Damage::Number(at, number) => {
                let at = at.index(len);
                let end = (at + 8).min(bytes.len());
                bytes.splice(at..end, number.to_le_bytes());
            }
            Damage::Repeat(from, to) => {
                let (from, to) = (from.index(len), to.index(len));
                let block = bytes[from.min(to)..from.max(to)].to_vec();
                bytes.splice(to..to, block);
            }
        }
    }
    bytes
}
