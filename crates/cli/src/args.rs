//! What can be typed. Types alone: what they mean is decided in `commands`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Parser, Subcommand};
use mlxman_clean::filter::FilterArgs;

const EXIT_STATUS: &str = "\
Exit status:
  0  it worked, and nothing is wrong
  1  it worked, and found problems (they are rows of its output)
  2  the call was wrong
  3  it could not do its work";

const RUN_STATUS: &str = "\
Exit status:
  that of the command, which takes the place of mlxman; or, where it was not started:
  2  the call was wrong
  3  mlxman could not do its work
  126  the command cannot be run
  127  there is no such command";

/// Keeps a machine's local models in order: finds every one, writes a manifest for each, and shows what could go
#[derive(Debug, Parser)]
#[command(name = "mlxman", version, max_term_width = 100, after_help = EXIT_STATUS, after_long_help = EXIT_STATUS)]
#[command(propagate_version = false, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options of every command")]
pub(crate) struct Global {
    /// Use only this store, as hub=PATH or folder=PATH (repeatable); a word without `=` selects among the known stores
    #[arg(long, global = true, value_name = "KIND=PATH", action = ArgAction::Append)]
    pub(crate) store: Vec<String>,
    /// Print JSON instead of a table
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Print no status, only data, errors, and what was refused
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
    /// Give up a store that does not answer for so long
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub(crate) store_timeout: u64,
    /// Read this configuration instead of $XDG_CONFIG_HOME/mlxman/config.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the registry up to date with the stores: one manifest for each model
    #[command(after_help = EXIT_STATUS)]
    Sync(Sync),
    /// List the models of the registry
    #[command(after_help = EXIT_STATUS, visible_alias = "ls")]
    List(List),
    /// Check that models are whole, load and generate, and how fast they are
    #[command(after_help = EXIT_STATUS)]
    Verify(Verify),
    /// Show everything known of one model, with what says so
    #[command(after_help = EXIT_STATUS)]
    Show(Show),
    /// Print the directory to load a model from, offline
    #[command(after_help = EXIT_STATUS)]
    Path(PathArgs),
    /// Run a command with a model, offline: HF_HUB_OFFLINE=1, and the model's directory in MLXMAN_MODEL_PATH
    #[command(after_help = RUN_STATUS)]
    Run(Run),
    /// Show the stores, with used and free space
    #[command(after_help = EXIT_STATUS)]
    Stores,
    /// Show what is wrong in the stores, what it costs and what mends it; and what this machine verifies models with
    #[command(after_help = EXIT_STATUS)]
    Doctor(Doctor),
    /// Add tags to a model, or take them away
    #[command(after_help = EXIT_STATUS)]
    Tag(Tag),
    /// Write a note on a model
    #[command(after_help = EXIT_STATUS)]
    Note(Note),
    /// Pin models: a pinned model is never a candidate for removal
    #[command(after_help = EXIT_STATUS)]
    Pin(Models),
    /// Take a pin away
    #[command(after_help = EXIT_STATUS)]
    Unpin(Models),
    /// See what could be removed and what the disk would get back, and remove it
    #[command(subcommand)]
    Clean(Clean),
    /// Put back what was removed last, or by this name, as long as the trash was not emptied
    #[command(after_help = EXIT_STATUS)]
    Undo(Undo),
    /// See what was removed and can be put back, and free it for good
    #[command(subcommand)]
    Trash(Trash),
    /// Print a JSON Schema of what mlxman reads and writes
    Schema(Schema),
    /// Print a shell's completions
    Completions(Completions),
    /// Print the manual page, or write all pages into a directory
    Man(Man),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Sync {
    /// Models to look at: names, repo ids, NAME@REVISION; all by default
    #[arg(value_name = "MODEL")]
    pub(crate) models: Vec<String>,
    /// Open no weight beyond its header: no hashes are computed, known ones are kept
    #[arg(long)]
    pub(crate) fast: bool,
    /// Set a field of the named models' manifests in place of what is observed (repeatable)
    #[arg(long = "override", value_name = "FIELD=VALUE", action = ArgAction::Append)]
    pub(crate) overrides: Vec<String>,
    /// Write this note into the named models' manifests
    #[arg(long, value_name = "TEXT")]
    pub(crate) notes: Option<String>,
    /// Show what would be written, and write nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take a store for what it is now although its directory is another one and holds nothing of what was known
    #[arg(long)]
    pub(crate) accept_replaced: bool,
}

/// Which models: all kinds given must hold; of several values of one kind, any.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Filters")]
pub(crate) struct Filters {
    /// Models by name, repo id or glob, with @REVISION or without
    #[arg(long, value_name = "GLOB", num_args = 1.., action = ArgAction::Append)]
    pub(crate) models: Vec<String>,
    /// Models with any of these tags
    #[arg(long, value_name = "TAG", num_args = 1.., action = ArgAction::Append)]
    pub(crate) tags: Vec<String>,
    /// Models with any of these quantizations: 4bit, 8bit, bf16, mxfp4, mixed, mixed-4-8bit, Q4_K_M
    #[arg(long, value_name = "LABEL", num_args = 1.., action = ArgAction::Append)]
    pub(crate) quantization: Vec<String>,
    /// Only models with an adapter fused in
    #[arg(long)]
    pub(crate) fused_only: bool,
    /// Only models whose files are gone
    #[arg(long)]
    pub(crate) missing_only: bool,
    /// Only models of which this holds, such as 'size>1.5GB', 'used>30d', 'health!=complete', 'arch~qwen*'
    #[arg(long = "filter", value_name = "EXPR", action = ArgAction::Append)]
    pub(crate) filter: Vec<String>,
}

impl Filters {
    pub(crate) fn args(&self, stores: Vec<String>) -> FilterArgs {
        FilterArgs {
            models: self.models.clone(),
            repos: Vec::new(),
            tags: self.tags.clone(),
            quantization: self.quantization.clone(),
            stores,
            fused_only: self.fused_only,
            missing_only: self.missing_only,
            filters: self.filter.clone(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Sort {
    /// By name
    Name,
    /// Largest first
    Size,
    /// Longest unused first
    Used,
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// In which order
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    pub(crate) sort: Sort,
    /// Show what verifications found
    #[arg(long)]
    pub(crate) verified: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// The files are there, and agree with each other and with their headers
    Structure,
    /// The contents are those that hashes name: all are read, and nothing is loaded
    Integrity,
    /// Every tensor was read through MLX and is finite
    Load,
    /// A prompt was read and tokens were generated
    Generate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Dtype {
    /// The checkpoint's on Metal and CUDA, float32 on the CPU
    Auto,
    /// The checkpoint's own
    Checkpoint,
    /// IEEE single precision
    Float32,
    /// The upper half of a float32
    Bfloat16,
    /// IEEE half precision
    Float16,
}

/// The longest prompt, and the most tokens behind it, that are measured: no context is longer.
const MOST_TOKENS: i64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Verify {
    /// Models: names, repo ids, NAME@REVISION, directories; all by default
    #[arg(value_name = "MODEL")]
    pub(crate) model: Vec<OsString>,
    #[command(flatten)]
    pub(crate) filters: Filters,
    /// How far to go; as far as the model and the machine allow by default
    #[arg(long, value_enum)]
    pub(crate) level: Option<Level>,
    /// With `--level integrity`: read again what was found whole and has not changed since
    #[arg(long, help_heading = "Integrity")]
    pub(crate) again: bool,
    /// With `--level integrity`: read for so long, what was checked longest ago first; seconds, or 90s, 10m, 2h
    #[arg(long, value_name = "TIME", help_heading = "Integrity")]
    pub(crate) budget: Option<String>,
    /// Take a model whose architecture no decoder is known for, or an adapter of an unknown kind, as failed
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the architectures that a decoder is known for, by their `model_type`, and do nothing else
    #[arg(long)]
    pub(crate) list_families: bool,
    /// Measure in a few seconds a model (this is the default)
    #[arg(long, conflicts_with = "bench", help_heading = "Measuring")]
    pub(crate) quick: bool,
    /// Measure as mlx_lm.benchmark does: 512 prompt tokens, 128 generated ones, 5 trials
    #[arg(long, help_heading = "Measuring")]
    pub(crate) bench: bool,
    /// Tokens of the prompt, at most 1048576
    #[arg(short = 'p', long, value_name = "N", help_heading = "Measuring", value_parser = clap::value_parser!(u32).range(1..=MOST_TOKENS))]
    pub(crate) prompt_tokens: Option<u32>,
    /// Tokens to generate, at most 1048576
    #[arg(short = 'g', long, value_name = "N", help_heading = "Measuring", value_parser = clap::value_parser!(u32).range(1..=MOST_TOKENS))]
    pub(crate) generated_tokens: Option<u32>,
    /// Trials, of which the median counts
    #[arg(short = 'n', long, value_name = "N", help_heading = "Measuring", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) trials: Option<u32>,
    /// In what type to compute
    #[arg(long, value_enum, default_value_t = Dtype::Auto, help_heading = "Measuring")]
    pub(crate) dtype: Dtype,
    /// Keep what each model answers to a fixed prompt, to compare with later
    #[arg(long, conflicts_with = "answers", help_heading = "Known answers")]
    pub(crate) record_answers: bool,
    /// Compare with recorded answers, else with reference.json in the model's directory; or with this file
    #[arg(long, value_name = "auto|FILE", help_heading = "Known answers")]
    pub(crate) answers: Option<PathBuf>,
    /// Give one model up after so long: seconds, or 90s, 10m, 2h
    #[arg(long, value_name = "TIME", default_value = "10m", help_heading = "Limits")]
    pub(crate) timeout: String,
    /// Memory that models may take, such as 12GB; the machine's available memory by default
    #[arg(long, value_name = "SIZE", help_heading = "Limits")]
    pub(crate) memory_limit: Option<String>,
    /// Models at once, where memory allows, one by default; with `--level integrity` files at once, by default as many
    /// as the machine has cores
    #[arg(long, short, value_name = "N", help_heading = "Limits", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: Option<u16>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The model: its name, repo id, NAME@REVISION, or STORE:NAME
    #[arg(value_name = "MODEL", required_unless_present_any = ["models", "tags", "quantization", "filter", "fused_only", "missing_only"])]
    pub(crate) model: Vec<String>,
    #[command(flatten)]
    pub(crate) filters: Filters,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PathArgs {
    /// The model: its name, repo id, or NAME@REVISION; of a repo the newest complete snapshot
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The model: its name, repo id, or NAME@REVISION; of a repo the newest complete snapshot
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The command and its arguments; `{}` in them becomes the model's directory
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub(crate) command: Vec<OsString>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Mend what can be mended without a network, after showing it; `mlxman undo` takes it back
    #[arg(long)]
    pub(crate) fix: bool,
    /// Do not ask
    #[arg(long, short, requires = "fix")]
    pub(crate) yes: bool,
    /// Show what would be mended, and touch nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Tag {
    /// The model
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// Tags to add; with a minus before it (after `--`) or by --remove, to take away
    #[arg(value_name = "TAG", required_unless_present = "remove")]
    pub(crate) tags: Vec<String>,
    /// Tags to take away
    #[arg(long, value_name = "TAG", num_args = 1..)]
    pub(crate) remove: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Note {
    /// The model
    #[arg(value_name = "MODEL")]
    pub(crate) model: String,
    /// The note; an empty one takes it away
    #[arg(value_name = "TEXT")]
    pub(crate) text: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Models {
    /// The models
    #[arg(value_name = "MODEL", required = true)]
    pub(crate) models: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Clean {
    /// Show what matches, or without filters what is safe to go; nothing is touched
    #[command(after_help = EXIT_STATUS)]
    Preview(Preview),
    /// Do what a preview showed: move it into the store's trash, from where `mlxman undo` puts it back
    #[command(after_help = EXIT_STATUS)]
    Apply(Apply),
    /// Find equal files across models and stores, and what one copy of them would save; with --apply, make one copy
    #[command(after_help = EXIT_STATUS)]
    Dedupe(Dedupe),
    /// See all that a hub cache holds, with what `hf cache ls` leaves out; or remove repos by their ids
    #[command(after_help = EXIT_STATUS)]
    Hf(Hf),
}

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["scan", "pattern"]))]
pub(crate) struct Hf {
    /// Show repos, revisions, sizes and refs, and broken repos, leftovers, locks and Xet's cache as well
    #[arg(long)]
    pub(crate) scan: bool,
    /// Show what would go of repos with this id, or of all that a glob matches; `--yes` does it
    #[arg(long, value_name = "GLOB", num_args = 1.., action = ArgAction::Append)]
    pub(crate) pattern: Vec<String>,
    /// Look in this directory's `hub` instead of the known hub caches
    #[arg(long, value_name = "DIR")]
    pub(crate) hf_home: Option<PathBuf>,
    /// Also write the plan to this file, for `mlxman clean apply`
    #[arg(long, value_name = "PLAN", conflicts_with = "scan")]
    pub(crate) out: Option<PathBuf>,
    /// Show what would go, and touch nothing, whatever else is said
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Move what matches into the trash, without asking
    #[arg(long, short, conflicts_with = "scan")]
    pub(crate) yes: bool,
    /// With --yes: free the space at once; what goes cannot be put back
    #[arg(long, requires = "yes")]
    pub(crate) now: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Dedupe {
    /// Make one copy of equal files: they share their blocks, and each stays a file of its own; without this they are only
    /// shown
    #[arg(long)]
    pub(crate) apply: bool,
    /// Do not ask
    #[arg(long, short, requires = "apply")]
    pub(crate) yes: bool,
    /// Make them one file with several names, where the filesystem does not let files share blocks: to edit one is then to
    /// edit all of them, and they have the times of the one that stays
    #[arg(long)]
    pub(crate) hardlink: bool,
    /// Leave files of fewer bytes alone, such as 64MB; 1 MiB by default
    #[arg(long, value_name = "SIZE")]
    pub(crate) min_size: Option<String>,
    /// Free the space at once; `mlxman undo` then has to copy
    #[arg(long, requires = "apply")]
    pub(crate) now: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Apply {
    /// A plan that `clean preview --out` wrote; without one, what the filters choose
    #[arg(value_name = "PLAN", conflicts_with_all = ["models", "tags", "quantization", "filter", "fused_only", "missing_only"])]
    pub(crate) plan: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) filters: Filters,
    #[command(flatten)]
    pub(crate) policies: Policies,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Free the space at once: what goes cannot be put back
    #[arg(long)]
    pub(crate) now: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Undo {
    /// What to put back, as `mlxman trash list` names it; the newest by default
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Trash {
    /// List what can be put back, and what the disk gets back when it is freed
    #[command(after_help = EXIT_STATUS)]
    List,
    /// Free it for good
    #[command(after_help = EXIT_STATUS)]
    Empty(Empty),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Empty {
    /// What to free, as `mlxman trash list` names it; all by default
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Only what was removed longer ago than this, such as 7d
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<String>,
    /// Do not ask
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// What names models by rules of its own, within the filters.
#[derive(Debug, Clone, Default, PartialEq, Eq, clap::Args)]
#[command(next_help_heading = "Policies (also in the configuration, under [clean])")]
pub(crate) struct Policies {
    /// Of each repo keep the N most recent whole snapshots, those that a ref names first; the others may go
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) keep_last: Option<u32>,
    /// Models that were not used for so long, such as 90d: by the log of uses, else by file times
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<String>,
    /// The least recently used, until the stores take no more than this, such as 200GB
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_size: Option<String>,
    /// What is missed least, until so much is free on the disk, such as 50GB
    #[arg(long, value_name = "SIZE")]
    pub(crate) free: Option<String>,
    /// Snapshots that no ref names, where another of the repo is named by one
    #[arg(long)]
    pub(crate) detached: bool,
    /// Partial downloads that nobody writes
    #[arg(long)]
    pub(crate) partials: bool,
    /// Blobs that no snapshot uses
    #[arg(long)]
    pub(crate) orphans: bool,
    /// Repos without a snapshot, snapshots without a file or with links whose blobs are gone, stale locks
    #[arg(long)]
    pub(crate) broken: bool,
    /// Models that lie in the stores once more; the copy in the better place stays
    #[arg(long)]
    pub(crate) duplicates: bool,
    /// Models of which a newer revision or a finer precision is here and passed `verify --level load`
    #[arg(long)]
    pub(crate) superseded: bool,
    /// Leave a revision that no ref names alone for so long after it was last written or used (14d if nothing is said)
    #[arg(long, value_name = "AGE")]
    pub(crate) grace: Option<String>,
    /// Leave out the policies of the configuration
    #[arg(long)]
    pub(crate) no_policies: bool,
    /// Also what cannot be had again: a fused LoRA, a conversion made here, what no repo is known for
    #[arg(long, help_heading = "Safety")]
    pub(crate) include_irreplaceable: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Preview {
    #[command(flatten)]
    pub(crate) filters: Filters,
    #[command(flatten)]
    pub(crate) policies: Policies,
    /// Say of one model what each policy and each guard makes of it
    #[arg(long, value_name = "MODEL", conflicts_with = "out")]
    pub(crate) explain: Option<String>,
    /// Also write the plan to this file
    #[arg(long, value_name = "PLAN")]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Schema {
    /// Which one
    #[arg(value_name = "NAME", required_unless_present = "list")]
    pub(crate) name: Option<String>,
    /// Print the names
    #[arg(long)]
    pub(crate) list: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Man {
    /// Write a page for every command into this directory
    #[arg(value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}
