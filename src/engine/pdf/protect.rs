//! Encrypts what is in a PDF with AES-256: the standard security handler of ISO 32000-2, 7.6.4, revision 6.
//!
//! The file's key is random; each of the two passwords wraps it. Numbers in comments are sections of ISO 32000-2:2020.

use std::io::{self, Read, Write};

use aws_lc_rs::cipher::{
    AES_128, AES_256, EncryptionContext, PaddedBlockEncryptingKey, StreamingEncryptingKey, UnboundCipherKey,
};
use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::super::Password;

/// Bytes of a block of AES.
const BLOCK: usize = 16;
/// The most of a password that counts, in bytes of UTF-8 (7.6.4.3.3).
pub(in crate::engine) const LONGEST_PASSWORD: usize = 127;

/// How a PDF is protected: with at least one password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// What opens it. Without one anybody does, within the permissions.
    pub user: Option<Password>,
    /// What opens it and lifts the permissions. Without one nobody can.
    pub owner: Option<Password>,
    /// What may be done by who opens it with the user's password, as far as the viewer obeys.
    pub permissions: Permissions,
}

/// What a protected PDF allows. Reading it aloud is always allowed (7.6.4.2: readers ignore that bit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// Printing it.
    pub printing: Printing,
    /// Changing it.
    pub changes: Changes,
    /// Copying text and images out of it.
    pub copying: bool,
}

/// How a PDF may be printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printing {
    /// Not at all.
    None,
    /// At low resolution.
    Low,
    /// As it is.
    High,
}

/// How a PDF may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// Not at all.
    None,
    /// Pages may be inserted, deleted and turned.
    Pages,
    /// Form fields may be filled in.
    Forms,
    /// The same, and comments.
    Comments,
    /// Anything.
    All,
}

impl Permissions {
    /// The bits of table 22, counted from 1; those without a meaning are 1, but the lowest two.
    fn bits(self) -> u32 {
        let bit = |position: u32, allowed: bool| u32::from(!allowed) << (position - 1);
        let Self {
            printing,
            changes,
            copying,
        } = self;
        let denied = 0b11
            | bit(3, printing != Printing::None)
            | bit(12, printing == Printing::High)
            | bit(4, changes == Changes::All)
            | bit(6, matches!(changes, Changes::Comments | Changes::All))
            | bit(9, matches!(changes, Changes::Forms | Changes::Comments | Changes::All))
            | bit(11, matches!(changes, Changes::Pages | Changes::All))
            | bit(5, copying);
        !denied
    }
}

/// A file's key, and the dictionary from which a reader gets it back with a password.
pub(super) struct Cipher {
    key: Zeroizing<[u8; 32]>,
    strings: PaddedBlockEncryptingKey,
    /// The encryption dictionary.
    pub(super) dictionary: Vec<u8>,
}

impl Cipher {
    /// Chooses a key and wraps it.
    ///
    /// # Errors
    /// A password that is not allowed, or no random bytes.
    pub(super) fn new(protection: &Protection) -> io::Result<Self> {
        let key = Zeroizing::new(random::<32>()?);
        let user = prepared(protection.user.as_ref())?;
        // A file must have an owner's password: where nobody is to know one, it is random.
        let owner = match &protection.owner {
            Some(owner) => prepared(Some(owner))?,
            None => Zeroizing::new(random::<32>()?.to_vec()),
        };
        let user = Wrapped::new(&user, &[], &key)?;
        let owner = Wrapped::new(&owner, &user.check, &key)?;
        let permissions = protection.permissions.bits();
        // 7.6.4.4.9: with bytes that tell whether they were decrypted rightly; "T": metadata is encrypted, too.
        let mut check = [0; BLOCK];
        check[..4].copy_from_slice(&permissions.to_le_bytes());
        check[4..8].fill(0xff);
        check[8..12].copy_from_slice(b"Tadb");
        check[12..].copy_from_slice(&random::<4>()?);
        // One block without a vector before it is what ECB does with it.
        let check = unpadded(&AES_256, &*key, [0; BLOCK], &check)?;
        let dictionary = format!(
            "<</Filter/Standard/V 5/R 6/Length 256/P {}/CF<</StdCF<</Type/CryptFilter/CFM/AESV3/AuthEvent/DocOpen/Length 32>>>>\
             /StmF/StdCF/StrF/StdCF/EncryptMetadata true/U<{}>/UE<{}>/O<{}>/OE<{}>/Perms<{}>>>",
            permissions.cast_signed(),
            hex(&user.check),
            hex(&user.key),
            hex(&owner.check),
            hex(&owner.key),
            hex(&check),
        );
        let strings = UnboundCipherKey::new(&AES_256, &*key).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
        Ok(Self {
            strings: strings.map_err(unspecified)?,
            key,
            dictionary: dictionary.into_bytes(),
        })
    }

