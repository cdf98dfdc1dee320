//! Compiles `proto/` without a system `protoc`.

use std::{env, fs, path::PathBuf};

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = PathBuf::from("../../proto");
    let files = [
        root.join("hearsay/v1/event.proto"),
        root.join("hearsay/v1/recognizer.proto"),
        root.join("hearsay/v1/log.proto"),
    ];
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(&files, [&root])?;
    #[expect(clippy::disallowed_methods, reason = "cargo tells a build script where to write through the environment")]
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .bytes(".hearsay.v1.Chunk.data")
        .bytes(".hearsay.v1.Restart.headers")
        .compile_fds(descriptors)?;
    Ok(())
}
