//! `*.safetensors.index.json`, made again from the headers of whole shards.

use std::collections::BTreeMap;

use mlxman_manifest::formats::LengthVerdict;
use mlxman_manifest::formats::json::read_json;
use mlxman_manifest::formats::safetensors::{Flaw, SafetensorsHeader};
use mlxman_store::{Editor, FileEntry, FoundModel, Scan};
use serde_json::{Map, Value, json};

use super::{Content, Repair, RepairChange, RepairKind};
use crate::items::item;

const ENDING: &str = ".safetensors.index.json";
const LIMIT: u64 = 64 << 20;

/// Makes the index at `path`, relative to the model, again; or says why that cannot be.
pub(super) fn rebuild(scan: &Scan, found: &FoundModel, path: &str) -> Result<Repair, &'static str> {
    let stem = path.strip_suffix(ENDING).ok_or("only an index of safetensors is made again")?;
    let there = found.file(path);
    // A cache's files are named by their content: another one would be the hub's no more.
    if there.is_some_and(|file| file.link.is_some() || file.blob.is_some()) {
        return Err("it is a blob of the cache, named by its content: only a download mends it");
    }
    let in_cache = |file: &FileEntry| file.blob.is_some() || file.link.is_some();
    if there.is_none() && found.files.iter().any(in_cache) {
        return Err("its model's files are those of a cache: only a download mends it");
    }
    if let Some(download) = scan.details(found).download
        && download.files.contains_key(path)
    {
        return Err("it came with a download that recorded its hash: only a download mends it");
    }
    let shards = shards_of(found, stem)?;
    let mut map: BTreeMap<String, String> = BTreeMap::new();
    let mut total: u64 = 0;
    for file in shards {
        let header = whole(scan, file)?;
        let name = file.path.rsplit('/').next().unwrap_or(&file.path);
        for tensor in &header.tensors {
            total = total.saturating_add(tensor.byte_len());
            if map.insert(tensor.name.to_string(), name.to_owned()).is_some() {
                return Err(
                    "two shards hold a tensor of the same name, so nobody can tell which one is meant",
                );
            }
        }
    }
    if map.is_empty() {
        return Err("the shards hold no tensor");
    }
    let mut metadata = there.and_then(|file| metadata_of(scan, file)).unwrap_or_default();
    metadata.insert("total_size".to_owned(), json!(total));
    let mut bytes = serde_json::to_vec_pretty(&json!({"metadata": metadata, "weight_map": map}))
        .map_err(|_| "it cannot be written as JSON")?;
    bytes.push(b'\n');
    let mut changes = Vec::new();
    let mut mode = 0o644;
    let place = match (found.key.is_empty(), there) {
        (_, Some(file)) => found.place_of(file),
        (true, None) => path.to_owned(),
        (false, None) => format!("{}/{path}", found.key),
    };
    if let Some(file) = there {
        let of = Editor::new(scan.root(), &|_| Ok(())).attributes(&place);
        mode = of.map_or(mode, |of| of.mode & 0o777);
        changes.push(RepairChange::Take { item: item(place.clone(), &file.stat, None) });
    }
    let does = format!("make {place} again from the headers of its shards ({} tensors)", map.len());
    changes.push(RepairChange::Write { path: place, mode, content: Content::new(bytes) });
    Ok(Repair { kind: RepairKind::RebuildIndex, does, changes })
}

/// The files that an index is about: all of one numbered set, or the one file that bears its name.
fn shards_of<'a>(found: &'a FoundModel, stem: &str) -> Result<Vec<&'a FileEntry>, &'static str> {
    let mut sets: BTreeMap<u64, BTreeMap<u64, &FileEntry>> = BTreeMap::new();
    let mut single = None;
    for file in &found.files {
        let Some(rest) = file.path.strip_prefix(stem).and_then(|rest| rest.strip_suffix(".safetensors"))
        else {
            continue;
        };
        if rest.is_empty() {
            single = Some(file);
        } else if let Some((number, count)) = numbers(rest) {
            sets.entry(count).or_default().insert(number, file);
        }
    }
    let set = sets.pop_first();
    match (single, set, sets.is_empty()) {
        (Some(file), None, _) => Ok(vec![file]),
        (None, Some((count, set)), true) => {
            let first = u64::from(!set.contains_key(&0));
            let whole =
                set.len() as u64 == count && set.keys().copied().eq(first..first.saturating_add(count));
            if whole { Ok(set.into_values().collect()) } else { Err("not all shards are here") }
        }
        (None, None, _) => Err("there are no shards of its name"),
        _ => Err("weights lie here more than once, so nobody can tell which ones it is about"),
    }
}

/// 1 and 4 of `-00001-of-00004`.
fn numbers(text: &str) -> Option<(u64, u64)> {
    let (number, count) = text.strip_prefix('-')?.split_once("-of-")?;
    let digits = |text: &str| text.len() >= 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(number) && digits(count)).then_some(())?;
    Some((number.parse().ok()?, count.parse().ok()?))
}

/// The header of a shard that is as long as it says, and sound.
fn whole(scan: &Scan, file: &FileEntry) -> Result<SafetensorsHeader, &'static str> {
    const BROKEN: &str = "not all shards are whole";
    let mut opened = scan.open(file).map_err(|_| "a shard cannot be read")?;
    let header = SafetensorsHeader::read(&mut opened, file.stat.size).map_err(|_| BROKEN)?;
    let grave = |flaw: &Flaw| !matches!(flaw, Flaw::UnknownDtype { .. } | Flaw::MetadataNotText { .. });
    let sound =
        header.length_verdict(file.stat.size) == LengthVerdict::Complete && !header.flaws.iter().any(grave);
    if sound { Ok(header) } else { Err(BROKEN) }
}

/// What else the index says of the weights, where it can be read.
fn metadata_of(scan: &Scan, file: &FileEntry) -> Option<Map<String, Value>> {
    let value: Value = read_json(scan.open(file).ok()?, LIMIT).ok()?;
    value.get("metadata")?.as_object().cloned()
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn shards_are_numbered() {
        assert_eq!(numbers("-00001-of-00004"), Some((1, 4)));
        for text in ["", "-1-of-4", "-00001-of-", "-x-of-00004", "00001-of-00004", "-00001-of-00004.bak"] {
            assert_eq!(numbers(text), None, "{text}");
        }
    }
}
