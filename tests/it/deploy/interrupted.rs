//! Scripts that are ended from outside leave nothing behind. A shell that dies of a signal runs no trap on EXIT, and what
//! `prove-image.sh` keeps meanwhile are whole Debian roots.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Stands for the first program that the script starts after it has made its directory.
const SIGNALS: &str = "#!/bin/sh
[ -n \"$(ls \"$TMPDIR\")\" ] && touch \"$SEEN\"
kill -s \"$SIGNAL\" \"$MAIN\"
";

fn executable(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_script_that_is_ended_takes_its_directory_with_it() {
    for script in ["test.sh", "prove-image.sh"] {
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path();
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(script);
            executable(
                &place.join("deploy").join(script),
                &std::fs::read_to_string(source).unwrap(),
            );
            executable(&place.join("deploy/as-root.sh"), "");
            executable(&place.join("bin/id"), "#!/bin/sh\necho 0\n");
            executable(&place.join("bin/debootstrap"), "");
            for first in ["cargo", "apt-get"] {
                executable(&place.join("bin").join(first), SIGNALS);
            }
            std::fs::create_dir(place.join("tmp")).unwrap();
            // What was started in the background of a script ignores SIGINT, and so does all that it starts.
            let output = Command::new("env")
                .args(["--default-signal=INT,TERM", "sh", "-c", "MAIN=$$ exec sh \"$0\""])
                .arg(place.join("deploy").join(script))
                .env_clear()
                .env("PATH", format!("{}:/usr/bin:/bin", place.join("bin").display()))
                .env("TMPDIR", place.join("tmp"))
                .env("SIGNAL", signal)
                .env("SEEN", place.join("seen"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(place.join("seen").exists(), "{script}: {said}");
            assert_eq!(output.status.code(), Some(code), "{script}: {said}");
            let left: Vec<_> = std::fs::read_dir(place.join("tmp")).unwrap().collect();
            assert!(left.is_empty(), "{script}: {left:?}");
        }
    }
}
