//! What a plan's rows consist of on the disk: every entry once, with the row it goes with, or with the rows that must
//! all go before it does.

use foldhash::{HashMap, HashMapExt as _, HashSet, HashSetExt as _};
use mlxman_store::{EntryKind, FoundModel, Group, Link, OwnerId, Scan, Stat, Stray, StrayItem};
use std::borrow::Cow;

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
        row_of: HashMap::with_capacity(rows.len()),
        seen: HashSet::with_capacity(rows.iter().map(Going::entries).sum()),
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
        list.items.by_row[row].reserve(going.entries());
        match going {
            Going::Model(found) => list.model(row, found),
            Going::Stray(stray) => list.stray(row, stray),
        }
    }
    list.skeletons();
    list.items
}

impl Going<'_> {
    /// About how many entries it has on the disk.
    fn entries(&self) -> usize {
        match self {
            Going::Model(found) => 2 * found.files.len() + found.dirs.len() + 8,
            Going::Stray(stray) => stray.items.len() + 1,
        }
    }
}

struct List<'a> {
    scan: &'a Scan,
    /// Who uses the file at a place in the store.
    users: HashMap<Cow<'a, str>, Few<OwnerId>>,
    row_of: HashMap<OwnerId, usize>,
    seen: HashSet<Cow<'a, str>>,
    items: Items,
}

/// Mostly one: nearly every file has one user, which goes with one row.
enum Few<T> {
    One(T),
    Several(Vec<T>),
}

impl<T: Copy + PartialEq> Few<T> {
    fn add(&mut self, another: T) {
        match self {
            Few::One(one) => *self = Few::Several(vec![*one, another]),
            Few::Several(all) => all.push(another),
        }
    }

    fn as_slice(&self) -> &[T] {
        match self {
            Few::One(one) => std::slice::from_ref(one),
            Few::Several(all) => all,
        }
    }
}

fn users_of(scan: &Scan) -> HashMap<Cow<'_, str>, Few<OwnerId>> {
    let files = scan.models.iter().map(|model| model.files.len() + model.uses.len()).sum();
    let mut users: HashMap<Cow<'_, str>, Few<OwnerId>> = HashMap::with_capacity(files);
    for model in &scan.models {
        let own = model.files.iter().map(|file| Cow::Borrowed(file.real.as_str()));
        let links = model.files.iter().filter_map(|file| Some(Cow::Owned(model.blob_link_of(file)?.0)));
        let uses = model.uses.iter().map(|path| Cow::Borrowed(path.as_str()));
        for path in own.chain(links).chain(uses) {
            add_user(&mut users, path, model.owner);
        }
    }
    for stray in &scan.strays {
        if let (Some(payload), Some(owner)) = (&stray.payload, stray.owner) {
            add_user(&mut users, Cow::Borrowed(&payload.path), owner);
        }
    }
    users
}

fn add_user<'a>(users: &mut HashMap<Cow<'a, str>, Few<OwnerId>>, path: Cow<'a, str>, owner: OwnerId) {
    users.entry(path).and_modify(|all| all.add(owner)).or_insert(Few::One(owner));
}

impl<'a> List<'a> {
    fn push(&mut self, row: usize, item: Named<'a>) {
        if self.seen.insert(item.path.clone()) {
            self.items.by_row[row].push(item.into_item());
        }
    }

    /// The entry of a file in its own model, which no other row has.
    fn push_own(&mut self, row: usize, item: Named<'a>) {
        self.items.by_row[row].push(item.into_item());
    }

    /// An item of these rows: it goes with the last of them.
    fn push_for(&mut self, rows: &[usize], item: Named<'a>) {
        if let [row] = rows {
            return self.push(*row, item);
        }
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        rows.dedup();
        match rows.as_slice() {
            [] => {}
            [row] => self.push(*row, item),
            _ => {
                if self.seen.insert(item.path.clone()) {
                    self.items.shared.push(SharedItem { item: item.into_item(), needs: rows });
                }
            }
        }
    }

    /// The rows of all users of the file at `path`, if all of them go.
    fn rows_of(&self, path: &str) -> Option<Few<usize>> {
        if self.scan.is_held_elsewhere(path) {
            return None;
        }
        let row = |owner: &OwnerId| self.row_of.get(owner).copied();
        match self.users.get(path)? {
            Few::One(owner) => row(owner).map(Few::One),
            Few::Several(owners) => owners.iter().map(row).collect::<Option<_>>().map(Few::Several),
        }
    }

