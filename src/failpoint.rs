//! Failpoints: named places in a job's flow where a test decides what becomes of the worker.
//!
//! Only a build with the feature `failpoints` has them; elsewhere the macro expands to nothing, names included
//! (`deploy/test.sh` looks for them in the binary). In such a build `PLATEN_FAILPOINTS` names a Unix socket. At each point
//! the worker connects to it, says the point's name and waits for one word: what the test has not answered yet is a
//! pause, and a barrier without a clock. So there is no state here: which pass of which point is hit, by what seed, and
//! what the other workers did before is all the test's. Without the variable, points do nothing.
//!
//! | word | then |
//! |---|---|
//! | `go` | on as if nothing were here |
//! | `kill` | the worker ends by SIGKILL, with nothing written, closed or removed |
//! | `refuse` | the step ends as if Google were not available |
//! | `panic` | the step panics |

/// A point of the flow, by name. It returns from the function around it when the test refuses: as an error made from
/// [`Injected`], or as what the second argument makes of that.
macro_rules! failpoint {
    ($name:literal) => {
        #[cfg(feature = "failpoints")]
        $crate::failpoint::pass($name).await?;
    };
    ($name:literal, $refused:expr) => {
        #[cfg(feature = "failpoints")]
        if let Err(injected) = $crate::failpoint::pass($name).await {
            return $refused(injected.into());
        }
    };
}
pub(crate) use failpoint;

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` lets a test kill the worker: it is for builds with debug assertions alone");

#[cfg(feature = "failpoints")]
pub(crate) use active::{Injected, pass};

#[cfg(feature = "failpoints")]
mod active {
    use std::path::Path;
    use std::sync::LazyLock;

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;

    /// Where the test listens.
    const SOCKET: &str = "PLATEN_FAILPOINTS";

    /// What a point that refuses gives: by its name.
    #[derive(Debug)]
    pub(crate) struct Injected(pub(crate) &'static str);

    /// Passes a point.
    pub(crate) async fn pass(name: &'static str) -> Result<(), Injected> {
        static WHERE: LazyLock<Option<std::ffi::OsString>> = LazyLock::new(|| std::env::var_os(SOCKET));
        let Some(socket) = &*WHERE else {
            return Ok(());
        };
        match ask(Path::new(socket), name).await {
            Ok(word) if word == "go" => Ok(()),
            Ok(word) if word == "refuse" => Err(Injected(name)),
            Ok(word) if word == "kill" => die().await,
            #[allow(clippy::panic, reason = "that is what the test asked for")]
            Ok(word) if word == "panic" => panic!("failpoint {name}"),
            Ok(word) => {
                tracing::error!(failpoint = name, word, "no such word");
                Ok(())
            }
            // The test is over, or has let go of this worker.
            Err(error) => {
                tracing::debug!(failpoint = name, %error, "nobody answers");
                Ok(())
            }
        }
    }

    async fn ask(socket: &Path, name: &str) -> std::io::Result<String> {
        let mut stream = UnixStream::connect(socket).await?;
        stream.write_all(format!("{name}\n").as_bytes()).await?;
        let mut word = String::new();
        stream.read_to_string(&mut word).await?;
        Ok(word)
    }

    /// Ends this process at once: a signal to oneself is there before the call returns.
    async fn die() -> ! {
        if let Err(error) = kill(Pid::this(), Signal::SIGKILL) {
            tracing::error!(%error, "cannot kill myself");
        }
        std::future::pending().await
    }
}
