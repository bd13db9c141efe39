//! Big trees for the benchmarks: many repos whose weights are holes.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::files::{self, symlink, write};
use crate::hash::{git_sha1, lfs_pointer_sha1, sha1_hex, sha256_hex};
use crate::hub::HubStore;
use crate::models::ModelSpec;
use crate::safetensors::{Dtype, Tensor, header, write_sparse_raw};

/// What [`big_tree`] made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BigTree {
    /// Repos, each with one snapshot and `main`.
    pub repos: usize,
    /// Links in the snapshots.
    pub links: usize,
    /// Bytes that the files seem to have.
    pub bytes: u64,
}

/// A 4-bit layer 4,096 wide has 23 tensors, 13 of them 299.
const LAYERS_PER_SHARD: usize = 13;

struct Shard {
    name: String,
    header: Vec<u8>,
    data: u64,
}

/// What the repos with this number of shards have in common.
struct Template {
    shards: Vec<Shard>,
    index: Vec<u8>,
    config: Vec<u8>,
}

fn layer(number: usize) -> Vec<Tensor> {
    let name = |part: &str| format!("model.layers.{number}.{part}");
    let mut out = Vec::new();
    for (part, rows, columns) in [
        ("mlp.down_proj", 4096, 14336),
        ("mlp.gate_proj", 14336, 4096),
        ("mlp.up_proj", 14336, 4096),
        ("self_attn.k_proj", 1024, 4096),
        ("self_attn.o_proj", 4096, 4096),
        ("self_attn.q_proj", 4096, 4096),
        ("self_attn.v_proj", 1024, 4096),
    ] {
        out.push(Tensor::new(name(&format!("{part}.biases")), Dtype::BF16, &[rows, columns / 64]));
        out.push(Tensor::new(name(&format!("{part}.scales")), Dtype::BF16, &[rows, columns / 64]));
        out.push(Tensor::new(name(&format!("{part}.weight")), Dtype::U32, &[rows, columns / 8]));
    }
    out.push(Tensor::new(name("input_layernorm.weight"), Dtype::BF16, &[4096]));
    out.push(Tensor::new(name("post_attention_layernorm.weight"), Dtype::BF16, &[4096]));
    out
}

fn template(shards: usize) -> Template {
    let mut weight_map = Map::new();
    let mut total = 0;
    let mut out = Vec::new();
    for index in 0..shards {
        let tensors: Vec<Tensor> =
            (index * LAYERS_PER_SHARD..(index + 1) * LAYERS_PER_SHARD).flat_map(layer).collect();
        let name = format!("model-{:05}-of-{shards:05}.safetensors", index + 1);
        let data: u64 = tensors.iter().map(Tensor::byte_len).sum();
        for tensor in &tensors {
            weight_map.insert(tensor.name.clone(), json!(name));
        }
        out.push(Shard { name, header: header(&tensors, &[("format", "mlx")]), data });
        total += data;
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": weight_map});
    let scheme = json!({"group_size": 64, "bits": 4, "mode": "affine"});
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "intermediate_size": 14336,
        "model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": shards * LAYERS_PER_SHARD,
        "num_key_value_heads": 8, "quantization": scheme, "quantization_config": scheme, "rms_norm_eps": 1e-5,
        "rope_theta": 500_000.0, "tie_word_embeddings": true, "torch_dtype": "bfloat16", "vocab_size": 128_256,
    });
    Template {
        shards: out,
        index: files::json(&index, 4).into_bytes(),
        config: files::json(&config, 4).into_bytes(),
    }
}

/// Small files beside config, index and README, until a repo has its number of links.
fn small_files() -> Vec<(String, Vec<u8>)> {
    let model = ModelSpec::llama().files();
    let mut out: Vec<(String, Vec<u8>)> =
        model.into_iter().filter(|(path, _)| path.starts_with("tokenizer")).collect();
    out.push(files::text(
        "generation_config.json",
        "{\n    \"do_sample\": true,\n    \"temperature\": 0.6\n}",
    ));
    out.push(files::text("special_tokens_map.json", "{\n    \"bos_token\": \"<s>\"\n}"));
    out.push(files::text("chat_template.jinja", "{{ messages }}"));
    out.push(files::text(".gitattributes", "*.safetensors filter=lfs diff=lfs merge=lfs -text\n"));
    out.push(files::text("LICENSE", "Apache License\n"));
    out.push(files::text("merges.txt", "#version: 0.2\n"));
    out.push(files::text("vocab.json", "{\"<s>\": 0}"));
    out
}

