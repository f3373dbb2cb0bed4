//! Objects of LibreOffice's, by the names that its API reference gives their properties and methods: a loaded document,
//! and what is in it.
//!
//! Everything goes through LibreOffice's own service for scripts (`com.sun.star.script.Invocation`), so that no interface
//! needs code of ours. A name that an object does not have is a [`Complaint`] like any other exception.

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::ptr::NonNull;

use super::value::{RawAnswer, RawObject, RawValue, RawValues, kind};
use super::{Complaint, Office, RawReport, Value, symbol};

/// What a call was answered.
pub(in super::super) enum Answer<'a> {
    /// No object, a method without a result, or a property that is not set.
    Nothing,
    /// `boolean`
    Boolean(bool),
    /// Any whole number, or an enumeration's value.
    Number(i64),
    /// `string`, `char`, or a type's name. Text of the document: never for a log.
    Text(String),
    /// An object or a structure.
    Object(Object<'a>),
    /// A sequence.
    List(Vec<Answer<'a>>),
}

/// What a method is given; LibreOffice converts numbers to the type that it takes.
#[derive(Clone, Copy)]
pub(in super::super) enum Argument<'a> {
    /// `short`
    Short(i16),
    /// `long`
    Number(i32),
    /// `string`
    Text(&'a str),
    /// An object or a structure.
    Object(&'a Object<'a>),
}

/// An object of LibreOffice's; let go when it is dropped.
pub(in super::super) struct Object<'a> {
    office: &'a Office,
    handle: NonNull<RawObject>,
}

type Service = unsafe extern "C" fn(*const c_char, *mut RawReport) -> *mut RawObject;
type Supports = unsafe extern "C" fn(*mut RawObject, *const c_char, *mut RawReport) -> bool;
type Get = unsafe extern "C" fn(*mut RawObject, *const c_char, RawAnswer, *mut RawReport) -> bool;
type Set = unsafe extern "C" fn(*mut RawObject, *const RawValue, *mut RawReport) -> bool;
type Call =
    unsafe extern "C" fn(*mut RawObject, *const c_char, *const RawValue, usize, RawAnswer, *mut RawReport) -> bool;
type Release = unsafe extern "C" fn(*mut RawObject, *mut RawReport);

/// The shim's functions for objects.
pub(super) struct Functions {
    service: Service,
    supports: Supports,
    get: Get,
    set: Set,
    call: Call,
    release: Release,
}

impl Functions {
    pub(super) fn of(shim: *mut c_void) -> Result<Self, String> {
        // SAFETY: the names and types are those of office.cc, which build.rs compiled from the same tree.
        unsafe {
            Ok(Self {
                service: std::mem::transmute::<*mut c_void, Service>(symbol(shim, c"platen_office_service")?),
                supports: std::mem::transmute::<*mut c_void, Supports>(symbol(shim, c"platen_object_supports")?),
                get: std::mem::transmute::<*mut c_void, Get>(symbol(shim, c"platen_object_get")?),
                set: std::mem::transmute::<*mut c_void, Set>(symbol(shim, c"platen_object_set")?),
                call: std::mem::transmute::<*mut c_void, Call>(symbol(shim, c"platen_object_call")?),
                release: std::mem::transmute::<*mut c_void, Release>(symbol(shim, c"platen_object_release")?),
            })
        }
    }
}

impl Office {
    /// A new object that belongs to no document, by the name of its service.
    ///
    /// # Errors
    /// There is no such service.
    pub(in super::super) fn service(&self, name: &CStr) -> Result<Object<'_>, Complaint> {
        let mut report = RawReport::empty();
        // SAFETY: name and report outlive the call, and LibreOffice is started.
        let handle = unsafe { (self.objects.service)(name.as_ptr(), &raw mut report) };
        NonNull::new(handle)
            .map(|handle| Object::new(self, handle))
            .ok_or_else(|| report.complaint())
    }
}

impl<'a> Object<'a> {
    /// Takes a handle that the shim has given away.
    pub(super) fn new(office: &'a Office, handle: NonNull<RawObject>) -> Self {
        Self { office, handle }
    }

