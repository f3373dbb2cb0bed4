//! What model and simulation are told: loads and prices, in tables beside this file that can be changed.

use std::collections::BTreeMap;

/// What comes in, and what it is served with.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) name: String,
    pub(crate) shape: Shape,
    /// Seconds of processor time of a document: half of them take no more, and 95 % take no more.
    pub(crate) half: f64,
    pub(crate) most_of_them: f64,
    /// Seconds that a document waits for Google's APIs.
    pub(crate) waits: f64,
    /// Of one instance.
    pub(crate) processors: u32,
    pub(crate) memory_gib: f64,
    /// Requests an instance is sent at once.
    pub(crate) concurrency: u32,
    /// Instances, at least and at most.
    pub(crate) least: u32,
    pub(crate) most: u32,
    /// Seconds from when an instance is asked for until it takes requests.
    pub(crate) start: f64,
    /// Seconds that an idle instance is kept.
    pub(crate) kept: f64,
}

/// How documents come.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// At random, so many a second.
    Steady {
        /// Documents a second.
        rate: f64,
    },
    /// All at once.
    Backlog {
        /// How many.
        documents: f64,
    },
}

impl Load {
    /// Slots of all instances there may be.
    pub(crate) fn slots(&self) -> f64 {
        f64::from(self.concurrency) * f64::from(self.most)
    }

    /// The standard deviation of the logarithm of processor time, which is spread log-normally.
    pub(crate) fn spread(&self) -> f64 {
        // 95 % of a normal distribution are below 1.645 deviations.
        (self.most_of_them / self.half).ln() / 1.645
    }

    /// Seconds of a document, on average.
    pub(crate) fn mean(&self) -> f64 {
        self.half * (self.spread().powi(2) / 2.0).exp() + self.waits
    }
}

/// Prices by their names.
pub(crate) struct Prices(BTreeMap<String, f64>);

impl Prices {
    pub(crate) fn of(&self, name: &str) -> Result<f64, String> {
        self.0
            .get(name)
            .copied()
            .ok_or_else(|| format!("prices.tsv has no {name}"))
    }
}

/// The rows of a table: columns are separated by tabs, `#` begins a comment.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split('\t').collect())
}

/// # Errors
/// A row that is none, with its text.
pub(crate) fn prices(text: &str) -> Result<Prices, String> {
    let row = |row: Vec<&str>| match row[..] {
        [name, price, _unit, date, source] if !date.is_empty() && !source.is_empty() => price
            .parse()
            .map(|price| (name.to_owned(), price))
            .map_err(|_| format!("prices.tsv: {price:?} is no price")),
        _ => Err(format!("prices.tsv: {row:?} is not name, price, unit, date and source")),
    };
    rows(text).map(row).collect::<Result<_, _>>().map(Prices)
}

/// # Errors
/// A row that is none, with its text.
pub(crate) fn loads(text: &str) -> Result<Vec<Load>, String> {
    let number = |text: &str| {
        text.parse::<f64>()
            .map_err(|_| format!("loads.tsv: {text:?} is no number"))
    };
    let whole = |text: &str| {
        text.parse::<u32>()
            .map_err(|_| format!("loads.tsv: {text:?} is no whole number"))
    };
    let row = |row: Vec<&str>| {
        let [
            name,
            shape,
            amount,
            half,
            most_of_them,
            waits,
            processors,
            memory,
            concurrency,
            least,
            most,
            start,
            kept,
        ] = row[..]
        else {
            return Err(format!("loads.tsv: {row:?} has not 13 columns"));
        };
        let shape = match shape {
            "steady" => Shape::Steady { rate: number(amount)? },
            "backlog" => Shape::Backlog {
                documents: number(amount)?,
            },
            other => return Err(format!("loads.tsv: {other:?} is neither steady nor backlog")),
        };
        Ok(Load {
            name: name.to_owned(),
            shape,
            half: number(half)?,
            most_of_them: number(most_of_them)?,
            waits: number(waits)?,
            processors: whole(processors)?,
            memory_gib: number(memory)?,
            concurrency: whole(concurrency)?,
            least: whole(least)?,
            most: whole(most)?,
            start: number(start)?,
            kept: number(kept)?,
        })
    };
    rows(text).map(row).collect()
}