    fn model(&mut self, row: usize, found: &'a FoundModel) {
        // Files in its own directories that do not go with it alone, with the rows that they go with.
        let mut others: Vec<(&str, Option<Few<usize>>)> = Vec::new();
        for file in &found.files {
            if let Some(link) = &file.link {
                let link = Named::link(found.place_of(file), link);
                // Snapshots lie side by side; a folder's model may lie in another one.
                if found.repo.is_some() { self.push_own(row, link) } else { self.push(row, link) }
            }
            if let Some((path, _)) = found.blob_link_of(file)
                && let Some(link) = file.blob.as_ref().and_then(|blob| blob.link.as_deref())
                && let Some(rows) = self.rows_of(&path)
            {
                self.push_for(rows.as_slice(), Named::link(path, link));
            }
            // A link that leads elsewhere in the store does not own what it leads to.
            if file.link.is_none() || file.blob.is_some() {
                let rows = self.rows_of(&file.real);
                if let Some(rows) = &rows {
                    self.payload(rows.as_slice(), Named::at(&file.real, &file.stat));
                }
                if rows.as_ref().map(Few::as_slice) != Some(&[row]) {
                    others.push((&file.real, rows));
                }
            }
        }
        for record in &found.records {
            self.push(row, Named::of(record));
        }
        if let Some((path, stat)) = &found.listing {
            self.push(row, Named::at(path, stat));
        }
        if found.keeps_dirs {
            return;
        }
        // Deepest first, so that each is empty when its turn comes.
        let mut dirs: Vec<&'a (String, Stat)> = found.dirs.iter().collect();
        dirs.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| b.0.cmp(&a.0)));
        for (path, stat) in dirs {
            // A directory goes with the last of what is in it, and stays where that stays.
            let inside = others.iter().filter(|(other, _)| is_below(other, path));
            let rows: Option<Vec<&[usize]>> =
                inside.map(|(_, rows)| rows.as_ref().map(Few::as_slice)).collect();
            let Some(rows) = rows else { continue };
            let mut rows = rows.concat();
            rows.push(row);
            self.push_for(&rows, Named::at(path, stat));
        }
    }

    /// A file with what lies beside it and goes with it.
    fn payload(&mut self, rows: &[usize], file: Named<'a>) {
        let scan = self.scan;
        let beside = scan.beside(&file.path);
        self.push_for(rows, file);
        for item in beside {
            self.push_for(rows, Named::of(item));
        }
    }

    fn stray(&mut self, row: usize, stray: &'a Stray) {
        for one in &stray.items {
            self.push(row, Named::of(one));
        }
        if let Some(payload) = &stray.payload
            && let Some(rows) = self.rows_of(&payload.path)
        {
            self.payload(rows.as_slice(), Named::of(payload));
        }
    }

    /// Repo directories of which every owner goes.
    fn skeletons(&mut self) {
        let goes = |group: &&'a Group| -> Option<Vec<usize>> {
            let rows: Option<Vec<usize>> =
                group.owners.clone().map(|owner| self.row_of.get(&owner).copied()).collect();
            rows.filter(|rows| !rows.is_empty())
        };
        let (groups, rows): (Vec<&Group>, Vec<Vec<usize>>) =
            self.scan.groups().iter().filter_map(|group| Some((group, goes(&group)?))).unzip();
        for (skeleton, rows) in self.scan.skeletons(&groups).into_iter().zip(rows) {
            for StrayItem { path, stat, link_target } in skeleton {
                if self.seen.contains(path.as_str()) {
                    continue;
                }
                let link_target = link_target.map(Cow::Owned);
                self.push_for(&rows, Named { path: Cow::Owned(path), stat, link_target });
            }
        }
    }
}

fn is_below(path: &str, dir: &str) -> bool {
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))
}

/// One thing on the disk; its path is mostly the scan's own.
struct Named<'a> {
    path: Cow<'a, str>,
    stat: Stat,
    link_target: Option<Cow<'a, str>>,
}

impl<'a> Named<'a> {
    fn at(path: &'a str, stat: &'a Stat) -> Self {
        Named { path: Cow::Borrowed(path), stat: *stat, link_target: None }
    }

    fn link(path: String, link: &'a Link) -> Self {
        Named { path: Cow::Owned(path), stat: link.stat, link_target: Some(Cow::Borrowed(&link.target)) }
    }

    fn of(one: &'a StrayItem) -> Self {
        let link_target = one.link_target.as_deref().map(Cow::Borrowed);
        Named { link_target, ..Named::at(&one.path, &one.stat) }
    }

    fn into_item(self) -> Item {
        item(self.path.into_owned(), &self.stat, self.link_target.map(Cow::into_owned))
    }
}

pub(crate) fn item(path: String, stat: &Stat, link_target: Option<String>) -> Item {
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
