//! The user's words: tags, notes, pins.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Registry, RegistryError, Row, merge};
use crate::record::{Manifest, UserLayer};
use crate::schema::{Form, Rejected};
use crate::summary::Summary;

impl Registry {
    /// Changes what the user said of the models of `rows`, and gives their new summaries.
    ///
    /// # Errors
    /// When a manifest cannot be read or written; those before it are changed.
    pub fn edit_user(
        &self,
        rows: &[Row],
        mut change: impl FnMut(&mut UserLayer),
    ) -> Result<Vec<Summary>, RegistryError> {
        let _lock = self.lock(&|| {})?;
        if let Some((row, why)) = rows.iter().find_map(|row| Some((row, row.away.as_ref()?))) {
            return Err(RegistryError::Io {
                doing: "change the manifest",
                path: row.path.clone(),
                source: std::io::Error::other(why.clone()),
            });
        }
        let touched = rows.iter().flat_map(|row| row.also.iter().chain([&row.target]));
        let _locks = self.lock_folders(touched, &|| {});
        let mut summaries = Vec::new();
        for row in rows {
            // Under the lock, for another process may just have written there.
            let from = if self.stamp_of(&row.target).is_some() { &row.target } else { &row.path };
            let others = self.other_words(row, from);
            let (document, summary, user) = self.edited(from, row, &others, &mut change)?;
            self.write_document(&row.target, &document)?;
            for (path, words) in &others {
                // What another manifest of the same model still says must not speak against it.
                let mut together = user.clone();
                merge::add_words(&mut together, words.clone());
                if together != user {
                    let (document, ..) = self.edited(path, row, &[], &mut change)?;
                    self.write_document(path, &document)?;
                }
            }
            summaries.push(summary);
        }
        Ok(summaries)
    }

    pub(super) fn edited(
        &self,
        path: &Path,
        row: &Row,
        others: &[(&PathBuf, UserLayer)],
        change: &mut impl FnMut(&mut UserLayer),
    ) -> Result<(Value, Summary, UserLayer), RegistryError> {
        let document = self.read_upgraded(path, &row.summary)?;
        let mut manifest: Manifest =
            serde_json::from_value(document.clone()).map_err(|error| RegistryError::Invalid {
                path: path.to_owned(),
                source: Rejected { field: String::new(), why: error.to_string() },
            })?;
        let theirs = manifest.user.tags.clone();
        let mut user = merge::words_of(Form::Current, &document);
        others.iter().for_each(|(_, more)| merge::add_words(&mut user, more.clone()));
        change(&mut user);
        // Found tags that the user had taken away come back with the next sync, not here.
        manifest.tags.retain(|tag| !theirs.contains(tag));
        merge::apply_user(&mut manifest, &user);
        let document = merge::merge_edited(&manifest, &document, &user)
            .map_err(|source| RegistryError::Override { source })?;
        let summary = Summary { store: row.summary.store.clone(), ..Summary::of(&manifest) };
        Ok((document, summary, user))
    }

    /// What the user said in other manifests of a row's model than the one at `path`.
    pub(super) fn other_words<'a>(&self, row: &'a Row, path: &Path) -> Vec<(&'a PathBuf, UserLayer)> {
        let others = row.also.iter().filter(|other| *other != path);
        others.filter_map(|other| Some((other, self.words_at(other)?))).collect()
    }

    /// What the user said in a further manifest of a model.
    pub(super) fn words_at(&self, path: &Path) -> Option<UserLayer> {
        let (form, document) = self.read_document(path).ok()?;
        Some(merge::words_of(form, &document))
    }
}
