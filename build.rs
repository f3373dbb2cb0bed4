//! Builds the engine's C++ shim (`src/engine/office.cc`) into a shared object that the binary carries inside.
//!
//! It is not linked: only the zygote opens it, so every command that needs no engine runs where LibreOffice is not
//! installed. `PLATEN_LIBREOFFICE` names another installation than Debian's for the build.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::UNIX_EPOCH;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/engine/office.cc");
    println!("cargo::rerun-if-env-changed=PLATEN_LIBREOFFICE");
    let office = PathBuf::from(env::var_os("PLATEN_LIBREOFFICE").unwrap_or_else(|| "/usr/lib/libreoffice".into()));
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets no OUT_DIR")?);
    let cppumaker = office.join("sdk/bin/cppumaker");
    let includes = PathBuf::from("/usr/include/libreoffice");
    let program = office.join("program");
    let types = [program.join("types.rdb"), program.join("types/offapi.rdb")];
    for needed in [
        &cppumaker,
        &includes.join("LibreOfficeKit/LibreOfficeKitInit.h"),
        &types[0],
        &types[1],
    ] {
        println!("cargo::rerun-if-changed={}", needed.display());
        if !needed.exists() {
            return Err(format!(
                "{} is missing: LibreOffice 25.2 and its headers build the engine; run 'deploy/packages.sh engine build'",
                needed.display()
            ));
        }
    }

    let headers = out.join("uno");
    make_headers(&cppumaker, &types, &headers)?;

    let object = out.join("libplaten_office.so");
    let mut compiler = cc::Build::new()
        .cpp(true)
        .std("c++17")
        .opt_level(2)
        .pic(true)
        .try_get_compiler()
        .map_err(|error| format!("found no C++ compiler ({error}): run 'deploy/packages.sh build'"))?
        .to_command();
    compiler
        .args([
            "-shared",
            "-fvisibility=hidden",
            "-Wall",
            "-Wextra",
            "-DLINUX",
            "-DUNX",
            "-Wl,-z,defs",
        ])
        // Generated and installed headers are LibreOffice's business: no warnings from them.
        .arg("-isystem")
        .arg(&headers)
        .arg("-isystem")
        .arg(&includes)
        .arg("src/engine/office.cc")
        .arg("-o")
        .arg(&object)
        .arg(format!("-L{}", office.join("sdk/lib").display()))
        .arg(format!("-Wl,-rpath-link,{}", program.display()))
        .args([
            "-luno_sal",
            "-luno_cppu",
            "-luno_cppuhelpergcc3",
            "-luno_salhelpergcc3",
            "-ldl",
        ]);
    run(
        &mut compiler,
        "src/engine/office.cc does not compile; LibreOffice 25.2 is wanted ('deploy/packages.sh build')",
    )
}

/// Makes the C++ headers of LibreOffice's interfaces (27 MB, half a second), again only when LibreOffice changed.
fn make_headers(cppumaker: &Path, types: &[PathBuf], headers: &Path) -> Result<(), String> {
    let stamp = headers.join("made-from");
    let mut made_from = String::new();
    for file in types {
        let metadata = fs::metadata(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
        let modified = metadata
            .modified()
            .ok()
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        made_from.push_str(&format!("{} {} {modified:?}\n", file.display(), metadata.len()));
    }
    if fs::read_to_string(&stamp).is_ok_and(|before| before == made_from) {
        return Ok(());
    }
    let mut option = std::ffi::OsString::from("-O");
    option.push(headers);
    fs::create_dir_all(headers).map_err(|error| format!("cannot make {}: {error}", headers.display()))?;
    run(
        Command::new(cppumaker).arg("-Gc").arg(option).args(types),
        "cppumaker fails; run 'deploy/packages.sh build'",
    )?;
    fs::write(&stamp, made_from).map_err(|error| format!("cannot write {}: {error}", stamp.display()))
}

fn run(command: &mut Command, otherwise: &str) -> Result<(), String> {
    let status = command
        .status()
        .map_err(|error| format!("{:?}: {error}; {otherwise}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{otherwise}: {:?} ended with {status}", command.get_program()))
    }
}
