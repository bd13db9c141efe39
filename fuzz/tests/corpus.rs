//! Every checked-in input passes, is small, and is what the generator makes.

use mlxman_fuzz::corpus;
use mlxman_fuzz::mutate::{Rng, mutate};
use mlxman_fuzz::targets;

#[test]
fn every_input_passes() {
    for &target in targets::ALL {
        for (path, bytes) in corpus::read(target).unwrap() {
            if let Err(message) = corpus::check(target, &bytes) {
                panic!("{}: {message}", path.display());
            }
        }
    }
}

#[test]
fn a_few_mutations_pass() {
    for &target in targets::ALL {
        let inputs: Vec<_> = corpus::read(target).unwrap().into_iter().map(|(_, bytes)| bytes).collect();
        let mut rng = Rng::new(1);
        for iteration in 0..500 {
            if let Err(message) = corpus::check(target, &mutate(&mut rng, &inputs)) {
                panic!("{}, mutation {iteration} of seed 1: {message}", target.name);
            }
        }
    }
}

#[test]
fn the_seeds_are_checked_in_as_they_are_generated() {
    for &target in targets::ALL {
        for (name, bytes) in (target.seeds)() {
            assert!(bytes.len() < 4096, "{}/{name} has {} bytes", target.name, bytes.len());
            let path = corpus::folder(target).join(name);
            assert!(
                fs_err::read(&path).is_ok_and(|there| there == bytes),
                "{} differs: run mlxman-fuzz --write-seeds",
                path.display()
            );
        }
    }
}

#[test]
fn each_corpus_has_its_target() {
    for entry in fs_err::read_dir(corpus::root().join("corpus")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(targets::find(&name).is_some(), "no target {name}");
    }
}
