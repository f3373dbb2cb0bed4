//! What a document's parts tell, beside what it is: macros that will not run, links that will not be followed.

use std::collections::BTreeMap;
use std::fmt;

use super::xml::Tag;

/// Different links that are kept; the rest are counted under one name.
const MOST_LINKS: usize = 64;
/// Bytes of a host's name that are shown (DNS allows 253).
const LONGEST_HOST: usize = 80;

/// What the reader of an output should know, seen in the document before it is loaded.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Remarks {
    /// It has macros.
    pub macros: bool,
    /// A field prints the date or time.
    pub current_date: bool,
    /// What it links to, and how often.
    pub links: BTreeMap<Link, u32>,
}

/// Something outside of the document that belongs into it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Link {
    what: &'static str,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Scheme and host: the rest of an address may hold secrets.
    Host(String),
    /// A file, wherever it is.
    File,
    Other,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Host(host) => write!(f, "{} at {host}", self.what),
            Place::File => write!(f, "{} in a file", self.what),
            Place::Other => write!(f, "{} elsewhere", self.what),
        }
    }
}

impl Remarks {
    /// Of a relationship of a part of Office Open XML (ECMA-376 part 2, 6.5): the types that LibreOffice would load.
    pub(super) fn relationship(&mut self, tag: &Tag<'_>) {
        if tag.attribute("TargetMode").as_deref() != Some("External") {
            return;
        }
        let kind = tag.attribute("Type").unwrap_or_default().to_ascii_lowercase();
        let what = match kind.rsplit('/').next().unwrap_or_default() {
            "image" => "image",
            "oleobject" | "package" => "embedded object",
            "externallinkpath" | "externallink" => "workbook",
            "attachedtemplate" => "template",
            "frame" => "frame",
            "subdocument" => "document",
            "audio" | "video" | "media" => "media",
            _ => return,
        };
        let target = tag.attribute("Target").unwrap_or_default();
        // A template was applied when the document was written; one on the writer's own disk says nothing to a reader.
        if what == "template" && !matches!(place(&target), Some(Place::Host(_))) {
            return;
        }
        self.link(what, &target);
    }

    /// Of an element of OpenDocument's content. `packaged`: relative addresses stay in the package.
    pub(super) fn open_document(&mut self, tag: &Tag<'_>, packaged: bool) {
        self.linked_by_open_document(tag, packaged);
        // The styles of every spreadsheet have a date, of which only LibreOffice knows whether it is printed; in a flat file
        // the styles stand beside the content.
        let dated = packaged && matches!(tag.prefixed_name(), b"text:date" | b"text:time");
        self.current_date |= dated && tag.attribute("fixed").as_deref() != Some("true");
    }

    /// Of an element of OpenDocument's content or styles.
    pub(super) fn linked_by_open_document(&mut self, tag: &Tag<'_>, packaged: bool) {
        let what = match tag.name() {
            b"image" | b"fill-image" | b"background-image" => "image",
            b"object" | b"object-ole" => "embedded object",
            b"section-source" => "section",
            b"table-source" | b"cell-range-source" => "sheet",
            b"dde-source" | b"dde-connection-decl" => return self.link("DDE link", "dde:"),
            b"floating-frame" => "frame",
            b"plugin" => "media",
            b"font-face-uri" => "font",
            _ => return,
        };
        let Some(address) = tag.attribute("href") else {
            return;
        };
        let inside = packaged && !address.contains(':') && !address.starts_with("../") && !address.starts_with('/');
        if !inside {
            self.link(what, &address);
        }
    }

    /// Of an element of a slide of Office Open XML.
    pub(super) fn slide(&mut self, tag: &Tag<'_>) {
        self.current_date |= tag.name() == b"fld"
            && tag
                .attribute("type")
                .is_some_and(|kind| kind.to_ascii_lowercase().starts_with("datetime"));
    }

