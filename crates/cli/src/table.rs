//! Tables of aligned columns, as text.

/// Rows of cells under a heading, in columns as wide as their widest cell.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Vec<String>>,
    right: Vec<bool>,
}

impl Table {
    /// An empty table with these headings.
    pub fn new<const N: usize>(headings: [&str; N]) -> Self {
        Self::with(headings.iter().map(|heading| (*heading).to_owned()).collect())
    }

    /// The same, for headings that are not known beforehand.
    pub fn with(headings: Vec<String>) -> Self {
        Self { right: vec![false; headings.len()], rows: vec![headings] }
    }

    /// Aligns a column to the right, as numbers are read.
    pub fn right(mut self, column: usize) -> Self {
        self.right[column] = true;
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table, each line indented by so many spaces.
    pub fn text(&self, indent: usize) -> String {
        let width = |column: usize| {
            let cell = |row: &Vec<String>| row.get(column).map_or(0, |cell| cell.chars().count());
            self.rows.iter().map(cell).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = " ".repeat(indent);
            for (column, cell) in row.iter().enumerate() {
                let width = widths.get(column).copied().unwrap_or(0);
                match self.right.get(column) {
                    Some(true) => line.push_str(&format!("{cell:>width$}  ")),
                    _ => line.push_str(&format!("{cell:<width$}  ")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::new(["name", "n"]).right(1);
        table.row(vec!["é".into(), "1".into()]);
        table.row(vec!["long name".into(), "200".into()]);
        assert_eq!(table.text(1), " name         n\n é            1\n long name  200\n");
    }
}
