//! What LibreOffice is told before it starts: its environment, and the read-only layer of settings over its defaults.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::Settings;
use super::office::file_url;

/// No macros, no active content, no link updates, no lock files, no first-start dialogs. A layer instead of a profile:
/// nothing is ever written, and LibreOffice runs no thread that would write it.
const LAYER: &str = include_str!("platen.xcu");

/// Prepares a zygote's directory and returns its whole environment.
pub(super) fn write(home: &Path, settings: &Settings) -> io::Result<Vec<(OsString, OsString)>> {
    for (name, mode) in [
        ("tmp", 0o700),
        ("warm", 0o700),
        ("profile", 0o755),
        ("configuration", 0o755),
    ] {
        fs::create_dir(home.join(name))?;
        fs::set_permissions(home.join(name), Permissions::from_mode(mode))?;
    }
    let configuration = home.join("configuration");
    let layer = configuration.join("platen.xcu");
    write_readable(&layer, LAYER)?;
    let mut environment: Vec<(&str, OsString)> = vec![
        // LibreOffice's main loop asks us instead of running its own threads.
        ("SAL_LOK_OPTIONS", "unipoll".into()),
        // Renders in memory, needs no display.
        ("SAL_USE_VCLPLUGIN", "svp".into()),
        ("LC_ALL", settings.locale.clone().into()),
        // Each child changes its directory, and so its temporary folder.
        ("TMPDIR", "/proc/self/cwd/tmp".into()),
        ("HOME", home.into()),
        (
            "CONFIGURATION_LAYERS",
            format!(
                "xcsxcu:${{BRAND_BASE_DIR}}/share/registry res:${{BRAND_BASE_DIR}}/share/registry user:*{}",
                file_url(&layer)
            )
            .into(),
        ),
    ];
    if let Some(fonts) = &settings.fonts {
        let fonts_configuration = configuration.join("fonts.conf");
        write_readable(&fonts_configuration, &fonts_configuration_of(&fonts.path(), home))?;
        environment.push(("FONTCONFIG_FILE", fonts_configuration.into()));
    }
    // 10 to 30 % faster than the C library's allocator; works without.
    let jemalloc = format!("/usr/lib/{}-linux-gnu/libjemalloc.so.2", std::env::consts::ARCH);
    if Path::new(&jemalloc).exists() {
        environment.push(("LD_PRELOAD", jemalloc.into()));
    }
    Ok(environment
        .into_iter()
        .map(|(name, value)| (name.into(), value))
        .collect())
}

fn write_readable(path: &Path, text: &str) -> io::Result<()> {
    fs::write(path, text)?;
    fs::set_permissions(path, Permissions::from_mode(0o644))
}

/// The system's fonts and one directory more. The cache is written to the first place named, a directory of the zygote's
/// own: a worker that runs as root leaves nothing in the system's, and children find it finished.
fn fonts_configuration_of(fonts: &Path, home: &Path) -> String {
    let escaped = |path: &Path| path.to_string_lossy().replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<?xml version=\"1.0\"?>\n<!DOCTYPE fontconfig SYSTEM \"urn:fontconfig:fonts.dtd\">\n<fontconfig>\n\
         <cachedir>{}</cachedir>\n<include ignore_missing=\"yes\">/etc/fonts/fonts.conf</include>\n<dir>{}</dir>\n\
         </fontconfig>\n",
        escaped(&home.join("profile")),
        escaped(fonts),
    )
}
