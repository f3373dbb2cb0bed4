//! The PNG predictors, which cross-reference streams are written with.

use std::io::{self, BufRead, Read};

/// Undoes the PNG predictors (one byte a sample).
pub(super) struct Unpredicted<R> {
    rows: R,
    above: Vec<u8>,
    row: Vec<u8>,
    at: usize,
}

impl<R: BufRead> Unpredicted<R> {
    pub(super) fn new(rows: R, columns: u64) -> Self {
        let columns = usize::try_from(columns).unwrap_or(1);
        Self {
            rows,
            above: vec![0; columns],
            row: vec![0; columns],
            at: columns,
        }
    }

    fn next_row(&mut self) -> io::Result<()> {
        let mut kind = [0];
        self.rows.read_exact(&mut kind)?;
        std::mem::swap(&mut self.above, &mut self.row);
        self.rows.read_exact(&mut self.row)?;
        for i in 0..self.row.len() {
            let up = self.above[i];
            let (left, upper_left) = if i == 0 {
                (0, 0)
            } else {
                (self.row[i - 1], self.above[i - 1])
            };
            let predicted = match kind[0] {
                0 => 0,
                1 => left,
                2 => up,
                3 => left.midpoint(up),
                4 => paeth(left, up, upper_left),
                _ => return Err(io::ErrorKind::InvalidData.into()),
            };
            self.row[i] = self.row[i].wrapping_add(predicted);
        }
        self.at = 0;
        Ok(())
    }
}

impl<R: BufRead> Read for Unpredicted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.row.len() {
            match self.next_row() {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => other?,
            }
        }
        let length = into.len().min(self.row.len() - self.at);
        into[..length].copy_from_slice(&self.row[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

/// The PNG filter of that name (ISO/IEC 15948, 9.4).
fn paeth(left: u8, up: u8, upper_left: u8) -> u8 {
    let distance = |to: u8| (i16::from(left) + i16::from(up) - i16::from(upper_left) - i16::from(to)).abs();
    if distance(left) <= distance(up) && distance(left) <= distance(upper_left) {
        left
    } else if distance(up) <= distance(upper_left) {
        up
    } else {
        upper_left
    }
}
