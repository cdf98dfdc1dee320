//! Fetches everything into the cache folder and lists it: `cargo run --release -p hearsay-models --example fetch`.

use std::time::Instant;

use hearsay_models::{Error, ModelStore, Terminal, cache_folder};

fn main() -> Result<(), Error> {
    let store = ModelStore::open(cache_folder()?);
    let mut progress = Terminal::default();
    let start = Instant::now();
    let models = store.fetch(&mut progress)?;
    eprintln!("fetched in {:?}", start.elapsed());
    store.recordings(&mut progress)?;
    println!("{models:#?}");
    for it in store.list() {
        println!("{:20} {:8} {:>12} {}", it.name, it.version, it.size, it.state);
    }
    Ok(())
}
