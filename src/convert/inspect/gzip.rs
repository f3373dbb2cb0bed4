//! Compressed single files: svgz, zabw and compressed metafiles. What is inside decides.

use std::fs::File;
use std::io::BufReader;

use flate2::bufread::MultiGzDecoder;

use super::magic::Magic;
use super::text::{Markup, MarkupScan};
use super::{Budget, DocumentKind, Format, Subject, fill};
use crate::error::Step;

/// Inflates all of it: whole, within the limits, and the same format from its beginning to its end.
pub(super) fn inspect(subject: &Subject<'_>, file: File, size: u64) -> Step<DocumentKind> {
    let mut reader = MultiGzDecoder::new(BufReader::new(file));
    let mut budget = Budget::new(subject.limits, size);
    let mut buffer = vec![0; 32 << 10];
    let mut content: Option<Content> = None;
    loop {
        let count = fill(&mut reader, &mut buffer)
            .map_err(|error| subject.broken(&error, "is damaged: its gzip data does not unpack"))?;
        if count == 0 {
            break;
        }
        budget.take(subject, count as u64)?;
        let chunk = &buffer[..count];
        let content = match &mut content {
            Some(content) => content,
            None => content.insert(
                Content::of(subject, chunk)
                    .ok_or_else(|| subject.unsupported("is gzip data of a kind that no import filter reads here"))?,
            ),
        };
        if let Content::Markup(_, scan) = content {
            scan.take(subject, chunk, &mut |_| {})?;
        }
    }
    match content {
        Some(Content::Markup(format, scan)) => scan.end(subject).map(|()| DocumentKind::new(format)),
        Some(Content::Picture(format)) => Ok(DocumentKind::new(format)),
        None => Err(subject.corrupt("is gzip data with nothing in it")),
    }
}

enum Content {
    Markup(Format, MarkupScan),
    Picture(Format),
}

impl Content {
    fn of(subject: &Subject<'_>, head: &[u8]) -> Option<Self> {
        let markup = |format| Some(Self::Markup(format, MarkupScan::new(subject, format)));
        match (Magic::of(head), Markup::of(head)) {
            (Some(Magic::Certain(Format::Emf)), _) => Some(Self::Picture(Format::Emz)),
            (Some(Magic::Certain(Format::Wmf)), _) => Some(Self::Picture(Format::Wmz)),
            // Markup has reach: a name that promises something else is no slip.
            (None, Some(Markup::Document(Format::Svg))) if named(subject, Format::Svgz) => markup(Format::Svgz),
            (None, Some(Markup::Document(Format::Abw))) if named(subject, Format::Zabw) => markup(Format::Zabw),
            _ => None,
        }
    }
}

fn named(subject: &Subject<'_>, format: Format) -> bool {
    let extension = subject.extension();
    format.has_extension(&extension) || Format::of_extension(&extension).is_none()
}