    pub(super) fn office(&self) -> &'a Office {
        self.office
    }

    pub(super) fn handle(&self) -> *mut RawObject {
        self.handle.as_ptr()
    }

    /// Whether the object offers a service, as `XServiceInfo` says.
    pub(in super::super) fn supports(&self, service: &CStr) -> bool {
        let mut report = RawReport::empty();
        // SAFETY: the handle is ours until we are dropped; name and report outlive the call.
        unsafe { (self.office.objects.supports)(self.handle(), service.as_ptr(), &raw mut report) }
    }

    /// Reads a property, an attribute of an interface, or a structure's member.
    ///
    /// # Errors
    /// There is none of this name, or LibreOffice threw an exception.
    pub(in super::super) fn get(&self, property: &CStr) -> Result<Answer<'a>, Complaint> {
        self.answered(|answer, report| {
            // SAFETY: the handle is ours until we are dropped; name, answer and report outlive the call.
            unsafe { (self.office.objects.get)(self.handle(), property.as_ptr(), answer, report) }
        })
    }

    /// Sets a property or an attribute.
    ///
    /// # Errors
    /// There is none of this name, it does not take the value, or LibreOffice threw an exception.
    pub(in super::super) fn set(&self, property: &str, value: Value) -> Result<(), Complaint> {
        let property = [(property, value)];
        let raw = RawValues::of_properties(&property)?;
        let mut report = RawReport::empty();
        // SAFETY: the handle is ours until we are dropped; one value and the report outlive the call.
        if unsafe { (self.office.objects.set)(self.handle(), raw.as_ptr(), &raw mut report) } {
            Ok(())
        } else {
            Err(report.complaint())
        }
    }

    /// Calls a method of one of its interfaces.
    ///
    /// # Errors
    /// There is none of this name, it does not take the arguments, or LibreOffice threw an exception.
    pub(in super::super) fn call(&self, method: &CStr, arguments: &[Argument<'_>]) -> Result<Answer<'a>, Complaint> {
        let raw = RawValues::of_arguments(arguments);
        self.answered(|answer, report| {
            // SAFETY: the handle is ours until we are dropped; all pointers outlive the call, the count is the array's.
            unsafe {
                (self.office.objects.call)(self.handle(), method.as_ptr(), raw.as_ptr(), raw.len(), answer, report)
            }
        })
    }

    /// The names in an `XNameAccess`.
    ///
    /// # Errors
    /// As [`Object::call`].
    pub(in super::super) fn names(&self) -> Result<Vec<String>, Complaint> {
        Ok(self
            .call(c"getElementNames", &[])?
            .into_list()?
            .into_iter()
            .filter_map(|name| name.into_text().ok())
            .collect())
    }

    /// The element of an `XNameAccess`.
    ///
    /// # Errors
    /// As [`Object::call`], and when it is no object.
    pub(in super::super) fn by_name(&self, name: &str) -> Result<Object<'a>, Complaint> {
        self.call(c"getByName", &[Argument::Text(name)])?.into_object()
    }

    /// How many elements an `XIndexAccess` has.
    ///
    /// # Errors
    /// As [`Object::call`].
    pub(in super::super) fn count(&self) -> Result<i32, Complaint> {
        let count = self.call(c"getCount", &[])?.into_number()?;
        i32::try_from(count).map_err(|_| Complaint::of_ours("count"))
    }

    /// The element of an `XIndexAccess`, from 0.
    ///
    /// # Errors
    /// As [`Object::by_name`].
    pub(in super::super) fn by_index(&self, index: i32) -> Result<Object<'a>, Complaint> {
        self.call(c"getByIndex", &[Argument::Number(index)])?.into_object()
    }

    /// The elements of an `XEnumerationAccess`, of which a document may have any number: take as many as you need.
    ///
    /// # Errors
    /// As [`Object::call`].
    pub(in super::super) fn elements(
        &self,
    ) -> Result<impl Iterator<Item = Result<Answer<'a>, Complaint>> + use<'a>, Complaint> {
        let enumeration = self.call(c"createEnumeration", &[])?.into_object()?;
        let mut ended = false;
        Ok(std::iter::from_fn(move || {
            if ended {
                return None;
            }
            let has_more = enumeration.call(c"hasMoreElements", &[]);
            let next = match has_more.and_then(Answer::into_boolean) {
                Ok(true) => enumeration.call(c"nextElement", &[]),
                Ok(false) => {
                    ended = true;
                    return None;
                }
                Err(complaint) => Err(complaint),
            };
            ended = next.is_err();
            Some(next)
        }))
    }

    fn answered(&self, ask: impl FnOnce(RawAnswer, *mut RawReport) -> bool) -> Result<Answer<'a>, Complaint> {
        let mut said = Said {
            office: self.office,
            values: Vec::new(),
        };
        let mut report = RawReport::empty();
        let answer = RawAnswer {
            take,
            data: (&raw mut said).cast(),
        };
        if !ask(answer, &raw mut report) {
            return Err(report.complaint());
        }
        Ok(assemble(&mut said.values.into_iter()))
    }
}

