//! Looks at a loaded document for what the reader of its output should know.
//!
//! Everything here comes after the outputs are written, so that looking changes none of them; and what cannot be looked
//! at is left out: a document that stored well does not fail for it.

use std::ffi::CStr;

use super::finding::Finding;
use super::format::Kind;
use super::office::{Answer, Argument, Complaint, Document, Object, Office, Value};

/// Sheets, slides or fields of one document that are looked at: each takes some microseconds.
const MOST_ELEMENTS: i32 = 2_000;
/// Cells with the name of a function in them that are looked at, of one sheet.
const MOST_CELLS: usize = 100;

/// `com.sun.star.table.CellContentType.FORMULA`.
const FORMULA: i64 = 3;

/// Follows which fonts text is set in, from its making on. Kept while outputs are written.
pub(super) struct FontsInUse<'a> {
    toolkit: Option<Object<'a>>,
}

impl<'a> FontsInUse<'a> {
    /// Starts to follow.
    pub(super) fn follow(office: &'a Office) -> Self {
        let toolkit = office.service(c"com.sun.star.awt.Toolkit").ok();
        if let Some(toolkit) = &toolkit {
            // Without it there is nothing to read at the end.
            drop(toolkit.call(c"startTrackingFontMappingUse", &[]));
        }
        Self { toolkit }
    }

    /// The fonts that text was asked for in and not set in.
    pub(super) fn substituted(self) -> Vec<Finding> {
        let mut found = Vec::new();
        let Some(toolkit) = self.toolkit else {
            return found;
        };
        let used = toolkit
            .call(c"finishTrackingFontMappingUse", &[])
            .and_then(Answer::into_list);
        for item in used.unwrap_or_default() {
            let Ok((asked, used)) = item.into_object().and_then(|item| mapping(&item)) else {
                continue;
            };
            let Some(used) = used.first() else {
                continue;
            };
            if !is_same(&asked, used) && !asked.is_empty() {
                let finding = Finding::FontSubstituted {
                    asked: asked.split(';').next().unwrap_or_default().trim().to_owned(),
                    used: family(used).to_owned(),
                };
                if !found.contains(&finding) {
                    found.push(finding);
                }
            }
        }
        found
    }
}

/// An `XFontMappingUseItem`: the family asked for, and the fonts used: first the one of the text, then those that lent
/// it characters.
fn mapping(item: &Object<'_>) -> Result<(String, Vec<String>), Complaint> {
    let asked = item.get(c"originalFont")?.into_text()?;
    let used = item.get(c"usedFonts")?.into_list()?;
    let used = used.into_iter().filter_map(|name| name.into_text().ok()).collect();
    Ok((family(&asked).to_owned(), used))
}

/// Without the style, which LibreOffice puts behind a slash.
fn family(font: &str) -> &str {
    font.split_once('/').map_or(font, |(family, _)| family)
}

/// Whether the font used is one of those asked for: a web page and some formats name several, and a family's style may be
/// named as a family of its own (`Montserrat SemiBold`).
fn is_same(asked: &str, used: &str) -> bool {
    let with_style = used.replacen('/', " ", 1);
    asked.split(';').map(str::trim).any(|name| {
        name.eq_ignore_ascii_case(family(used))
            || name.eq_ignore_ascii_case(&with_style)
            // The same symbols under LibreOffice's older name for them.
            || (name, family(used)) == ("StarSymbol", "OpenSymbol")
    })
}

/// What the document itself tells.
pub(super) fn look(document: &Document<'_>) -> Vec<Finding> {
    let kind = Kind::of(document);
    let document = document.object();
    let found = match kind {
        Some(Kind::Spreadsheet) => sheets(document),
        Some(Kind::Presentation) => slides(document),
        Some(Kind::Text | Kind::WebPage) => text(document),
        Some(Kind::Drawing | Kind::Formula) | None => Ok(Vec::new()),
    };
    found.unwrap_or_default()
}

fn sheets(document: &Object<'_>) -> Result<Vec<Finding>, Complaint> {
    let sheets = document.get(c"Sheets")?.into_object()?;
    let (mut hidden, mut current) = (0, false);
    for index in 0..sheets.count()?.min(MOST_ELEMENTS) {
        let sheet = sheets.by_index(index)?;
        if is(&sheet, c"IsVisible")? {
            current = current || has_current_date(&sheet)? || header_has_current_date(document, &sheet)?;
        } else {
            hidden += 1;
        }
    }
    Ok(findings([
        (hidden > 0).then_some(Finding::HiddenSheets(hidden)),
        current.then_some(Finding::CurrentDate),
    ]))
}

