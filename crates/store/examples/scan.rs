//! Scans one store and prints what lies there: `cargo run -p mlxman-store --example scan -- hub=PATH`.
#![expect(clippy::print_stdout, reason = "an example prints")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let spec: mlxman_store::StoreSpec = std::env::args().nth(1).ok_or("name a store: KIND=PATH")?.parse()?;
    let started = std::time::Instant::now();
    let scan = mlxman_store::layout_of(spec.kind()).scan(&spec, &mlxman_store::Progress::default())?;
    let took = started.elapsed();
    for model in &scan.models {
        let reclaim = scan.ledger.reclaim([model.owner]);
        println!(
            "{}  {} files  {} B  reclaimable {} B",
            model.key,
            model.files.len(),
            model.size_bytes(),
            reclaim.bytes
        );
        for problem in &model.problems {
            println!("  {}: {:?} {}", problem.kind, problem.path, problem.message);
        }
    }
    for stray in &scan.strays {
        println!("{}: {:?} {}", stray.problem.kind, stray.problem.path, stray.problem.message);
    }
    println!("{:?} in {took:?}", scan.usage());
    Ok(())
}
