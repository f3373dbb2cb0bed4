//! How a document is encrypted, and whether LibreOffice can open it that way when it is given the password.
//!
//! Told apart before anything is loaded: LibreOffice says no more than "it does not load" of a wrong password and of an
//! algorithm that it does not know. What it knows was read in LibreOffice 25.2 (`AgileEngine.cxx`,
//! `Standard2007Engine.cxx`, `ww8par.cxx`, `xicontent.cxx`, `ManifestImport.cxx`) and each way is a fixture.

use std::io::Read;

use super::Subject;
use super::xml::Scanner;
use crate::error::{Step, Stop};

/// The longest description that is looked at: an agile one takes about 1,100 bytes, and 4,000 with a certificate.
const LONGEST: u64 = 64 << 10;

/// `AlgID` and `AlgIDHash` of [MS-OFFCRYPTO] 2.3.2.
const RC4: u32 = 0x6801;
const AES_128: u32 = 0x660e;
const SHA_1: u32 = 0x8004;
/// `EncryptionHeaderFlags` of [MS-OFFCRYPTO] 2.3.1.
const CRYPTO_API: u32 = 0x04;
const EXTERNAL: u32 = 0x10;
const AES: u32 = 0x20;

/// The description of an encrypted Office Open XML package ([MS-OFFCRYPTO] 2.3.4): the stream `EncryptionInfo`.
///
/// # Errors
/// `source.unsupported` for what LibreOffice does not open.
pub(super) fn office_open_xml(subject: &Subject<'_>, mut info: impl Read) -> Step<()> {
    let unsupported = |what: &str| Err(unsupported(subject, what));
    let bytes = read(subject, &mut info)?;
    match versions(&bytes) {
        Some((4, 4)) => agile(subject, &bytes[8.min(bytes.len())..]),
        // Of the versions that the format allows LibreOffice knows two.
        Some((3 | 4, 2)) => match Header::of(&bytes) {
            Some(header) if header.is_standard() => Ok(()),
            Some(_) => unsupported("an algorithm other than AES-128 with SHA-1"),
            None => Err(subject.corrupt("is damaged: the description of its encryption is cut short")),
        },
        Some((3 | 4, 3)) => unsupported("extensible encryption"),
        _ => unsupported("a version of encryption that is not known"),
    }
}

/// The agile description is XML; LibreOffice takes four combinations.
fn agile(subject: &Subject<'_>, xml: &[u8]) -> Step<()> {
    const KNOWN: [(&str, &str); 4] = [("128", "SHA1"), ("128", "SHA384"), ("192", "SHA384"), ("256", "SHA512")];
    let mut key = None;
    let mut scanner = Scanner::new(subject.limits.nesting);
    let read = scanner.feed(xml, &mut |tag| {
        // One of several may be a certificate's, and that has no iterations.
        if tag.name() == b"encryptedKey" && tag.attribute("spinCount").is_some() {
            let of = |name| tag.attribute(name).unwrap_or_default();
            key = Some([
                of("cipherAlgorithm"),
                of("cipherChaining"),
                of("keyBits"),
                of("hashAlgorithm"),
            ]);
        }
    });
    if read.is_err() || !scanner.complete() {
        return Err(subject.corrupt("is damaged: the description of its encryption is no whole XML"));
    }
    let Some([cipher, chaining, bits, hash]) = key else {
        return Err(unsupported(subject, "a certificate instead of a password"));
    };
    let known = cipher == "AES" && chaining == "ChainingModeCBC" && KNOWN.contains(&(&bits, &hash));
    if known {
        Ok(())
    } else {
        Err(unsupported(
            subject,
            "an algorithm other than AES in CBC mode with SHA-1, SHA-384 or SHA-512",
        ))
    }
}

/// The description at the beginning of a Word document's table stream ([MS-DOC] 2.2.6), or in a workbook's FILEPASS
/// record from its third byte on ([MS-XLS] 2.4.117): RC4, alone or through CryptoAPI.
///
/// # Errors
/// `source.unsupported` for what LibreOffice does not open.
pub(super) fn binary(subject: &Subject<'_>, mut info: impl Read) -> Step<()> {
    let bytes = read(subject, &mut info)?;
    match versions(&bytes) {
        Some((1, 1)) => Ok(()),
        Some((3 | 4, 2)) if Header::of(&bytes).is_some_and(|header| header.is_rc4()) => Ok(()),
        _ => Err(unsupported(subject, "an algorithm other than XOR or RC4")),
    }
}

/// `source.unsupported`: no password opens it here.
pub(super) fn unsupported(subject: &Subject<'_>, what: &str) -> Stop {
    subject.unsupported(&format!(
        "is encrypted with {what}, which LibreOffice does not open: upload it without a password, or saved anew by a current program"
    ))
}

fn read(subject: &Subject<'_>, info: &mut impl Read) -> Step<Vec<u8>> {
    let mut bytes = Vec::new();
    info.take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| subject.broken(&error, "is damaged: the description of its encryption cannot be read"))?;
    Ok(bytes)
}

/// The major and minor version that every description of [MS-OFFCRYPTO] begins with.
fn versions(bytes: &[u8]) -> Option<(u16, u16)> {
    match bytes {
        [a, b, c, d, ..] => Some((u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]))),
        _ => None,
    }
}

/// An `EncryptionHeader` ([MS-OFFCRYPTO] 2.3.2), after the versions, the flags and its own size.
struct Header {
    flags: u32,
    algorithm: u32,
    hash: u32,
}

impl Header {
    fn of(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            let word = bytes.get(at..)?.first_chunk::<4>()?;
            Some(u32::from_le_bytes(*word))
        };
        Some(Self {
            flags: word(12)?,
            algorithm: word(20)?,
            hash: word(24)?,
        })
    }

    /// No algorithm means the one that the flags imply.
    fn is_standard(&self) -> bool {
        self.flags & (CRYPTO_API | AES | EXTERNAL) == CRYPTO_API | AES
            && matches!(self.algorithm, 0 | AES_128)
            && matches!(self.hash, 0 | SHA_1)
    }

    fn is_rc4(&self) -> bool {
        self.flags & (CRYPTO_API | AES | EXTERNAL) == CRYPTO_API
            && self.algorithm == RC4
            && matches!(self.hash, 0 | SHA_1)
    }
}

/// Whether LibreOffice knows an algorithm that an OpenDocument manifest names.
/// Source: OpenDocument 1.4 part 2, 4.8.1; LibreOffice's own extension for AES in GCM mode.
pub(super) fn is_known_algorithm(name: &str) -> bool {
    const KNOWN: [&str; 6] = [
        "Blowfish CFB",
        "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0#blowfish",
        "http://www.w3.org/2001/04/xmlenc#aes128-cbc",
        "http://www.w3.org/2001/04/xmlenc#aes192-cbc",
        "http://www.w3.org/2001/04/xmlenc#aes256-cbc",
        "http://www.w3.org/2009/xmlenc11#aes256-gcm",
    ];
    KNOWN.contains(&name)
}