/// Whether a formula of the sheet asks for the date or the time.
fn has_current_date(sheet: &Object<'_>) -> Result<bool, Complaint> {
    for function in ["TODAY(", "NOW("] {
        let search = sheet.call(c"createSearchDescriptor", &[])?.into_object()?;
        search.call(c"setSearchString", &[Argument::Text(function)])?;
        // In what a cell holds, not in what it shows: com.sun.star.sheet's SvxSearchCellType.
        search.set("SearchType", Value::Short(0))?;
        let mut found = sheet.call(c"findFirst", &[Argument::Object(&search)])?;
        for _ in 0..MOST_CELLS {
            let Answer::Object(cell) = found else {
                break;
            };
            // A text may hold the same letters.
            if cell.call(c"getType", &[])?.into_number()? == FORMULA {
                return Ok(true);
            }
            found = sheet.call(c"findNext", &[Argument::Object(&cell), Argument::Object(&search)])?;
        }
    }
    Ok(false)
}

/// Whether the header or footer of the sheet's pages has the date or the time.
fn header_has_current_date(document: &Object<'_>, sheet: &Object<'_>) -> Result<bool, Complaint> {
    let style = sheet.get(c"PageStyle")?.into_text()?;
    let families = document.get(c"StyleFamilies")?.into_object()?;
    let style = families.by_name("PageStyles")?.by_name(&style)?;
    for (on, content) in [
        (c"HeaderIsOn", c"RightPageHeaderContent"),
        (c"FooterIsOn", c"RightPageFooterContent"),
    ] {
        if !is(&style, on)? {
            continue;
        }
        let content = style.get(content)?.into_object()?;
        for part in [c"LeftText", c"CenterText", c"RightText"] {
            if fields_have_current_date(&content.get(part)?.into_object()?)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn slides(document: &Object<'_>) -> Result<Vec<Finding>, Complaint> {
    let slides = document.get(c"DrawPages")?.into_object()?;
    let (mut hidden, mut current) = (0, false);
    for index in 0..slides.count()?.min(MOST_ELEMENTS) {
        let slide = slides.by_index(index)?;
        if !is(&slide, c"Visible")? {
            hidden += 1;
        } else if is(&slide, c"IsDateTimeVisible")? && !is(&slide, c"IsDateTimeFixed")? {
            current = true;
        }
    }
    Ok(findings([
        (hidden > 0).then_some(Finding::HiddenSlides(hidden)),
        current.then_some(Finding::CurrentDate),
    ]))
}

fn text(document: &Object<'_>) -> Result<Vec<Finding>, Complaint> {
    let current = fields_have_current_date(document)?;
    let redlines = document.call(c"getRedlines", &[]).and_then(Answer::into_object);
    let changed = match redlines {
        Ok(redlines) => redlines.call(c"hasElements", &[])?.into_boolean()? && is(document, c"ShowChanges")?,
        // A web page has none.
        Err(_) => false,
    };
    Ok(findings([
        current.then_some(Finding::CurrentDate),
        changed.then_some(Finding::ChangesShown),
    ]))
}

/// Whether one of the text fields of a document, or of a header, has the date or the time and is not fixed.
fn fields_have_current_date(owner: &Object<'_>) -> Result<bool, Complaint> {
    let fields = owner.call(c"getTextFields", &[])?.into_object()?;
    for field in fields.elements()?.take(usize::try_from(MOST_ELEMENTS).unwrap_or(0)) {
        let field = field?.into_object()?;
        let dated = [
            c"com.sun.star.text.textfield.DateTime",
            c"com.sun.star.text.TextField.DateTime",
            c"com.sun.star.text.textfield.Date",
            c"com.sun.star.text.textfield.Time",
        ];
        // Those of headers of sheets are never fixed, and have no such property.
        if dated.iter().any(|service| field.supports(service)) && !is(&field, c"IsFixed").unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn is(object: &Object<'_>, property: &CStr) -> Result<bool, Complaint> {
    object.get(property)?.into_boolean()
}

fn findings<const COUNT: usize>(found: [Option<Finding>; COUNT]) -> Vec<Finding> {
    found.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_font_under_another_of_its_names_is_no_other_font() {
        for (asked, used) in [
            ("Carlito", "Carlito/Bold"),
            ("carlito", "Carlito"),
            ("Helvetica Neue; Arial;Carlito", "Carlito/Regular"),
            ("Montserrat SemiBold", "Montserrat/SemiBold"),
            ("StarSymbol", "OpenSymbol/Regular"),
        ] {
            assert!(is_same(asked, used), "{asked} {used}");
        }
        for (asked, used) in [
            ("Calibri", "Carlito/Regular"),
            ("Arial Narrow", "Arial/Regular"),
            ("Symbol", "OpenSymbol/Regular"),
            ("Montserrat SemiBold", "Montserrat/Regular"),
        ] {
            assert!(!is_same(asked, used), "{asked} {used}");
        }
    }
}
