//! `cargo xtask generate`: the files that the program itself describes.
//!
//! The program is asked for everything: `mlxman schema --list` and `mlxman schema NAME`, `--help` of every command,
//! `mlxman man DIR`, which writes the pages, and `mlxman completions SHELL`. It runs without the user's environment,
//! since help texts show the values of variables.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};

use crate::step::{build_mlxman, read, root, say, step};

/// Directories of nothing but generated files, and how those end.
const OWNED: [(&str, &str); 3] = [("schemas", ".schema.json"), ("docs/man", ".1"), ("docs/completions", "")];

const SHELLS: [(&str, &str); 3] = [("bash", "mlxman.bash"), ("fish", "mlxman.fish"), ("zsh", "_mlxman")];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Writes nothing, and fails if a file differs from what would be written
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    step("generated files", || generate(args.check))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes the files, or compares them.
pub(crate) fn generate(check: bool) -> Result<()> {
    let program = Program { bin: build_mlxman(false)?, home: tempfile::tempdir()? };
    let mut files = program.schemas()?;
    files.insert(PathBuf::from("docs/cli.md"), program.reference()?);
    files.extend(program.man_pages()?);
    files.extend(program.completions()?);
    let stale = stale(&files)?;
    if check { compare(&files, &stale) } else { write(&files, &stale) }
}

/// Paths relative to the root, and what is to be in them.
type Generated = BTreeMap<PathBuf, String>;

/// The built mlxman.
struct Program {
    bin: PathBuf,
    home: tempfile::TempDir,
}

impl Program {
    fn ask(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.bin);
        // A width of its own, since help is wrapped to the terminal's.
        command
            .args(words)
            .env_clear()
            .env("HOME", self.home.path())
            .env("COLUMNS", "100")
            .env("NO_COLOR", "1");
        command.current_dir(self.home.path());
        let text =
            String::from_utf8(read(&mut command)?).context("mlxman printed something that is not UTF-8")?;
        let text: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
        Ok(text.join("\n") + "\n")
    }

    fn schemas(&self) -> Result<Generated> {
        let mut out = Generated::new();
        for name in self.ask(&["schema", "--list"])?.split_whitespace() {
            let schema = self.ask(&["schema", name])?;
            serde_json::from_str::<serde_json::Value>(&schema)
                .with_context(|| format!("`mlxman schema {name}` printed something that is not JSON"))?;
            out.insert(PathBuf::from(format!("schemas/{name}.schema.json")), schema);
        }
        if out.is_empty() {
            bail!("`mlxman schema --list` named no schema");
        }
        Ok(out)
    }

    /// The help of every command, in the order of the help.
    fn reference(&self) -> Result<String> {
        let mut out = String::from(
            "# Command line\n\n<!-- Made by `cargo xtask generate` from the program's help: change it there. -->\n",
        );
        self.help(&mut Vec::new(), &mut out)?;
        Ok(out)
    }

    fn help(&self, words: &mut Vec<String>, out: &mut String) -> Result<()> {
        let mut call: Vec<&str> = words.iter().map(String::as_str).collect();
        call.push("--help");
        let help = self.ask(&call)?;
        let title =
            std::iter::once("mlxman").chain(words.iter().map(String::as_str)).collect::<Vec<_>>().join(" ");
        out.push_str(&format!("\n## `{title}`\n\n```text\n{help}```\n"));
        for name in subcommands(&help) {
            words.push(name);
            self.help(words, out)?;
            words.pop();
        }
        Ok(())
    }

    fn man_pages(&self) -> Result<Generated> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().to_str().context("the temporary directory's path is not UTF-8")?;
        self.ask(&["man", path])?;
        let mut out = Generated::new();
        for name in names(dir.path())? {
            let page = fs_err::read_to_string(dir.path().join(&name))?;
            out.insert(Path::new("docs/man").join(name), page);
        }
        if out.is_empty() {
            bail!("`mlxman man DIR` wrote no page");
        }
        Ok(out)
    }

    fn completions(&self) -> Result<Generated> {
        let dir = Path::new("docs/completions");
        SHELLS.iter().map(|(shell, file)| Ok((dir.join(file), self.ask(&["completions", shell])?))).collect()
    }
}

/// The names under `Commands:` in a help text; each stands at the start of a line indented by two spaces.
fn subcommands(help: &str) -> Vec<String> {
    let section = help.lines().skip_while(|line| line.trim_end() != "Commands:").skip(1);
    section
        .take_while(|line| line.is_empty() || line.starts_with(' '))
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .filter_map(|line| line.split([' ', ',']).next())
        .filter(|name| !name.is_empty() && *name != "help")
        .map(str::to_owned)
        .collect()
}

/// The files in a directory; none if it isn't there.
fn names(dir: &Path) -> Result<BTreeSet<String>> {
    if !dir.exists() {
        return Ok(BTreeSet::new());
    }
    fs_err::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// Files that were generated once and are no longer.
fn stale(files: &Generated) -> Result<Vec<PathBuf>> {
    let mut out = Vec::new();
    for (dir, ending) in OWNED {
        let names = names(&root().join(dir))?;
        let paths = names.iter().filter(|name| name.ends_with(ending)).map(|name| Path::new(dir).join(name));
        out.extend(paths.filter(|path| !files.contains_key(path)));
    }
    Ok(out)
}

fn compare(files: &Generated, stale: &[PathBuf]) -> Result<()> {
    let differs = |(path, text): &(&PathBuf, &String)| {
        fs_err::read_to_string(root().join(path)).map_or(true, |there| there != **text)
    };
    let wrong: Vec<String> = files
        .iter()
        .filter(differs)
        .map(|(path, _)| path)
        .chain(stale)
        .map(|path| path.display().to_string())
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("not what the program describes: {}; `cargo xtask generate` writes them anew", wrong.join(", "))
}

fn write(files: &Generated, stale: &[PathBuf]) -> Result<()> {
    for (path, text) in files {
        let full = root().join(path);
        if full.exists() && fs_err::read_to_string(&full)? == *text {
            continue;
        }
        if let Some(dir) = full.parent() {
            fs_err::create_dir_all(dir)?;
        }
        fs_err::write(&full, text)?;
        say(&format!("wrote {}", path.display()));
    }
    for path in stale {
        fs_err::remove_file(root().join(path))?;
        say(&format!("removed {}", path.display()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_from_the_help() {
        let help = "Does things\n\nUsage: mlxman <COMMAND>\n\nCommands:\n  list     Lists models\n  clean    Plans what \
                    goes,\n           and shows it\n  show, s  Shows one\n  help     Print this message\n\nOptions:\n  \
                    -h, --help  Print help\n";
        assert_eq!(subcommands(help), ["list", "clean", "show"]);
        assert_eq!(subcommands("Usage: mlxman list\n\nOptions:\n  -h, --help\n"), Vec::<String>::new());
    }
}