impl Drop for Object<'_> {
    fn drop(&mut self) {
        let mut report = RawReport::empty();
        // SAFETY: the handle is ours, and nobody uses it afterwards.
        unsafe { (self.office.objects.release)(self.handle(), &raw mut report) };
    }
}

impl fmt::Debug for Object<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Object")
    }
}

impl<'a> Answer<'a> {
    /// The boolean.
    ///
    /// # Errors
    /// It is something else; so for each of the following.
    pub(in super::super) fn into_boolean(self) -> Result<bool, Complaint> {
        match self {
            Self::Boolean(value) => Ok(value),
            _ => Err(Complaint::of_ours("answer: no boolean")),
        }
    }

    pub(in super::super) fn into_number(self) -> Result<i64, Complaint> {
        match self {
            Self::Number(value) => Ok(value),
            _ => Err(Complaint::of_ours("answer: no number")),
        }
    }

    pub(in super::super) fn into_text(self) -> Result<String, Complaint> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(Complaint::of_ours("answer: no text")),
        }
    }

    pub(in super::super) fn into_object(self) -> Result<Object<'a>, Complaint> {
        match self {
            Self::Object(object) => Ok(object),
            _ => Err(Complaint::of_ours("answer: no object")),
        }
    }

    pub(in super::super) fn into_list(self) -> Result<Vec<Self>, Complaint> {
        match self {
            Self::List(list) => Ok(list),
            _ => Err(Complaint::of_ours("answer: no list")),
        }
    }
}

/// The values of an answer as they come: a list is followed by its elements.
struct Said<'a> {
    office: &'a Office,
    values: Vec<Part<'a>>,
}

enum Part<'a> {
    Whole(Answer<'a>),
    ListOf(usize),
}

extern "C" fn take(data: *mut c_void, value: *const RawValue) {
    // SAFETY: `data` is the `Said` of `answered`, which outlives the call and has no other user; `value` is the shim's
    // for the time of this call, with as many bytes of text as it says.
    let (said, value, text) = unsafe {
        let value = &*value;
        let text = match NonNull::new(value.text.cast_mut()) {
            Some(text) => std::slice::from_raw_parts(text.as_ptr().cast::<u8>(), value.length),
            None => &[],
        };
        (&mut *data.cast::<Said<'_>>(), value, text)
    };
    let answer = match value.kind {
        kind::BOOLEAN => Answer::Boolean(value.number != 0),
        kind::HYPER => Answer::Number(value.number),
        kind::TEXT => Answer::Text(String::from_utf8_lossy(text).into_owned()),
        kind::LIST => return said.values.push(Part::ListOf(value.length)),
        kind::OBJECT => NonNull::new(value.object).map_or(Answer::Nothing, |handle| {
            Answer::Object(Object::new(said.office, handle))
        }),
        _ => Answer::Nothing,
    };
    said.values.push(Part::Whole(answer));
}

/// Makes one answer of the values that it came as.
fn assemble<'a>(parts: &mut impl Iterator<Item = Part<'a>>) -> Answer<'a> {
    match parts.next() {
        None => Answer::Nothing,
        Some(Part::Whole(answer)) => answer,
        Some(Part::ListOf(count)) => Answer::List((0..count).map(|_| assemble(parts)).collect()),
    }
}
