//! Documents that have in them what the options are about, written here so that a test can be read with its document.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const NAMESPACES: &str = r#"xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0" xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0" xmlns:style="urn:oasis:names:tc:opendocument:xmlns:style:1.0" xmlns:fo="urn:oasis:names:tc:opendocument:xmlns:xsl-fo-compatible:1.0" xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0" xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0" xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0" xmlns:ooo="http://openoffice.org/2004/office" xmlns:form="urn:oasis:names:tc:opendocument:xmlns:form:1.0" xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0" xmlns:smil="urn:oasis:names:tc:opendocument:xmlns:smil-compatible:1.0" xmlns:anim="urn:oasis:names:tc:opendocument:xmlns:animation:1.0" office:version="1.3""#;

/// Pixels a side of the picture in [`report`]; it is four centimetres wide, so it has 381 dots an inch.
pub(crate) const PICTURE: u32 = 600;

fn document(kind: &str, rest: &str) -> Vec<u8> {
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<office:document {NAMESPACES} office:mimetype="application/vnd.oasis.opendocument.{kind}">{rest}</office:document>"#
    )
    .into_bytes()
}

/// A text of four pages: headings of three levels, a comment, a placeholder, a bookmark, links to a file and to a
/// document, two form fields of one name, a photograph, and an empty page that is inserted because the last page must
/// be a right one.
pub(crate) fn report() -> Vec<u8> {
    let field = |id: u8| {
        format!(
            r#"<form:text form:name="field" xml:id="control{id}" form:id="control{id}" form:control-implementation="ooo:com.sun.star.form.component.TextField" form:current-value="typed"/>"#
        )
    };
    let control = |id: u8| {
        format!(
            r#"<text:p><draw:control text:anchor-type="as-char" svg:width="4cm" svg:height="0.8cm" draw:control="control{id}"/></text:p>"#
        )
    };
    document(
        "text",
        &format!(
            r##"
<office:meta><dc:title>The title of it</dc:title></office:meta>
<office:automatic-styles>
  <style:style style:name="next" style:family="paragraph" style:parent-style-name="Standard"><style:paragraph-properties fo:break-before="page"/></style:style>
  <style:style style:name="right" style:family="paragraph" style:master-page-name="Right"/>
  <style:page-layout style:name="plain"><style:page-layout-properties fo:page-width="21cm" fo:page-height="29.7cm"/></style:page-layout>
  <style:page-layout style:name="righthand" style:page-usage="right"><style:page-layout-properties fo:page-width="21cm" fo:page-height="29.7cm"/></style:page-layout>
</office:automatic-styles>
<office:master-styles>
  <style:master-page style:name="Standard" style:page-layout-name="plain"/>
  <style:master-page style:name="Right" style:page-layout-name="righthand"/>
</office:master-styles>
<office:body><office:text>
<office:forms><form:form form:name="form" form:control-implementation="ooo:com.sun.star.form.component.Form">{}{}</form:form></office:forms>
<text:h text:outline-level="1">Alpha heading</text:h>
<text:p>First page<office:annotation><dc:creator>Reviewer</dc:creator><text:p>A remark in the margin</text:p></office:annotation></text:p>
<text:p><text:bookmark text:name="the_target"/>Here. <text:placeholder text:placeholder-type="text">&lt;Fill me in&gt;</text:placeholder></text:p>
<text:p><text:a xlink:href="../other/minutes.odt">minutes</text:a> <text:a xlink:href="file:///srv/archive/notes.txt">notes</text:a></text:p>
{}{}
<text:h text:outline-level="2">Beta heading</text:h>
<text:h text:outline-level="3">Gamma heading</text:h>
<text:p><draw:frame text:anchor-type="as-char" svg:width="4cm" svg:height="4cm"><draw:image draw:mime-type="image/bmp"><office:binary-data>{}</office:binary-data></draw:image></draw:frame></text:p>
<text:p text:style-name="next">Second page</text:p>
<text:p text:style-name="next">Third page</text:p>
<text:p text:style-name="right">Last page</text:p>
<text:p text:style-name="right">Very last page</text:p>
</office:text></office:body>"##,
            field(1),
            field(2),
            control(1),
            control(2),
            STANDARD.encode(photograph())
        ),
    )
}

