//! A table for the terminal, with columns as wide as their longest cell.

use std::fmt;

pub(super) struct Table(Vec<Vec<String>>);

impl Table {
    pub(super) fn new(heads: &[&str]) -> Table {
        Table(vec![heads.iter().map(ToString::to_string).collect()])
    }

    /// Adds a row. It may have fewer cells than the table has columns; then its last cell may exceed its column.
    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.0.push(cells);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.0[0].len();
        let full = || self.0.iter().filter(|row| row.len() == columns);
        let width = |column: usize| full().map(|row| row[column].chars().count()).max().unwrap_or(0);
        for row in &self.0 {
            let cells = row.iter().enumerate().map(|(at, cell)| {
                // Numbers are aligned to the right.
                let is_number =
                    full().nth(1).is_some_and(|row| row[at].starts_with(|c: char| c.is_ascii_digit()));
                let last = at + 1 == columns || at + 1 == row.len();
                if last {
                    cell.clone()
                } else if is_number {
                    format!("{cell:>0$}", width(at))
                } else {
                    format!("{cell:<0$}", width(at))
                }
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn columns_line_up_and_a_short_row_does_not_widen_them() {
        let mut table = Table::new(&["N", "WHO", "END"]);
        table.row(vec!["100".into(), "a".into(), "x".into()]);
        table.row(vec!["?".into(), "does not answer".into()]);
        assert_eq!(table.to_string(), "  N  WHO  END\n100  a    x\n  ?  does not answer\n");
    }
}
