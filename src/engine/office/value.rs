//! Typed values in the shim's layout, on their way to LibreOffice.

use std::ffi::{CString, c_char, c_void};
use std::ptr;

use serde::{Deserialize, Serialize};

use super::{Argument, Complaint};

/// The value of one typed property. A property of the wrong type is ignored by LibreOffice in silence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// `boolean`
    Boolean(bool),
    /// `short`; what arrives as JSON is never one.
    #[serde(skip)]
    Short(i16),
    /// `long`
    Number(i32),
    /// `string`
    Text(String),
    /// `sequence<string>`, where a property is set; elsewhere LibreOffice does not convert it.
    Texts(Vec<String>),
}

/// `platen_kind`.
pub(super) mod kind {
    pub(in super::super) const BOOLEAN: i32 = 1;
    pub(in super::super) const SHORT: i32 = 2;
    pub(in super::super) const LONG: i32 = 3;
    pub(in super::super) const HYPER: i32 = 4;
    pub(in super::super) const TEXT: i32 = 5;
    pub(in super::super) const OBJECT: i32 = 6;
    pub(in super::super) const LIST: i32 = 7;
}

/// `platen_object`, which is the shim's.
#[repr(C)]
pub(super) struct RawObject {
    _private: [u8; 0],
}

/// `platen_value`.
#[repr(C)]
pub(super) struct RawValue {
    pub(super) name: *const c_char,
    pub(super) text: *const c_char,
    pub(super) length: usize,
    pub(super) object: *mut RawObject,
    pub(super) number: i64,
    pub(super) kind: i32,
}

/// `platen_answer`.
#[repr(C)]
pub(super) struct RawAnswer {
    pub(super) take: extern "C" fn(*mut c_void, *const RawValue),
    pub(super) data: *mut c_void,
}

/// Values as the shim reads them, with the strings they point at.
pub(super) struct RawValues<'a> {
    raw: Vec<RawValue>,
    _names: Vec<CString>,
    _texts: std::marker::PhantomData<&'a str>,
}

impl<'a> RawValues<'a> {
    /// Properties with their names.
    pub(super) fn of_properties(properties: &'a [(&str, Value)]) -> Result<Self, Complaint> {
        let mut built = Self {
            raw: Vec::with_capacity(properties.len()),
            _names: Vec::with_capacity(properties.len()),
            _texts: std::marker::PhantomData,
        };
        for (name, value) in properties {
            let name = CString::new(*name).map_err(|_| Complaint::of_ours("property name"))?;
            let number = |kind, number| RawValue::of_number(kind, number);
            let mut raw = match value {
                Value::Boolean(value) => number(kind::BOOLEAN, i64::from(*value)),
                Value::Short(value) => number(kind::SHORT, i64::from(*value)),
                Value::Number(value) => number(kind::LONG, i64::from(*value)),
                Value::Text(text) => RawValue::of_text(text),
                Value::Texts(texts) => RawValue {
                    length: texts.len(),
                    ..number(kind::LIST, 0)
                },
            };
            // A C string's bytes stay where they are when their owner moves into the vector.
            raw.name = name.as_ptr();
            built.raw.push(raw);
            built._names.push(name);
            if let Value::Texts(texts) = value {
                built.raw.extend(texts.iter().map(|text| RawValue::of_text(text)));
            }
        }
        Ok(built)
    }

    /// A method's arguments.
    pub(super) fn of_arguments(arguments: &'a [Argument<'a>]) -> Self {
        Self {
            raw: arguments.iter().map(RawValue::of).collect(),
            _names: Vec::new(),
            _texts: std::marker::PhantomData,
        }
    }

    pub(super) fn as_ptr(&self) -> *const RawValue {
        self.raw.as_ptr()
    }

    pub(super) fn len(&self) -> usize {
        self.raw.len()
    }
}

impl RawValue {
    fn of(argument: &Argument<'_>) -> Self {
        match *argument {
            Argument::Short(value) => Self::of_number(kind::SHORT, i64::from(value)),
            Argument::Number(value) => Self::of_number(kind::LONG, i64::from(value)),
            Argument::Text(text) => Self::of_text(text),
            Argument::Object(object) => Self {
                object: object.handle(),
                ..Self::of_number(kind::OBJECT, 0)
            },
        }
    }

    fn of_text(text: &str) -> Self {
        Self {
            text: text.as_ptr().cast(),
            length: text.len(),
            ..Self::of_number(kind::TEXT, 0)
        }
    }

    fn of_number(kind: i32, number: i64) -> Self {
        Self {
            name: ptr::null(),
            text: ptr::null(),
            length: 0,
            object: ptr::null_mut(),
            number,
            kind,
        }
    }
}
