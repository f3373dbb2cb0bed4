//! Which page an image is of, and how many pixels it has.

use super::conversion::{Image, ImageSize};
use super::format::Kind;
use super::office::{Argument, Complaint, Document, Object, Value};
use super::protocol::Report;
use super::setup::Failed;

/// The most pixels of an image: LibreOffice takes up to twelve bytes of memory for each.
pub const MOST_PIXELS: u64 = 64_000_000;

/// A hundredth of a millimetre is this part of an inch.
const PER_INCH: f64 = 2540.0;

/// Turns to the image's page, which is the one that LibreOffice draws, and gives what its export filter must be told.
///
/// # Errors
/// There is no such page, the image would be too large, or LibreOffice threw an exception.
pub(super) fn prepare(
    document: &Document<'_>,
    kind: Kind,
    image: Image,
    export: usize,
) -> Result<Vec<(&'static str, Value)>, Failed> {
    if image == Image::default() {
        return Ok(Vec::new());
    }
    let number = image.page.unwrap_or(1);
    let no_such_page = || Failed::Asked(Report::NoSuchPage { export });
    let number = i32::try_from(number).map_err(|_| no_such_page())?;
    let object = document.object();
    let page = match kind {
        Kind::Text => text_page(object, number)?,
        Kind::Presentation | Kind::Drawing => drawn_page(object, number)?,
        _ => first_page_of_sheets(object)?,
    };
    let page = page.ok_or_else(no_such_page)?;
    let Some(size) = image.size else {
        return Ok(Vec::new());
    };
    let side = |name| {
        let length = page.get(name)?.into_number()?;
        i32::try_from(length).map(f64::from).map_err(|_| Complaint::default())
    };
    let (width, height) =
        pixels(size, side(c"Width")?, side(c"Height")?).ok_or(Failed::Asked(Report::ImageTooLarge))?;
    // The filter that texts and sheets share draws one pixel more each way than it is told.
    let more = i32::from(matches!(kind, Kind::Text | Kind::Spreadsheet));
    Ok(vec![
        ("PixelWidth", Value::Number(width - more)),
        ("PixelHeight", Value::Number(height - more)),
    ])
}

/// The pixels of a page whose sides are given in hundredths of a millimetre, or `None` when they are too many.
fn pixels(size: ImageSize, width: f64, height: f64) -> Option<(i32, i32)> {
    let (across, down) = match size {
        ImageSize::Width(pixels) => (f64::from(pixels), f64::from(pixels) * height / width),
        ImageSize::Dpi(dots) => (f64::from(dots) * width / PER_INCH, f64::from(dots) * height / PER_INCH),
    };
    // A page that is a thousand times as long as it is wide still has some pixels across.
    let whole = |length: f64| length.round().max(2.0);
    let (across, down) = (whole(across), whole(down));
    #[expect(
        clippy::cast_possible_truncation,
        reason = "whole, positive, and at most MOST_PIXELS, which an i32 holds"
    )]
    #[expect(
        clippy::cast_precision_loss,
        reason = "MOST_PIXELS has eight digits, and a double fifteen"
    )]
    (across * down <= MOST_PIXELS as f64).then_some((across as i32, down as i32))
}

/// Moves the view of a text to a page; the style of that page has its size.
fn text_page<'a>(document: &Object<'a>, number: i32) -> Result<Option<Object<'a>>, Complaint> {
    let controller = document.call(c"getCurrentController", &[])?.into_object()?;
    let cursor = controller.call(c"getViewCursor", &[])?.into_object()?;
    // Layout goes on in the background; the last page is only known when all of it is done.
    cursor.call(c"jumpToLastPage", &[])?;
    let last = cursor.call(c"getPage", &[])?.into_number()?;
    if i64::from(number) > last {
        return Ok(None);
    }
    cursor.call(
        c"jumpToPage",
        &[Argument::Short(i16::try_from(number).unwrap_or(i16::MAX))],
    )?;
    if cursor.call(c"getPage", &[])?.into_number()? != i64::from(number) {
        return Ok(None);
    }
    let style = cursor.get(c"PageStyleName")?.into_text()?;
    let families = document.get(c"StyleFamilies")?.into_object()?;
    families.by_name("PageStyles")?.by_name(&style).map(Some)
}

/// Shows a slide, which has its size itself.
fn drawn_page<'a>(document: &Object<'a>, number: i32) -> Result<Option<Object<'a>>, Complaint> {
    let pages = document.call(c"getDrawPages", &[])?.into_object()?;
    if number > pages.count()? {
        return Ok(None);
    }
    let page = pages.by_index(number - 1)?;
    let controller = document.call(c"getCurrentController", &[])?.into_object()?;
    controller.call(c"setCurrentPage", &[Argument::Object(&page)])?;
    Ok(Some(page))
}

/// LibreOffice draws the first page of the first sheet, whatever is shown.
fn first_page_of_sheets<'a>(document: &Object<'a>) -> Result<Option<Object<'a>>, Complaint> {
    let sheets = document.call(c"getSheets", &[])?.into_object()?;
    let style = sheets.by_index(0)?.get(c"PageStyle")?.into_text()?;
    let families = document.get(c"StyleFamilies")?.into_object()?;
    families.by_name("PageStyles")?.by_name(&style).map(Some)
}
