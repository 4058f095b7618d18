//! Every value of every cell as CSV. A large study has millions of rows, so each is written as it is found, without a frame of all of them.

use std::io::{self, Write};

use super::{Measured, Point, Recorded, Records, Sample};

/// Bytes that are collected before they are written.
const PIECE: usize = 1 << 16;

/// Samples in the order of cells, and of values within a cell, with position of cell and value.
fn samples<'a>(
    cells: &'a [Recorded],
    values: usize,
    measured: &'a [Measured],
) -> impl Iterator<Item = (usize, usize, &'a Sample)> {
    let mut next = vec![0_u32; measured.len()];
    (0..cells.len() * values).filter_map(move |at| {
        let (cell, value) = (at / values, at % values);
        let slot = cells[cell].point as usize * values + value;
        let sample = measured[slot].samples.get(next[slot] as usize).filter(|sample| sample.cell as usize == cell)?;
        next[slot] += 1;
        Some((cell, value, sample))
    })
}

impl Records {
    /// Writes one row per cell and value as CSV with a fixed number of decimals.
    ///
    /// # Errors
    /// When `out` does not take it.
    pub fn write_records(&self, out: &mut dyn Write) -> io::Result<()> {
        let mut row = Rows::default();
        self.axes.iter().for_each(|axis| row.text(Some(axis)));
        for name in ["run", "seed", "value", "number", "standard_error", "distinct", "stages"] {
            row.text(Some(name));
        }
        row.end();
        let labels: Vec<Rows> = self.points.iter().map(labels).collect();
        let values: Vec<Rows> = self.values.iter().map(|value| Rows::of(value)).collect();
        // What the rows of a cell begin with.
        let (mut begin, mut begun) = (Rows::default(), usize::MAX);
        for (cell, value, sample) in samples(&self.cells, self.values.len(), &self.measured) {
            if begun != cell {
                let Recorded { point, run, seed } = &self.cells[cell];
                begin.bytes.clear();
                begin.append(&labels[*point as usize]);
                begin.text(Some(run));
                begin.field(format_args!("{seed}"));
                begun = cell;
            }
            row.append(&begin);
            row.append(&values[value]);
            for number in [sample.number.map(|number| number.value), sample.number.map(|number| number.standard_error)]
            {
                match number {
                    Some(number) => row.field(format_args!("{number:.6}")),
                    None => row.text(None),
                }
            }
            row.text(Some(if sample.distinct { "true" } else { "false" }));
            row.text(Some(&sample.source));
            row.end();
            if row.bytes.len() >= PIECE {
                out.write_all(&row.bytes)?;
                row.bytes.clear();
            }
        }
        out.write_all(&row.bytes)
    }
}

/// The labels of a point, with which all of its rows begin.
fn labels(point: &Point) -> Rows {
    let mut row = Rows::default();
    point.labels.iter().for_each(|label| row.text(label.as_deref()));
    row
}

/// Rows of CSV. An absent field has nothing between its commas, an empty text has quotes there, as in `summary.csv`; the crate csv writes both alike.
#[derive(Default)]
struct Rows {
    /// Each field with a comma behind it, each whole row with a line end.
    bytes: Vec<u8>,
}

impl Rows {
    /// One field.
    fn of(text: &str) -> Self {
        let mut row = Self::default();
        row.text(Some(text));
        row
    }

    /// Adds a text, in quotes where it needs them.
    fn text(&mut self, text: Option<&str>) {
        match text {
            None => {}
            Some(text) if text.is_empty() || text.bytes().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r')) => {
                self.bytes.push(b'"');
                self.bytes.extend_from_slice(text.replace('"', "\"\"").as_bytes());
                self.bytes.push(b'"');
            }
            Some(text) => self.bytes.extend_from_slice(text.as_bytes()),
        }
        self.bytes.push(b',');
    }

    /// Adds what needs no quotes.
    fn field(&mut self, text: std::fmt::Arguments<'_>) {
        // Writing to memory cannot fail.
        let _ = self.bytes.write_fmt(text);
        self.bytes.push(b',');
    }

    /// Adds the fields of another row.
    fn append(&mut self, fields: &Rows) {
        self.bytes.extend_from_slice(&fields.bytes);
    }

    /// Ends the row: the last comma makes room for the line end.
    fn end(&mut self) {
        if let Some(last) = self.bytes.last_mut() {
            *last = b'\n';
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Rows;

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        let mut row = Rows::default();
        for text in [Some("plain"), None, Some(""), Some("a, b"), Some("say \"x\""), Some("two\nlines")] {
            row.text(text);
        }
        row.field(format_args!("{:.6}", 0.5));
        row.end();
        assert_eq!(row.bytes, b"plain,,\"\",\"a, b\",\"say \"\"x\"\"\",\"two\nlines\",0.500000\n");
    }
}
