//! The test's end of `src/failpoint.rs`: it hears of every point that a worker passes, and answers when it likes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio::task::{JoinHandle, JoinSet};

/// What a worker does at a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// On as if nothing were there.
    Go,
    /// It ends by SIGKILL.
    Kill,
    /// The step ends as if Google were not available.
    Refuse,
    /// The step panics.
    Panic,
}

impl Word {
    fn as_str(self) -> &'static str {
        match self {
            Self::Go => "go",
            Self::Kill => "kill",
            Self::Refuse => "refuse",
            Self::Panic => "panic",
        }
    }
}

/// Who listens for one worker. The worker goes on without it once it is dropped.
pub(crate) struct Points {
    task: JoinHandle<()>,
    path: PathBuf,
}

impl Points {
    /// Listens at `path` (`PLATEN_FAILPOINTS`); `decide` is asked with each name, and may take its time.
    pub(crate) fn listen<F>(path: &Path, decide: impl Fn(String) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Word> + Send,
    {
        let listener = UnixListener::bind(path).unwrap();
        let decide = Arc::new(decide);
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let decide = Arc::clone(&decide);
                passing.spawn(async move {
                    let mut stream = BufReader::new(stream);
                    let mut name = String::new();
                    if matches!(stream.read_line(&mut name).await, Ok(1..)) {
                        let word = decide(name.trim_end().to_owned()).await;
                        // A worker that was killed meanwhile does not hear it.
                        let _gone = stream.write_all(word.as_str().as_bytes()).await;
                    }
                });
                while passing.try_join_next().is_some() {}
            }
        });
        Self {
            task,
            path: path.to_owned(),
        }
    }
}

impl Drop for Points {
    fn drop(&mut self) {
        self.task.abort();
        let _never_bound = std::fs::remove_file(&self.path);
    }
}
