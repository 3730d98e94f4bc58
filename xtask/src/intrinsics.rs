//! Intrinsics of the processor that became functions of their own: a closure, or a function that is not part of its caller, is
//! compiled without the instruction set of the path, and each intrinsic in it is a call, many times slower.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::cargo;

/// Intrinsics that the kernels call, by symbols of their library; none without `nm`, which comes with a linker.
///
/// # Errors
/// If the library does not build, or its symbols cannot be read.
pub fn complaints(root: &Path) -> Result<Vec<String>> {
    let arguments = ["build", "--quiet", "--release", "--package", "minke-kernels", "--message-format", "json"];
    let built = cargo(root).args(arguments).stderr(Stdio::inherit()).output()?;
    let library = library(&String::from_utf8(built.stdout)?).context("cargo names no library of minke-kernels")?;
    let Ok(symbols) = Command::new("nm").arg(&library).output() else {
        println!("left out, nm is not installed");
        return Ok(Vec::new());
    };
    if !symbols.status.success() {
        bail!("nm {library}: {}", String::from_utf8_lossy(&symbols.stderr));
    }
    Ok(called(&String::from_utf8_lossy(&symbols.stdout)))
}

/// The library among the messages of cargo.
fn library(messages: &str) -> Option<String> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut kernels = artifacts.filter(|message| message["target"]["name"] == "minke_kernels");
    let files = kernels.find_map(|message| message["filenames"].as_array().cloned())?;
    files.iter().filter_map(Value::as_str).find(|file| file.ends_with(".rlib")).map(str::to_string)
}

/// Complaints about symbols, as `nm` lists them.
fn called(symbols: &str) -> Vec<String> {
    let names = symbols.lines().filter_map(|line| line.split_whitespace().last());
    let mut found: Vec<&str> = names.filter(|name| name.contains("core_arch")).collect();
    found.sort_unstable();
    found.dedup();
    let complaint = |name: &&str| {
        format!(
            "minke-kernels calls {name}: `objdump -d` says from where; call it in a function that is inlined always, not in a closure"
        )
    };
    found.iter().map(complaint).collect()
}

#[cfg(test)]
mod tests {
    use super::called;

    #[test]
    fn an_intrinsic_that_is_a_function_is_found_once() {
        let symbols = "x.o:\n0000 t _R9core_arch3x863avx13__mm256_mul_ps\n                 U _R9core_arch3x863avx13__mm256_mul_ps\n0010 T other\n";
        let found = called(symbols);
        assert!(found.len() == 1 && found[0].contains("_mm256_mul_ps"), "{found:?}");
    }
}
