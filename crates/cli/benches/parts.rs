//! Parts of the libraries by themselves: the walk of a store, a weight file's header, the registry's index.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use mlxman_manifest::catalog::Catalog;
use mlxman_manifest::formats::safetensors::SafetensorsHeader;
use mlxman_manifest::registry::{Registry, SyncOptions};
use mlxman_store::{Progress, StoreKind, StoreSpec, layout_of};
use mlxman_testkit::big_tree;
use mlxman_testkit::safetensors::{Dtype, Tensor, header};

const REPOS: usize = 200;

fn scan_and_index(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let root = dir.path().join("hub");
    big_tree(&root, REPOS, 13);
    let spec = StoreSpec::new(StoreKind::Hub, &root);
    criterion.bench_function("scan of 200 repos", |bencher| {
        bencher.iter(|| layout_of(StoreKind::Hub).scan(black_box(&spec), &Progress::default()));
    });

    let registry = Registry::at(dir.path().join("registry"));
    let options = SyncOptions::fast(chrono::Utc::now());
    registry.sync(&[spec], &Catalog::built_in(), &options, &()).expect("a registry can be made");
    criterion.bench_function("index of 200 models", |bencher| {
        bencher.iter(|| registry.contents(&[]).expect("the registry can be read"));
    });
}

fn safetensors(criterion: &mut Criterion) {
    // As in a shard of an 8B model in 4 bits.
    let tensors: Vec<Tensor> = (0..300)
        .map(|number| Tensor::new(format!("model.layers.{number}.weight"), Dtype::U32, &[4096, 512]))
        .collect();
    let bytes = header(&tensors, &[("format", "mlx")]);
    let length = bytes.len() as u64 + tensors.iter().map(Tensor::byte_len).sum::<u64>();
    criterion.bench_function("header of 300 tensors", |bencher| {
        bencher.iter_batched(
            || bytes.as_slice(),
            |mut bytes| SafetensorsHeader::read(&mut bytes, length).expect("it is valid"),
            BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, scan_and_index, safetensors);
criterion_main!(benches);
