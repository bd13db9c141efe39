//! What lies in one store: `cargo run --example scan -- hub=PATH`.
#![expect(clippy::print_stdout, reason = "an example prints")]

use mlxman_store::{Progress, StoreSpec, layout_of};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec: StoreSpec = std::env::args().nth(1).ok_or("name a store: hub=PATH or folder=PATH")?.parse()?;
    let scan = layout_of(spec.kind()).scan(&spec, &Progress::default())?;
    for model in &scan.models {
        let frees = scan.ledger.reclaim([model.owner]).bytes;
        println!("{}: {} files, {} bytes, frees {frees}", model.key, model.files.len(), model.size_bytes());
        for problem in &model.problems {
            println!("  {}: {}", problem.kind, problem.message);
        }
    }
    for stray in &scan.strays {
        println!("{}: {}", stray.problem.kind, stray.problem.path.as_deref().unwrap_or("."));
    }
    println!("{} bytes allocated in all", scan.usage().allocated_bytes);
    Ok(())
}
