//! Which characters of an output no font has: LibreOffice draws an empty box for each, and stores all the same.
//!
//! Which characters were drawn, the PDF's own fonts tell; which fonts there are and what they have, fontconfig does, which
//! LibreOffice has started and asks for every character that a font lacks. So both see the same fonts, those that are embedded in
//! the document among them. Called in a child, behind everything that its outputs need.
#![expect(
    unsafe_code,
    reason = "fontconfig is the process's own, which LibreOffice has loaded"
)]

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;

use unicode_normalization::char::decompose_canonical;
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// `FcResultMatch` of fontconfig.h.
const MATCH: c_int = 0;
/// `FcSetSystem` and `FcSetApplication`: what is installed, and what LibreOffice has added.
const SETS: [c_int; 2] = [0, 1];
/// `FC_CHARSET` and `FC_SCALABLE`.
const CHARSET: &CStr = c"charset";
const SCALABLE: &CStr = c"scalable";

/// `FcFontSet` of fontconfig.h.
#[repr(C)]
struct FontSet {
    used: c_int,
    allocated: c_int,
    fonts: *mut *mut c_void,
}

type GetFonts = unsafe extern "C" fn(*mut c_void, c_int) -> *mut FontSet;
type GetBoolean = unsafe extern "C" fn(*mut c_void, *const c_char, c_int, *mut c_int) -> c_int;
type GetCharacters = unsafe extern "C" fn(*mut c_void, *const c_char, c_int, *mut *mut c_void) -> c_int;
type HasCharacter = unsafe extern "C" fn(*const c_void, u32) -> c_int;

/// What the fonts of this process have.
struct Coverage {
    has_character: HasCharacter,
    /// `FcCharSet`s that fontconfig owns, of fonts that it never frees while the process lives.
    fonts: Vec<*const c_void>,
}

impl Coverage {
    /// Nothing where LibreOffice has not started fontconfig.
    fn read() -> Option<Self> {
        // SAFETY: the name is a C string; nothing is loaded that is not there already, so no initialiser runs.
        let library = unsafe { libc::dlopen(c"libfontconfig.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
        if library.is_null() {
            return None;
        }
        let symbol = |name: &CStr| {
            // SAFETY: `library` is a handle of dlopen that is never closed.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            (!found.is_null()).then_some(found)
        };
        let (get_fonts, get_boolean, get_characters, has_character) = (
            symbol(c"FcConfigGetFonts")?,
            symbol(c"FcPatternGetBool")?,
            symbol(c"FcPatternGetCharSet")?,
            symbol(c"FcCharSetHasChar")?,
        );
        // SAFETY: the functions of these names have these types in every fontconfig 2.x: FcBool, FcResult and FcSetName are
        // ints, FcChar32 an unsigned one of 32 bits, and all else are pointers.
        let (get_fonts, get_boolean, get_characters, has_character) = unsafe {
            (
                std::mem::transmute::<*mut c_void, GetFonts>(get_fonts),
                std::mem::transmute::<*mut c_void, GetBoolean>(get_boolean),
                std::mem::transmute::<*mut c_void, GetCharacters>(get_characters),
                std::mem::transmute::<*mut c_void, HasCharacter>(has_character),
            )
        };
        let mut fonts = Vec::new();
        for set in SETS {
            // SAFETY: no configuration means the current one, which this one thread of LibreOffice uses; a set is null or lives
            // as long as that does.
            let Some(set) = (unsafe { get_fonts(ptr::null_mut(), set).as_ref() }) else {
                continue;
            };
            for index in 0..usize::try_from(set.used).unwrap_or(0) {
                let (mut scalable, mut characters) = (0, ptr::null_mut());
                // SAFETY: the set has `used` patterns; what is asked of one is written to two locals; the character set that is
                // got belongs to the pattern, which belongs to the set.
                let found = unsafe {
                    let font = *set.fonts.add(index);
                    // LibreOffice draws with outlines alone.
                    get_boolean(font, SCALABLE.as_ptr(), 0, &raw mut scalable) == MATCH
                        && scalable != 0
                        && get_characters(font, CHARSET.as_ptr(), 0, &raw mut characters) == MATCH
                };
                if found && !characters.is_null() {
                    fonts.push(characters.cast_const());
                }
            }
        }
        Some(Self { has_character, fonts })
    }

    fn has(&self, character: char) -> bool {
        // SAFETY: each is a character set of fontconfig's, which is only read.
        let has = |font: &*const c_void| unsafe { (self.has_character)(*font, u32::from(character)) != 0 };
        self.fonts.iter().any(has)
    }

    /// Whether it can be drawn: by itself or in canonical parts, which is how LibreOffice tries too.
    fn draws(&self, character: char) -> bool {
        if self.has(character) {
            return true;
        }
        let (mut parts, mut all) = (0, true);
        decompose_canonical(character, |part| {
            parts += 1;
            all = all && part != character && self.has(part);
        });
        parts > 0 && all
    }
}

/// Those of the characters for which an empty box was drawn.
pub(super) fn missing(characters: &BTreeSet<char>) -> Vec<char> {
    let mut shown = characters
        .iter()
        .copied()
        .filter(|character| has_a_shape(*character))
        .peekable();
    if shown.peek().is_none() {
        return Vec::new();
    }
    match Coverage::read() {
        // Without any font it is not that a character is missing.
        Some(coverage) if !coverage.fonts.is_empty() => shown.filter(|character| !coverage.draws(*character)).collect(),
        _ => Vec::new(),
    }
}

/// Whether a font must have it: not what is space, invisible or no character, nor what has a meaning in one font alone (symbols of
/// Wingdings, say, which LibreOffice draws from OpenSymbol).
fn has_a_shape(character: char) -> bool {
    use GeneralCategory as Is;
    let invisible = matches!(
        character,
        // Default_Ignorable_Code_Point of Unicode, as far as it is not a format character: variation selectors and fillers.
        '\u{034f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}'
    );
    !invisible
        && !matches!(
            character.general_category(),
            Is::Control
                | Is::Format
                | Is::PrivateUse
                | Is::Surrogate
                | Is::Unassigned
                | Is::SpaceSeparator
                | Is::LineSeparator
                | Is::ParagraphSeparator
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_shape_needs_no_font() {
        for character in [
            '\u{7}',
            '\u{a0}',
            '\u{ad}',
            '\u{200d}',
            '\u{2028}',
            '\u{fe0f}',
            '\u{f0b7}',
            '\u{fdd0}',
            '\u{e0101}',
        ] {
            assert!(!has_a_shape(character), "{character:?}");
        }
        for character in ['a', '\u{301}', '\u{6f22}', '\u{1f600}', '\u{2610}', '\u{d55c}'] {
            assert!(has_a_shape(character), "{character:?}");
        }
    }
}