    /// A string, encrypted, with its own vector before it (7.6.3.1).
    pub(super) fn string(&self, plain: &[u8]) -> io::Result<Vec<u8>> {
        let mut bytes = plain.to_vec();
        let vector = random::<BLOCK>()?;
        self.strings
            .less_safe_encrypt(&mut bytes, EncryptionContext::Iv128(FixedLength::from(vector)))
            .map_err(unspecified)?;
        Ok([&vector, bytes.as_slice()].concat())
    }

    /// How long a stream of so many bytes is when it is encrypted: with its vector, and padded to full blocks by at
    /// least a byte.
    pub(super) fn length(plain: u64) -> u64 {
        let block = BLOCK as u64;
        (plain / block + 1) * block + block
    }

    /// Copies a stream's bytes, encrypted.
    pub(super) fn stream(&self, mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
        let vector = random::<BLOCK>()?;
        to.write_all(&vector)?;
        let key = UnboundCipherKey::new(&AES_256, &*self.key).map_err(unspecified)?;
        let context = EncryptionContext::Iv128(FixedLength::from(vector));
        let mut key = StreamingEncryptingKey::less_safe_cbc_pkcs7(key, context).map_err(unspecified)?;
        let mut plain = vec![0; 64 << 10];
        let mut encrypted = vec![0; plain.len() + BLOCK];
        loop {
            match from.read(&mut plain) {
                Ok(0) => break,
                Ok(read) => {
                    let update = key.update(&plain[..read], &mut encrypted).map_err(unspecified)?;
                    to.write_all(update.written())?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let (_, last) = key.finish(&mut encrypted).map_err(unspecified)?;
        to.write_all(last.written())
    }
}

/// What a password is in the dictionary: a check value with two salts, and the file's key under it (7.6.4.4.7, .8).
struct Wrapped {
    check: Vec<u8>,
    key: Vec<u8>,
}

impl Wrapped {
    /// `other` is the user's check value for the owner's password, and empty for the user's.
    fn new(password: &[u8], other: &[u8], key: &[u8; 32]) -> io::Result<Self> {
        let (validation, wrapping) = (random::<8>()?, random::<8>()?);
        let mut check = hash(password, &validation, other)?.to_vec();
        check.extend(validation);
        check.extend(wrapping);
        let under = hash(password, &wrapping, other)?;
        Ok(Self {
            check,
            key: unpadded(&AES_256, &*under, [0; BLOCK], key)?,
        })
    }
}

/// Algorithm 2.B (7.6.4.3.4): at least 64 rounds, and as many more as the last byte says.
fn hash(password: &[u8], salt: &[u8], other: &[u8]) -> io::Result<Zeroizing<[u8; 32]>> {
    let mut input = Zeroizing::new([password, salt, other].concat());
    let mut key = Zeroizing::new(digest(&SHA256, &input).as_ref().to_vec());
    let mut round = 0_u32;
    loop {
        input.clear();
        input.extend_from_slice(password);
        input.extend_from_slice(&key);
        input.extend_from_slice(other);
        let repeated = Zeroizing::new(input.repeat(64));
        let vector = key[BLOCK..].first_chunk::<BLOCK>().copied().unwrap_or_default();
        let encrypted = unpadded(&AES_128, &key[..BLOCK], vector, &repeated)?;
        // The first 16 bytes as a number, modulo 3: 256 is 1 modulo 3.
        let algorithm = match encrypted[..BLOCK].iter().map(|&byte| u32::from(byte)).sum::<u32>() % 3 {
            0 => &SHA256,
            1 => &SHA384,
            _ => &SHA512,
        };
        *key = digest(algorithm, &encrypted).as_ref().to_vec();
        round += 1;
        let last = encrypted.last().copied().unwrap_or_default();
        if round >= 64 && u32::from(last) <= round - 32 {
            break;
        }
    }
    let mut first = Zeroizing::new([0; 32]);
    first.copy_from_slice(&key[..32]);
    Ok(first)
}

/// CBC over full blocks, without padding: what padding adds comes last, and is cut.
fn unpadded(
    algorithm: &'static aws_lc_rs::cipher::Algorithm,
    key: &[u8],
    vector: [u8; BLOCK],
    plain: &[u8],
) -> io::Result<Vec<u8>> {
    let mut bytes = plain.to_vec();
    let key = UnboundCipherKey::new(algorithm, key).and_then(PaddedBlockEncryptingKey::cbc_pkcs7);
    key.and_then(|key| key.less_safe_encrypt(&mut bytes, EncryptionContext::Iv128(FixedLength::from(vector))))
        .map_err(unspecified)?;
    bytes.truncate(plain.len());
    Ok(bytes)
}

/// A password as both sides hash it (7.6.4.3.3): in the profile of RFC 4013, so that one typed on another keyboard is
/// the same.
fn prepared(password: Option<&Password>) -> io::Result<Zeroizing<Vec<u8>>> {
    let Some(password) = password else {
        return Ok(Zeroizing::default());
    };
    let text = stringprep::saslprep(password.expose()).map_err(|_| {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "a password has characters that none may have",
        )
    })?;
    let text = Zeroizing::new(text.into_owned());
    if text.is_empty() || text.len() > LONGEST_PASSWORD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a password is empty or over 127 bytes",
        ));
    }
    Ok(Zeroizing::new(text.as_bytes().to_vec()))
}

