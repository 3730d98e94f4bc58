//! Makes a table of the files of the pages, which are built and committed beforehand: building this crate needs no Node.

use std::fmt::Write;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(&std::env::var("CARGO_MANIFEST_DIR")?).join("page/dist");
    let manifest = folder.join("manifest.json");
    println!("cargo::rerun-if-changed={}", manifest.display());
    let manifest: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(manifest)?)?;
    let mut table = String::from("&[\n");
    for file in manifest["files"].as_array().ok_or("the manifest has no list of files")? {
        let text = |name: &str| file[name].as_str().ok_or_else(|| format!("a file of the manifest has no {name}"));
        let path = folder.join(text("file")?);
        println!("cargo::rerun-if-changed={}", path.display());
        let (name, kind, encoding) = (text("name")?, text("content_type")?, file["content_encoding"].as_str());
        let page = file["page"].as_str();
        let immutable = file["immutable"].as_bool().unwrap_or(false);
        writeln!(
            table,
            "File {{ name: {name:?}, page: {page:?}, content_type: {kind:?}, content_encoding: {encoding:?}, immutable: {immutable}, \
             bytes: include_bytes!({path:?}) }},"
        )?;
    }
    table.push(']');
    std::fs::write(Path::new(&std::env::var("OUT_DIR")?).join("page_files.rs"), table)?;
    Ok(())
}
