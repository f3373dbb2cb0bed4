//! The trace a request belongs to, from either of the headers that Google's front ends send.

use axum::http::HeaderMap;

/// A trace and the span that called us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// 32 hex digits.
    pub trace_id: String,
    /// 16 hex digits.
    pub span_id: String,
    /// Whether somebody records it.
    pub sampled: bool,
}

impl Trace {
    /// From `traceparent` (W3C), else from `X-Cloud-Trace-Context`, whose span is a decimal number.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name)?.to_str().ok();
        text("traceparent")
            .and_then(Self::from_traceparent)
            .or_else(|| text("x-cloud-trace-context").and_then(Self::from_cloud))
    }

    fn from_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace_id, span_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let valid =
            is_hex(version, 2) && version != "ff" && is_hex(trace_id, 32) && is_hex(span_id, 16) && is_hex(flags, 2);
        let none_zero = [trace_id, span_id].iter().all(|id| id.bytes().any(|byte| byte != b'0'));
        (valid && none_zero).then(|| Self {
            trace_id: trace_id.to_owned(),
            span_id: span_id.to_owned(),
            sampled: u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1),
        })
    }

    fn from_cloud(text: &str) -> Option<Self> {
        let (trace_id, rest) = text.trim().split_once('/')?;
        let (span, options) = rest.split_once(';').unwrap_or((rest, ""));
        let span: u64 = span.parse().ok().filter(|span| *span != 0)?;
        is_hex(trace_id, 32).then(|| Self {
            trace_id: trace_id.to_owned(),
            span_id: format!("{span:016x}"),
            sampled: options == "o=1",
        })
    }

    /// As W3C writes it.
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &'static str, value: &str) -> Option<Trace> {
        Trace::from_headers(
            &[(axum::http::HeaderName::from_static(name), value.parse().unwrap())]
                .into_iter()
                .collect(),
        )
    }

    #[test]
    fn both_headers_name_the_same_trace() {
        let expected = "00-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01";
        assert_eq!(of("traceparent", expected).unwrap().traceparent(), expected);
        let cloud = of(
            "x-cloud-trace-context",
            "c0aae0ef90d944452f56027d27af0e97/1411812217150857728;o=1",
        )
        .unwrap();
        assert_eq!(cloud.traceparent(), expected);
    }

    #[test]
    fn what_is_no_trace_is_none() {
        for text in [
            "",
            "00-0-0-01",
            "00-00000000000000000000000000000000-1397c3bb3cd56200-01",
            "ff-c0aae0ef90d944452f56027d27af0e97-1397c3bb3cd56200-01",
        ] {
            assert_eq!(of("traceparent", text), None, "{text}");
        }
    }
}
