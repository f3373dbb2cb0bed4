//! From an event to a job, or to the reason why there is none.

use globset::GlobSet;

use super::decode::Event;
use crate::error::{Failure, FailureCode};
use crate::job::{Job, NameTemplate};

/// What the configuration says about events.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `INPUT_BUCKETS`: what jobs may read.
    pub input_buckets: Vec<String>,
    /// `OUTPUT_NAME`.
    pub output_name: NameTemplate,
    /// `INPUT_INCLUDE`; none: what the engine reads, by extension.
    pub include: Option<GlobSet>,
    /// `INPUT_EXCLUDE`.
    pub exclude: GlobSet,
    /// Whether the engine reads files of this extension (lower case, without the dot).
    pub readable: fn(&str) -> bool,
}

/// What is done with an event.
#[derive(Debug, Clone)]
pub enum Plan {
    /// Convert.
    Convert(Box<Job>),
    /// Acknowledge and forget.
    Ignore(Ignored),
}

/// Why an event is acknowledged without a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ignored {
    /// It is not about a new object.
    OtherEvent,
    /// Platen wrote the object itself.
    OwnOutput,
    /// A folder's placeholder: a name that ends in a slash.
    FolderPlaceholder,
    /// `INPUT_INCLUDE` or `INPUT_EXCLUDE` leave it out.
    LeftOut,
}

impl Ignored {
    /// The reason as programs read it: in logs' labels and metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::OtherEvent => "other_event",
            Self::OwnOutput => "own_output",
            Self::FolderPlaceholder => "folder_placeholder",
            Self::LeftOut => "left_out",
        }
    }

    /// The reason in words, for logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OtherEvent => "not about a new object",
            Self::OwnOutput => "written by Platen",
            Self::FolderPlaceholder => "a folder placeholder",
            Self::LeftOut => "left out by INPUT_INCLUDE or INPUT_EXCLUDE",
        }
    }
}

/// Decides.
///
/// # Errors
/// `message.invalid` or `option.invalid` for a job that is not one, `source.forbidden` for a bucket that is not ours to
/// read.
pub fn plan(rules: &Rules, event: Event) -> Result<Plan, Failure> {
    let plan = decide(rules, event)?;
    if let Plan::Convert(job) = &plan {
        rules.check_bucket(&job.source.bucket)?;
    }
    Ok(plan)
}

fn decide(rules: &Rules, event: Event) -> Result<Plan, Failure> {
    match event {
        Event::OtherEvent(_) => Ok(Plan::Ignore(Ignored::OtherEvent)),
        Event::Finalized { ours: true, .. } => Ok(Plan::Ignore(Ignored::OwnOutput)),
        Event::Finalized { source, .. } if source.name.ends_with('/') => Ok(Plan::Ignore(Ignored::FolderPlaceholder)),
        Event::Finalized { source, .. } if rules.leave_out(&source.name) => Ok(Plan::Ignore(Ignored::LeftOut)),
        Event::Finalized { source, .. } => Ok(Plan::Convert(Box::new(Job::of_event(source, &rules.output_name)))),
        Event::Job(request) => {
            let job = request.into_job(&rules.output_name)?;
            if job.source.name.ends_with('/') {
                return Ok(Plan::Ignore(Ignored::FolderPlaceholder));
            }
            Ok(Plan::Convert(Box::new(job)))
        }
    }
}

impl Rules {
    fn check_bucket(&self, bucket: &str) -> Result<(), Failure> {
        if self.input_buckets.iter().any(|allowed| allowed == bucket) {
            return Ok(());
        }
        Err(Failure::new(
            FailureCode::SourceForbidden,
            format!("The bucket {bucket:?} is not one that jobs may read: add it to INPUT_BUCKETS."),
        )
        .with("bucket", bucket))
    }

    fn leave_out(&self, name: &str) -> bool {
        let included = match &self.include {
            Some(globs) => globs.is_match(name),
            None => extension(name).is_some_and(|extension| (self.readable)(&extension)),
        };
        !included || self.exclude.is_match(name)
    }
}

fn extension(name: &str) -> Option<String> {
    let last = name.rsplit('/').next()?;
    last.rsplit_once('.').map(|(_, extension)| extension.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::Source;
    use globset::{Glob, GlobSetBuilder};

    fn rules(include: Option<&str>, exclude: &str) -> Rules {
        let set = |pattern: &str| GlobSetBuilder::new().add(Glob::new(pattern).unwrap()).build().unwrap();
        Rules {
            input_buckets: vec!["in".to_owned()],
            output_name: NameTemplate::default(),
            include: include.map(set),
            exclude: set(exclude),
            readable: |extension| ["docx", "odt"].contains(&extension),
        }
    }

    fn finalized(name: &str) -> Event {
        Event::Finalized {
            source: Source {
                bucket: "in".to_owned(),
                name: name.to_owned(),
                generation: Some(1),
            },
            ours: false,
        }
    }

    fn ignored(rules: &Rules, event: Event) -> Option<Ignored> {
        match plan(rules, event).unwrap() {
            Plan::Ignore(reason) => Some(reason),
            Plan::Convert(_) => None,
        }
    }

    #[test]
    fn without_globs_the_extension_decides() {
        let rules = rules(None, "drafts/*");
        assert_eq!(ignored(&rules, finalized("a/Q3.DOCX")), None);
        assert_eq!(ignored(&rules, finalized("a/q3.exe")), Some(Ignored::LeftOut));
        assert_eq!(ignored(&rules, finalized("no.docx/extension")), Some(Ignored::LeftOut));
        assert_eq!(ignored(&rules, finalized("drafts/q3.docx")), Some(Ignored::LeftOut));
        assert_eq!(ignored(&rules, finalized("a/")), Some(Ignored::FolderPlaceholder));
    }

    #[test]
    fn other_buckets_are_forbidden_in_jobs_and_in_notifications() {
        let rules = rules(None, "x*");
        let request = crate::job::Request::from_json(br#"{"source":"gs://other/a.docx"}"#).unwrap();
        let mut event = finalized("a.docx");
        if let Event::Finalized { source, .. } = &mut event {
            source.bucket = "other".to_owned();
        }
        for event in [Event::Job(request), event] {
            assert_eq!(plan(&rules, event).unwrap_err().code, FailureCode::SourceForbidden);
        }
    }

    #[test]
    fn globs_replace_the_extensions_and_do_not_bind_jobs() {
        let rules = rules(Some("*.weird"), "x*");
        assert_eq!(ignored(&rules, finalized("a.weird")), None);
        assert_eq!(ignored(&rules, finalized("a.docx")), Some(Ignored::LeftOut));
        let request = crate::job::Request::from_json(br#"{"source":"gs://in/a.docx"}"#).unwrap();
        assert_eq!(ignored(&rules, Event::Job(request)), None);
    }
}
