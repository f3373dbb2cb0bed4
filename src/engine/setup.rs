//! What is changed in a loaded document before it is written: its pages, its indexes, its properties.

use super::conversion::{Fit, Pages, Paper, Setup};
use super::format::Kind;
use super::office::{Complaint, Document, Object, Value};
use super::protocol::Report;

/// The least room between two margins, in hundredths of a millimetre: with less, LibreOffice breaks lines for ever.
const LEAST_ROOM: i64 = 1000;

/// Why a document could not be changed.
pub(super) enum Failed {
    /// LibreOffice threw an exception.
    Complaint(Complaint),
    /// What was asked for cannot be done with this document.
    Asked(Report),
}

impl From<Complaint> for Failed {
    fn from(complaint: Complaint) -> Self {
        Self::Complaint(complaint)
    }
}

/// Changes the document; with nothing to change it is not touched.
///
/// # Errors
/// The paper has no room between the margins, or LibreOffice threw an exception.
pub(super) fn apply(document: &Document<'_>, kind: Kind, setup: &Setup) -> Result<(), Failed> {
    let object = document.object();
    if setup.pages != Pages::default() {
        set_pages(object, kind, &setup.pages)?;
    }
    if setup.update_indexes {
        update_indexes(object)?;
    }
    if !setup.properties.is_empty() {
        let properties = object.get(c"DocumentProperties")?.into_object()?;
        for (name, value) in &setup.properties {
            properties.set(name, value.clone())?;
        }
    }
    Ok(())
}

/// Sets every page style, used or not: which are used, LibreOffice knows once it has broken the pages.
fn set_pages(document: &Object<'_>, kind: Kind, pages: &Pages) -> Result<(), Failed> {
    let families = document.get(c"StyleFamilies")?.into_object()?;
    let styles = families.by_name("PageStyles")?;
    for index in 0..styles.count()? {
        let style = styles.by_index(index)?;
        set_paper(&style, pages)?;
        if let (Kind::Spreadsheet, Some(fit)) = (kind, pages.fit) {
            // Each of these is a way of its own to scale, and the last two work together; 0 is off, or any number.
            style.set("PageScale", Value::Short(0))?;
            style.set("ScaleToPages", Value::Short(0))?;
            style.set("ScaleToPagesX", Value::Short(1))?;
            style.set("ScaleToPagesY", Value::Short(i16::from(fit == Fit::Page)))?;
        }
    }
    Ok(())
}

fn set_paper(style: &Object<'_>, pages: &Pages) -> Result<(), Failed> {
    let number = |name| style.get(name)?.into_number();
    let (old_width, old_height) = (number(c"Width")?, number(c"Height")?);
    let is_landscape = old_width > old_height;
    let (mut width, mut height) = match pages.paper {
        None => (old_width, old_height),
        Some(Paper { width, height, turns }) if turns && is_landscape && !pages.landscape => {
            (i64::from(height), i64::from(width))
        }
        Some(Paper { width, height, .. }) => (i64::from(width), i64::from(height)),
    };
    if pages.landscape && width < height {
        (width, height) = (height, width);
    }
    if (width, height) == (old_width, old_height) {
        return Ok(());
    }
    let margins = |one, other| Ok::<_, Complaint>(number(one)? + number(other)?);
    if width - margins(c"LeftMargin", c"RightMargin")? < LEAST_ROOM
        || height - margins(c"TopMargin", c"BottomMargin")? < LEAST_ROOM
    {
        return Err(Failed::Asked(Report::PaperTooSmall));
    }
    let length = |length| i32::try_from(length).map_err(|_| Failed::Asked(Report::PaperTooSmall));
    // Before the size: to LibreOffice, turning a page exchanges its sides.
    style.set("IsLandscape", Value::Boolean(width > height))?;
    style.set("Width", Value::Number(length(width)?))?;
    style.set("Height", Value::Number(length(height)?))?;
    Ok(())
}

/// Twice: an index that grows moves the pages that it names.
fn update_indexes(document: &Object<'_>) -> Result<(), Complaint> {
    let indexes = document.call(c"getDocumentIndexes", &[])?.into_object()?;
    for _ in 0..2 {
        document.call(c"refresh", &[])?;
        for index in 0..indexes.count()? {
            indexes.by_index(index)?.call(c"update", &[])?;
        }
    }
    Ok(())
}