    /// Of an element of a web page.
    pub(super) fn html(&mut self, tag: &Tag<'_>) {
        let (what, attribute) = match tag.name().to_ascii_lowercase().as_slice() {
            b"img" => ("image", "src"),
            b"iframe" | b"frame" => ("frame", "src"),
            b"link"
                if tag
                    .attribute("rel")
                    .is_some_and(|rel| rel.eq_ignore_ascii_case("stylesheet")) =>
            {
                ("style sheet", "href")
            }
            _ => return,
        };
        if let Some(address) = tag.attribute(attribute) {
            self.link(what, &address);
        }
    }

    /// Notes a link, of which only scheme and host are kept.
    pub(super) fn link(&mut self, what: &'static str, address: &str) {
        let Some(place) = place(address) else {
            return;
        };
        let mut link = Link { what, place };
        if self.links.len() >= MOST_LINKS && !self.links.contains_key(&link) {
            link.place = Place::Other;
        }
        let times = self.links.entry(link).or_default();
        *times = times.saturating_add(1);
    }
}

/// Where an address leads; none for what is inside of the document.
fn place(address: &str) -> Option<Place> {
    let address = address.trim();
    let (scheme, rest) = match address.split_once(':') {
        // One letter is a drive.
        Some((scheme, rest))
            if scheme.len() > 1
                && scheme
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) =>
        {
            (scheme.to_ascii_lowercase(), rest)
        }
        _ if address.is_empty() || address.starts_with('#') => return None,
        _ => return Some(Place::File),
    };
    match scheme.as_str() {
        "data" => None,
        "file" => Some(Place::File),
        _ => {
            let authority = rest.trim_start_matches('/');
            let host = authority.split(['/', '?', '#', '\\']).next().unwrap_or_default();
            // A name and a password may stand before the host.
            let host = host.rsplit('@').next().unwrap_or_default();
            let shown = |character: &char| character.is_ascii_alphanumeric() || "-._:[]".contains(*character);
            let host: String = host.chars().filter(shown).take(LONGEST_HOST).collect();
            Some(match (rest.starts_with("//"), host.is_empty()) {
                (true, false) => Place::Host(format!("{scheme}://{host}")),
                _ => Place::Other,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(address: &str) -> Option<String> {
        let mut remarks = Remarks::default();
        remarks.link("image", address);
        remarks.links.keys().next().map(ToString::to_string)
    }

    #[test]
    fn scheme_and_host_and_no_more() {
        for (address, expected) in [
            (
                "https://cdn.example.com/a/b.png?token=secret#x",
                "image at https://cdn.example.com",
            ),
            ("HTTP://user:secret@host:8080?secret", "image at http://host:8080"),
            ("ftp://ho\u{1b}[31mst\u{202e}/x", "image at ftp://ho[31mst"),
            ("file:///C:/secret/b.png", "image in a file"),
            ("C:\\secret\\b.png", "image in a file"),
            ("\\\\server\\share\\b.png", "image in a file"),
            ("../media/b.png", "image in a file"),
            ("mailto:secret@example.com", "image elsewhere"),
            ("vnd.sun.star.webdav://h/x", "image at vnd.sun.star.webdav://h"),
        ] {
            assert_eq!(shown(address).as_deref(), Some(expected), "{address}");
        }
        for inside in ["", "#Slide 2", "data:image/png;base64,AAAA"] {
            assert_eq!(shown(inside), None, "{inside}");
        }
        assert!(shown(&format!("http://{}/", "h".repeat(9000))).unwrap().len() < 120);
    }

    #[test]
    fn many_links_are_counted() {
        let mut remarks = Remarks::default();
        for number in 0..1000 {
            remarks.link("image", &format!("http://h{number}/"));
        }
        assert_eq!(remarks.links.len(), MOST_LINKS + 1);
        assert_eq!(remarks.links.values().sum::<u32>(), 1000);
    }
}