/// Three slides, with notes, a transition, and the second hidden.
pub(crate) fn deck() -> Vec<u8> {
    let slide = |number: u8, style: &str| {
        format!(
            r#"<draw:page draw:name="page{number}" draw:style-name="{style}" draw:master-page-name="Default"><draw:frame svg:x="2cm" svg:y="2cm" svg:width="20cm" svg:height="3cm"><draw:text-box><text:p>Slide number {number}</text:p></draw:text-box></draw:frame><presentation:notes><draw:page-thumbnail svg:x="2cm" svg:y="2cm" svg:width="15cm" svg:height="10cm" draw:page-number="{number}" presentation:class="page"/><draw:frame presentation:class="notes" svg:x="2cm" svg:y="14cm" svg:width="17cm" svg:height="10cm"><draw:text-box><text:p>Notes of {number}</text:p></draw:text-box></draw:frame></presentation:notes></draw:page>"#
        )
    };
    document(
        "presentation",
        &format!(
            r#"
<office:automatic-styles>
  <style:page-layout style:name="wide"><style:page-layout-properties fo:page-width="28cm" fo:page-height="15.75cm"/></style:page-layout>
  <style:style style:name="shown" style:family="drawing-page"><style:drawing-page-properties presentation:transition-type="manual" presentation:transition-style="vertical-stripes" presentation:transition-speed="slow" smil:type="blindsWipe" smil:subtype="vertical"/></style:style>
  <style:style style:name="hidden" style:family="drawing-page"><style:drawing-page-properties presentation:visibility="hidden"/></style:style>
</office:automatic-styles>
<office:master-styles><style:master-page style:name="Default" style:page-layout-name="wide"/></office:master-styles>
<office:body><office:presentation>{}{}{}</office:presentation></office:body>"#,
            slide(1, "shown"),
            slide(2, "hidden"),
            slide(3, "shown")
        ),
    )
}

/// Two sheets; the first one is several pages long.
pub(crate) fn sheets() -> Vec<u8> {
    let rows: String = (0..150)
        .map(|row| {
            format!(
                r#"<table:table-row><table:table-cell office:value-type="float" office:value="{row}"><text:p>{row}</text:p></table:table-cell></table:table-row>"#
            )
        })
        .collect();
    document(
        "spreadsheet",
        &format!(
            r#"<office:body><office:spreadsheet><table:table table:name="Long">{rows}</table:table><table:table table:name="Short"><table:table-row><table:table-cell office:value-type="string"><text:p>short</text:p></table:table-cell></table:table-row></table:table></office:spreadsheet></office:body>"#
        ),
    )
}

/// A text with a table of contents that knows nothing of the text's heading.
pub(crate) fn stale_index() -> Vec<u8> {
    document(
        "text",
        r#"<office:body><office:text>
<text:table-of-content text:name="Contents"><text:table-of-content-source text:outline-level="3"/><text:index-body><text:p>Stale entry</text:p></text:index-body></text:table-of-content>
<text:h text:outline-level="1">Fresh heading</text:h><text:p>Words.</text:p>
</office:text></office:body>"#,
    )
}

/// A bitmap that looks like a photograph to a compressor: slopes of colour with a little noise.
fn photograph() -> Vec<u8> {
    let pixels = PICTURE * PICTURE * 3;
    let mut bytes = Vec::new();
    bytes.extend_from_slice(b"BM");
    bytes.extend_from_slice(&(54 + pixels).to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&54_u32.to_le_bytes());
    bytes.extend_from_slice(&40_u32.to_le_bytes());
    bytes.extend_from_slice(&PICTURE.to_le_bytes());
    bytes.extend_from_slice(&PICTURE.to_le_bytes());
    bytes.extend_from_slice(&[1, 0, 24, 0]);
    bytes.extend_from_slice(&[0; 24]);
    let mut noise = 1_u32;
    for y in 0..PICTURE {
        for x in 0..PICTURE {
            for slope in [x, y, x + y] {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                bytes.push(u8::try_from((slope / 5 + (noise >> 28)) % 256).unwrap());
            }
        }
    }
    bytes
}