impl Password {
    /// Whether a PDF can be protected with it: readers take up to 127 bytes of UTF-8, prepared as RFC 4013 has it.
    pub fn protects_pdfs(&self) -> bool {
        prepared(Some(self)).is_ok()
    }

    /// Whether a PDF's reader takes the one for the other.
    pub fn protects_as(&self, other: &Self) -> bool {
        matches!((prepared(Some(self)), prepared(Some(other))), (Ok(one), Ok(other)) if one == other)
    }
}

fn random<const LENGTH: usize>() -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    rand::fill(&mut bytes).map_err(unspecified)?;
    Ok(bytes)
}

fn unspecified(_: aws_lc_rs::error::Unspecified) -> io::Error {
    io::Error::other("the cryptographic library failed")
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example that two other implementations agree on: what qpdf and poppler take is tested on whole files.
    #[test]
    fn permissions_are_the_bits_of_the_standard() {
        let all = Permissions {
            printing: Printing::High,
            changes: Changes::All,
            copying: true,
        };
        assert_eq!(all.bits().cast_signed(), -4);
        let none = Permissions {
            printing: Printing::None,
            changes: Changes::None,
            copying: false,
        };
        // Of bits 3, 4, 5, 6, 9, 11 and 12 none, and bit 10, which is always set.
        assert_eq!(!none.bits(), 0b1101_0011_1111);
        assert_eq!(Permissions { copying: false, ..all }.bits(), all.bits() & !(1 << 4),);
    }

    #[test]
    fn a_stream_has_the_length_that_is_written_before_it() {
        let cipher = Cipher::new(&Protection {
            user: Some(Password::new("x")),
            owner: None,
            permissions: Permissions {
                printing: Printing::High,
                changes: Changes::All,
                copying: true,
            },
        })
        .unwrap();
        for length in [0, 1, 15, 16, 17, 65_535, 65_536, 70_001] {
            let mut to = Vec::new();
            cipher.stream(vec![7; length].as_slice(), &mut to).unwrap();
            assert_eq!(to.len() as u64, Cipher::length(length as u64), "{length}");
        }
        assert_eq!(cipher.string(b"").unwrap().len(), 32);
    }

    #[test]
    fn passwords_that_no_reader_takes_are_refused() {
        assert!(Password::new("pässwörd").protects_pdfs());
        assert!(Password::new("x".repeat(127)).protects_pdfs());
        for wrong in [String::new(), "x".repeat(128), "a\u{7}b".to_owned()] {
            assert!(!Password::new(wrong).protects_pdfs());
        }
    }
}
