//! What a plan's rows consist of on the disk: every entry once, with the row it goes with, or with the rows that must
//! all go before it does.

use std::collections::{HashMap, HashSet};

use mlxman_store::{EntryKind, FoundModel, OwnerId, Scan, Stat, Stray, StrayItem};

use crate::plan::{Item, ItemKind, SharedItem};

/// One row of a plan in the making.
pub(crate) enum Going<'a> {
    /// A model.
    Model(&'a FoundModel),
    /// What is no model.
    Stray(&'a Stray),
}

/// Items by row, and those that several rows share.
pub(crate) struct Items {
    pub(crate) by_row: Vec<Vec<Item>>,
    pub(crate) shared: Vec<SharedItem>,
}

/// Lists what goes when all rows go: nothing that anybody else needs.
pub(crate) fn items_of(scan: &Scan, rows: &[Going<'_>]) -> Items {
    let mut list = List {
        scan,
        users: users_of(scan),
        row_of: HashMap::new(),
        seen: HashSet::new(),
        items: Items { by_row: vec![Vec::new(); rows.len()], shared: Vec::new() },
    };
    for (row, going) in rows.iter().enumerate() {
        let owner = match going {
            Going::Model(found) => Some(found.owner),
            Going::Stray(stray) => stray.owner,
        };
        list.row_of.extend(owner.map(|owner| (owner, row)));
    }
    for (row, going) in rows.iter().enumerate() {
        match going {
            Going::Model(found) => list.model(row, found),
            Going::Stray(stray) => list.stray(row, stray),
        }
    }
    list.skeletons();
    list.items
}

struct List<'a> {
    scan: &'a Scan,
    /// Who uses the file at a place in the store.
    users: HashMap<String, Vec<OwnerId>>,
    row_of: HashMap<OwnerId, usize>,
    seen: HashSet<String>,
    items: Items,
}

fn users_of(scan: &Scan) -> HashMap<String, Vec<OwnerId>> {
    let mut users: HashMap<String, Vec<OwnerId>> = HashMap::new();
    for model in &scan.models {
        for file in &model.files {
            users.entry(file.real.clone()).or_default().push(model.owner);
            if let Some((path, _)) = model.blob_link_of(file) {
                users.entry(path).or_default().push(model.owner);
            }
        }
        for path in &model.uses {
            users.entry(path.clone()).or_default().push(model.owner);
        }
    }
    for stray in &scan.strays {
        if let (Some(payload), Some(owner)) = (&stray.payload, stray.owner) {
            users.entry(payload.path.clone()).or_default().push(owner);
        }
    }
    users
}

impl List<'_> {
    fn push(&mut self, row: usize, item: Item) {
        if self.seen.insert(item.path.clone()) {
            self.items.by_row[row].push(item);
        }
    }

    /// An item of these rows: it goes with the last of them.
    fn push_for(&mut self, rows: &[usize], item: Item) {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.dedup();
        match rows.as_slice() {
            [] => {}
            [row] => self.push(*row, item),
            _ => {
                if self.seen.insert(item.path.clone()) {
                    self.items.shared.push(SharedItem { item, needs: rows });
                }
            }
        }
    }

    /// The rows of all users of the file at `path`, if all of them go.
    fn rows_of(&self, path: &str) -> Option<Vec<usize>> {
        if self.scan.is_held_elsewhere(path) {
            return None;
        }
        self.users.get(path)?.iter().map(|owner| self.row_of.get(owner).copied()).collect()
    }

    fn model(&mut self, row: usize, found: &FoundModel) {
        // Files in its own directories that do not go with it alone, with the rows that they go with.
        let mut others: Vec<(String, Option<Vec<usize>>)> = Vec::new();
        for file in &found.files {
            if let Some(link) = &file.link {
                self.push(row, item(found.place_of(file), &link.stat, Some(link.target.clone())));
            }
            if let Some((path, link)) = found.blob_link_of(file)
                && let Some(rows) = self.rows_of(&path)
            {
                self.push_for(&rows, item(path, &link.stat, Some(link.target)));
            }
            // A link that leads elsewhere in the store does not own what it leads to.
            if file.link.is_none() || file.blob.is_some() {
                let rows = self.rows_of(&file.real);
                if let Some(rows) = &rows {
                    self.payload(rows, item(file.real.clone(), &file.stat, None));
                }
                if rows.as_deref() != Some(&[row]) {
                    others.push((file.real.clone(), rows));
                }
            }
        }
        for record in &found.records {
            self.push(row, of(record));
        }
        if let Some((path, stat)) = &found.listing {
            self.push(row, item(path.clone(), stat, None));
        }
        if found.keeps_dirs {
            return;
        }
        // Deepest first, so that each is empty when its turn comes.
        let mut dirs: Vec<&(String, Stat)> = found.dirs.iter().collect();
        dirs.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| b.0.cmp(&a.0)));
        for (path, stat) in dirs {
            // A directory goes with the last of what is in it, and stays where that stays.
            let inside = others.iter().filter(|(other, _)| is_below(other, path));
            let rows: Option<Vec<&[usize]>> = inside.map(|(_, rows)| rows.as_deref()).collect();
            let Some(rows) = rows else { continue };
            let mut rows = rows.concat();
            rows.push(row);
            self.push_for(&rows, item(path.clone(), stat, None));
        }
    }

    /// A file with what lies beside it and goes with it.
    fn payload(&mut self, rows: &[usize], file: Item) {
        let beside: Vec<Item> = self.scan.beside(&file.path).iter().map(of).collect();
        self.push_for(rows, file);
        for item in beside {
            self.push_for(rows, item);
        }
    }

    fn stray(&mut self, row: usize, stray: &Stray) {
        for one in &stray.items {
            self.push(row, of(one));
        }
        if let Some(payload) = &stray.payload
            && let Some(rows) = self.rows_of(&payload.path)
        {
            self.payload(&rows, of(payload));
        }
    }

    /// Repo directories of which every owner goes.
    fn skeletons(&mut self) {
        for group in self.scan.groups() {
            let rows: Option<Vec<usize>> =
                group.owners.clone().map(|owner| self.row_of.get(&owner).copied()).collect();
            let Some(rows) = rows.filter(|rows| !rows.is_empty()) else { continue };
            for one in self.scan.skeleton(group) {
                self.push_for(&rows, of(&one));
            }
        }
    }
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

fn of(one: &StrayItem) -> Item {
    item(one.path.clone(), &one.stat, one.link_target.clone())
}

fn item(path: String, stat: &Stat, link_target: Option<String>) -> Item {
    let kind = match stat.kind {
        EntryKind::Dir => ItemKind::Dir,
        EntryKind::Link => ItemKind::Link,
        _ => ItemKind::File,
    };
    Item {
        path,
        kind,
        device: stat.dev,
        inode: stat.ino,
        size: stat.size,
        mtime_ns: stat.mtime_ns,
        link_target,
    }
}