/// Makes a hub cache at `root` with this many repos of `links_per_repo` files each: config, tokenizer, README, index,
/// and two to four weight files of 1.6 GB each that take no disk. Their headers are valid; their blobs' names are no
/// hashes of the zeros they read as.
pub fn big_tree(root: &Path, repos: usize, links_per_repo: usize) -> BigTree {
    assert!(
        (9..=14).contains(&links_per_repo),
        "a repo of the tree can have 9 to 14 links, not {links_per_repo}"
    );
    let hub = HubStore::create(root);
    let templates = [template(2), template(3), template(4)];
    let small = small_files();
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(8);
    let bytes = std::thread::scope(|scope| {
        let (hub, templates, small) = (&hub, &templates, &small);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || {
                    (thread..repos)
                        .step_by(threads)
                        .map(|number| repo(hub, number, &templates[number % 3], small, links_per_repo))
                        .sum::<u64>()
                })
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker made its repos")).sum()
    });
    BigTree { repos, links: repos * links_per_repo, bytes }
}

/// Makes one repo and returns the bytes it seems to have.
fn repo(
    hub: &HubStore,
    number: usize,
    template: &Template,
    small: &[(String, Vec<u8>)],
    links: usize,
) -> u64 {
    let org = ["mlx-community", "acme", "lmstudio-community", "example"][number / 3 % 4];
    let id = format!("{org}/Model-{number:04}-8B-Instruct-4bit");
    let repo = hub.repo(&id);
    let commit = sha1_hex(id.as_bytes());
    let snapshot = repo.snapshot_path(&commit);
    fs_err::create_dir_all(repo.blobs()).expect("the blobs' directory can be made");
    fs_err::create_dir_all(&snapshot).expect("the snapshot's directory can be made");
    let mut listing: Vec<(String, Value)> = Vec::new();
    let mut total = 0;
    let readme = format!(
        "---\nlibrary_name: mlx\nlicense: apache-2.0\nbase_model: example/Model-{number:04}\ntags:\n- mlx\n---\n# {id}\n"
    );
    let mut plain = vec![
        ("README.md", readme.as_bytes()),
        ("config.json", template.config.as_slice()),
        ("model.safetensors.index.json", template.index.as_slice()),
    ];
    let more = links - plain.len() - template.shards.len();
    plain.extend(small.iter().take(more).map(|(path, bytes)| (path.as_str(), bytes.as_slice())));
    assert_eq!(plain.len() + template.shards.len(), links, "there are enough small files");
    for (path, bytes) in plain {
        let etag = git_sha1(bytes);
        write(&repo.blob(&etag), bytes);
        symlink(Path::new(&format!("../../blobs/{etag}")), &snapshot.join(path));
        total += bytes.len() as u64;
        listing.push((path.to_owned(), json!({"size": bytes.len(), "blob_id": etag})));
    }
    for shard in &template.shards {
        let etag = sha256_hex(format!("{id}/{}", shard.name).as_bytes());
        let size = write_sparse_raw(&repo.blob(&etag), &shard.header, shard.data);
        symlink(Path::new(&format!("../../blobs/{etag}")), &snapshot.join(&shard.name));
        total += size;
        let entry = json!({
            "size": size, "blob_id": lfs_pointer_sha1(&etag, size), "lfs_sha256": etag, "lfs_size": size,
        });
        listing.push((shard.name.clone(), entry));
    }
    let tree = json!({"format_version": 1, "files": listing.into_iter().collect::<Map<_, _>>()});
    write(&repo.path().join(format!("trees/{commit}.json")), files::json(&tree, 1).as_bytes());
    repo.add_ref("main", &commit);
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repo_has_its_links_and_gigabytes() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let made = big_tree(dir.path(), 3, 13);
        assert_eq!((made.repos, made.links), (3, 39));
        assert!(made.bytes > 9 * 1_500_000_000, "{made:?}");
        let mut links = 0;
        for repo in fs_err::read_dir(dir.path()).expect("the cache") {
            let snapshots = repo.expect("an entry").path().join("snapshots");
            for snapshot in fs_err::read_dir(snapshots).into_iter().flatten() {
                for link in fs_err::read_dir(snapshot.expect("an entry").path()).expect("a snapshot") {
                    assert!(link.expect("an entry").path().exists());
                    links += 1;
                }
            }
        }
        assert_eq!(links, 39);
    }
}
