//! What an app asks before it downloads: is the model here, is it whole, where, and how big?
//! `cargo run --example is_it_here -- mlx-community/Qwen2.5-0.5B-Instruct-4bit hub=PATH`
#![expect(clippy::print_stdout, reason = "an example prints")]

use mlxman_manifest::HealthStatus;
use mlxman_manifest::catalog::Catalog;
use mlxman_manifest::registry::{Registry, SyncOptions};
use mlxman_store::StoreSpec;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let model = words.next().ok_or("name a model, and a store as KIND=PATH")?;
    let store: StoreSpec = words.next().ok_or("name a store: hub=PATH or folder=PATH")?.parse()?;
    // A survey reads the stores and writes nothing; a registry that is not there yet is an empty one.
    let registry = Registry::at(std::env::temp_dir().join("mlxman-example"));
    let survey = registry.survey(&[store], &Catalog::built_in(), &SyncOptions::fast(chrono::Utc::now()))?;
    for found in &survey.stores {
        let scan = found.scan.as_ref().map_err(ToString::to_string)?;
        for (place, known) in scan.models.iter().zip(&found.models) {
            let summary = &known.summary;
            if summary.answers_to(&model) && summary.health == HealthStatus::Complete {
                println!("{}: {} bytes", scan.dir_of(place).display(), summary.size_bytes);
                return Ok(());
            }
        }
    }
    println!("{model} is not here, or not whole");
    Ok(())
}
