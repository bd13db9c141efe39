//! `*.safetensors.index.json`, made again from the headers of whole shards.

use std::collections::{BTreeMap, BTreeSet};

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
    let old = there.and_then(|file| document_of(scan, file)).unwrap_or_default();
    let named = weight_map(&old);
    let dir = path.rfind('/').map_or("", |at| &path[..=at]);
    let mut shards = shards_of(found, stem)?;
    // Some have tensors in files of other names, too.
    for name in named.values().filter_map(Value::as_str).collect::<BTreeSet<_>>() {
        let file = found.file(&format!("{dir}{name}"));
        shards.extend(file.filter(|file| shards.iter().all(|one| one.path != file.path)));
    }
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
    if named.keys().any(|tensor| !map.contains_key(tensor)) {
        return Err("it names tensors that none of the shards has: only a download mends it");
    }
    let mut metadata = old.get("metadata").and_then(Value::as_object).cloned().unwrap_or_default();
    if metadata.insert("total_size".to_owned(), json!(total)) != Some(json!(total)) {
        // Nobody counted them anew.
        metadata.remove("total_parameters");
    }
    let mut document = old;
    document.insert("metadata".to_owned(), Value::Object(metadata));
    document.insert("weight_map".to_owned(), json!(map));
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(|_| "it cannot be written as JSON")?;
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

/// What an index says, where it can be read.
fn document_of(scan: &Scan, file: &FileEntry) -> Option<Map<String, Value>> {
    let value: Value = read_json(scan.open(file).ok()?, LIMIT).ok()?;
    value.as_object().cloned()
}

/// Its files by tensor.
fn weight_map(document: &Map<String, Value>) -> Map<String, Value> {
    document.get("weight_map").and_then(Value::as_object).cloned().unwrap_or_default()
}

/// The files that the indexes of a model name, by their paths in it.
pub(super) fn named_by_indexes(scan: &Scan, found: &FoundModel) -> BTreeSet<String> {
    let indexes = found.files.iter().filter(|file| file.path.ends_with(".index.json"));
    let named = indexes.filter_map(|file| {
        let dir = file.path.rfind('/').map_or("", |at| &file.path[..=at]);
        let map = weight_map(&document_of(scan, file)?);
        Some(map.values().filter_map(|name| Some(format!("{dir}{}", name.as_str()?))).collect::<Vec<_>>())
    });
    named.flatten().collect()
}

/// The numbered set that a weight file is one of: the name without its number, how many there are, and the ending.
pub(super) fn set_of(path: &str) -> Option<(&str, u64, &str)> {
    let (stem, ending) = path.rsplit_once('.')?;
    let at = stem.rfind("-of-").and_then(|of| stem[..of].rfind('-'))?;
    let (_, count) = numbers(&stem[at..])?;
    Some((&stem[..at], count, ending))
}

#[cfg(test)]
mod tests {
    use super::{numbers, set_of};

    #[test]
    fn shards_are_numbered() {
        assert_eq!(numbers("-00001-of-00004"), Some((1, 4)));
        for text in ["", "-1-of-4", "-00001-of-", "-x-of-00004", "00001-of-00004", "-00001-of-00004.bak"] {
            assert_eq!(numbers(text), None, "{text}");
        }
        let set = set_of("a/model-00002-of-00003.safetensors");
        assert_eq!(set, Some(("a/model", 3, "safetensors")));
        assert_eq!(set_of("a/model.safetensors"), None);
    }
}
