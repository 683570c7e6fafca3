//! Rows on their way to the database, in columns, checked against the tables that they are for.

mod block_rows;

use super::row_error::RowError;
use super::table_spec::{ColumnKind, ColumnSpec, TableKind, TableSpec};

pub use block_rows::{RowAction, RowWrite, TableWrites};

/// The values of a column, one a row.
#[derive(Debug, Clone, PartialEq)]
pub enum ColumnData {
    /// For amounts, times, integers and booleans.
    Integers(Vec<i64>),
    /// For reals.
    Reals(Vec<f64>),
    /// For text: UTF-8, entry `i` ending before `ends[i]`.
    Texts {
        /// Where each entry ends.
        ends: Vec<u32>,
        /// The entries, one after the other.
        bytes: Vec<u8>,
    },
    /// For bytes: entry `i` ending before `ends[i]`.
    Blobs {
        /// Where each entry ends.
        ends: Vec<u32>,
        /// The entries, one after the other.
        bytes: Vec<u8>,
    },
    /// For hashes: 32 bytes a row, in display order.
    Hashes(Vec<u8>),
}

/// A column of rows to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The values. A row without a value has any value here.
    pub data: ColumnData,
    /// One byte a row, not 0 where there is no value; `None` when every row has one.
    pub nulls: Option<Vec<u8>>,
}

impl From<ColumnData> for Column {
    fn from(data: ColumnData) -> Self {
        Self { data, nulls: None }
    }
}

/// One value of a row, borrowed from its column.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cell<'a> {
    Null,
    Integer(i64),
    Real(f64),
    Text(&'a str),
    Blob(&'a [u8]),
}

impl ColumnData {
    fn empty(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Hash => Self::Hashes(Vec::new()),
            ColumnKind::Real => Self::Reals(Vec::new()),
            ColumnKind::Text => Self::Texts {
                ends: Vec::new(),
                bytes: Vec::new(),
            },
            ColumnKind::Bytes => Self::Blobs {
                ends: Vec::new(),
                bytes: Vec::new(),
            },
            _ => Self::Integers(Vec::new()),
        }
    }

    /// Number of values; `None` when the bytes do not make whole values.
    fn rows(&self) -> Option<usize> {
        match self {
            Self::Integers(values) => Some(values.len()),
            Self::Reals(values) => Some(values.len()),
            Self::Texts { ends, bytes } | Self::Blobs { ends, bytes } => {
                let whole =
                    ends.is_sorted() && ends.last().map_or(0, |end| *end as usize) == bytes.len();
                whole.then_some(ends.len())
            }
            Self::Hashes(bytes) => bytes.len().is_multiple_of(32).then_some(bytes.len() / 32),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Integers(values) => values.len() * 8,
            Self::Reals(values) => values.len() * 8,
            Self::Texts { ends, bytes } | Self::Blobs { ends, bytes } => {
                ends.len() * 4 + bytes.len()
            }
            Self::Hashes(bytes) => bytes.len(),
        }
    }

    fn cell(&self, row: usize) -> Cell<'_> {
        let span = |ends: &[u32]| {
            let start = row
                .checked_sub(1)
                .and_then(|before| ends.get(before))
                .map_or(0, |end| *end as usize);
            start..ends.get(row).map_or(start, |end| *end as usize)
        };
        match self {
            Self::Integers(values) => values
                .get(row)
                .map_or(Cell::Null, |value| Cell::Integer(*value)),
            Self::Reals(values) => values
                .get(row)
                .map_or(Cell::Null, |value| Cell::Real(*value)),
            Self::Texts { ends, bytes } => {
                let text = bytes.get(span(ends)).map(std::str::from_utf8);
                text.and_then(Result::ok).map_or(Cell::Null, Cell::Text)
            }
            Self::Blobs { ends, bytes } => bytes.get(span(ends)).map_or(Cell::Null, Cell::Blob),
            Self::Hashes(bytes) => bytes
                .get(row * 32..(row + 1) * 32)
                .map_or(Cell::Null, Cell::Blob),
        }
    }

    fn truncate(&mut self, rows: usize) {
        match self {
            Self::Integers(values) => values.truncate(rows),
            Self::Reals(values) => values.truncate(rows),
            Self::Texts { ends, bytes } | Self::Blobs { ends, bytes } => {
                ends.truncate(rows);
                bytes.truncate(ends.last().map_or(0, |end| *end as usize));
            }
            Self::Hashes(bytes) => bytes.truncate(rows * 32),
        }
    }

    /// Appends a column of the same kind; `false` when it is of another, or the bytes pass 4 GiB.
    fn extend(&mut self, more: &Self) -> bool {
        match (self, more) {
            (Self::Integers(all), Self::Integers(more)) => all.extend_from_slice(more),
            (Self::Reals(all), Self::Reals(more)) => all.extend_from_slice(more),
            (Self::Hashes(all), Self::Hashes(more)) => all.extend_from_slice(more),
            (
                Self::Texts { ends, bytes },
                Self::Texts {
                    ends: more_ends,
                    bytes: more,
                },
            )
            | (
                Self::Blobs { ends, bytes },
                Self::Blobs {
                    ends: more_ends,
                    bytes: more,
                },
            ) => {
                let (Ok(start), Ok(_)) = (
                    u32::try_from(bytes.len()),
                    u32::try_from(bytes.len() + more.len()),
                ) else {
                    return false;
                };
                ends.extend(more_ends.iter().map(|end| start + end));
                bytes.extend_from_slice(more);
            }
            _ => return false,
        }
        true
    }
}

impl Column {
    pub(super) fn cell(&self, row: usize) -> Cell<'_> {
        match &self.nulls {
            Some(nulls) if nulls.get(row).is_some_and(|null| *null != 0) => Cell::Null,
            _ => self.data.cell(row),
        }
    }

    /// Number of rows, after checking that the column is what its declaration says.
    fn check(&self, spec: &ColumnSpec) -> Result<usize, String> {
        let fits = matches!(
            (spec.kind, &self.data),
            (ColumnKind::Hash, ColumnData::Hashes(_))
                | (ColumnKind::Real, ColumnData::Reals(_))
                | (ColumnKind::Text, ColumnData::Texts { .. })
                | (ColumnKind::Bytes, ColumnData::Blobs { .. })
                | (
                    ColumnKind::Amount
                        | ColumnKind::Time
                        | ColumnKind::Integer
                        | ColumnKind::Boolean,
                    ColumnData::Integers(_)
                )
        );
        if !fits {
            return Err(format!(
                "column {} is {:?} and got another kind of values",
                spec.name, spec.kind
            ));
        }
        let rows = self
            .data
            .rows()
            .ok_or_else(|| format!("the ends of column {} do not fit its bytes", spec.name))?;
        if let Some(nulls) = &self.nulls {
            if nulls.len() != rows {
                return Err(format!(
                    "column {} has {rows} values and {} null marks",
                    spec.name,
                    nulls.len()
                ));
            }
            if !spec.nullable && nulls.iter().any(|null| *null != 0) {
                return Err(format!(
                    "column {} must have a value in every row",
                    spec.name
                ));
            }
        }
        match &self.data {
            ColumnData::Texts { ends, bytes } => {
                let text = std::str::from_utf8(bytes)
                    .map_err(|_| format!("column {} is not UTF-8", spec.name))?;
                if !ends.iter().all(|end| text.is_char_boundary(*end as usize)) {
                    return Err(format!("column {} cuts a character", spec.name));
                }
            }
            ColumnData::Integers(values)
                if spec.kind == ColumnKind::Boolean
                    && !values.iter().all(|value| (0..=1).contains(value)) =>
            {
                return Err(format!("column {} is boolean and takes 0 and 1", spec.name));
            }
            // SQLite stores NaN as NULL.
            ColumnData::Reals(values)
                if !spec.nullable && values.iter().any(|value| value.is_nan()) =>
            {
                return Err(format!(
                    "column {} got a value that is not a number",
                    spec.name
                ));
            }
            _ => {}
        }
        Ok(rows)
    }
}

/// Checks columns against their declarations and gives the number of rows.
fn check_columns<'a>(
    table: &str,
    specs: impl ExactSizeIterator<Item = &'a ColumnSpec>,
    columns: &[Column],
) -> Result<usize, RowError> {
    let refuse = |why: String| RowError::Rows {
        table: table.to_owned(),
        why,
    };
    if specs.len() != columns.len() {
        return Err(refuse(format!(
            "{} columns where there are {}",
            columns.len(),
            specs.len()
        )));
    }
    let mut rows = None;
    for (spec, column) in specs.zip(columns) {
        let count = column.check(spec).map_err(refuse)?;
        if *rows.get_or_insert(count) != count {
            return Err(refuse(format!(
                "column {} has {count} rows, the ones before have {rows:?}",
                spec.name
            )));
        }
    }
    Ok(rows.unwrap_or(0))
}

/// A change of a volatile table.
#[derive(Debug, Clone)]
pub(super) enum VolatileChange {
    Put {
        table: usize,
        columns: Vec<Column>,
        rows: usize,
    },
    Delete {
        table: usize,
        keys: Vec<Column>,
        rows: usize,
    },
    Clear {
        table: usize,
    },
}

/// The rows gathered for one table.
#[derive(Debug, Clone)]
pub(super) struct TableRows {
    /// Runs of rows of one height: the height, and the row after its last.
    heights: Vec<(u32, usize)>,
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
}

impl TableRows {
    fn new(spec: &TableSpec) -> Self {
        let column = |spec: &ColumnSpec| Column {
            data: ColumnData::empty(spec.kind),
            nulls: spec.nullable.then(Vec::new),
        };
        Self {
            heights: Vec::new(),
            columns: spec.columns.iter().map(column).collect(),
            rows: 0,
        }
    }

    /// The height of each row, in order.
    pub(super) fn heights(&self) -> impl Iterator<Item = u32> {
        let starts = std::iter::once(0).chain(self.heights.iter().map(|(_, end)| *end));
        starts
            .zip(&self.heights)
            .flat_map(|(start, (height, end))| std::iter::repeat_n(*height, end - start))
    }

    fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.data.truncate(rows);
            if let Some(nulls) = &mut column.nulls {
                nulls.truncate(rows);
            }
        }
        let whole = self.heights.partition_point(|(_, end)| *end <= rows);
        let start = whole
            .checked_sub(1)
            .and_then(|last| self.heights.get(last))
            .map_or(0, |(_, end)| *end);
        self.heights.truncate(whole + usize::from(start < rows));
        if let Some((_, end)) = self.heights.get_mut(whole) {
            *end = rows;
        }
        self.rows = self.rows.min(rows);
    }
}

/// The rows of a lane that are not flushed.
#[derive(Debug, Clone)]
pub struct RowBuffer {
    pub(super) specs: Vec<TableSpec>,
    pub(super) tables: Vec<TableRows>,
    pub(super) volatile: Vec<VolatileChange>,
    volatile_bytes: usize,
    /// Where the open block began: rows of each table, volatile changes and their bytes.
    mark: (Vec<usize>, usize, usize),
    /// Whether the open block's rows are refused, because it is to be cut.
    cut: bool,
}

impl RowBuffer {
    /// A buffer for these tables, which are named by their index from here on. [`RowStore::register`] gives one.
    ///
    /// [`RowStore::register`]: super::RowStore::register
    pub fn new(specs: &[TableSpec]) -> Self {
        let tables: Vec<TableRows> = specs.iter().map(TableRows::new).collect();
        let mark = (vec![0; tables.len()], 0, 0);
        Self {
            specs: specs.to_vec(),
            tables,
            volatile: Vec::new(),
            volatile_bytes: 0,
            mark,
            cut: false,
        }
    }

    /// The tables, in the order of their indexes.
    pub fn specs(&self) -> &[TableSpec] {
        &self.specs
    }

    /// Rows gathered, and volatile changes.
    pub fn rows(&self) -> usize {
        self.anchored_rows() + self.volatile.len()
    }

    /// Rows gathered for anchored tables.
    pub fn anchored_rows(&self) -> usize {
        self.tables.iter().map(|table| table.rows).sum()
    }

    /// Rows gathered by table: those appended, put and deleted. Tables without any are left out.
    pub fn rows_by_table(&self) -> std::collections::BTreeMap<String, usize> {
        let mut all = std::collections::BTreeMap::new();
        let anchored = self.specs.iter().zip(&self.tables);
        for (spec, table) in anchored.filter(|(_, table)| table.rows > 0) {
            all.insert(spec.name.clone(), table.rows);
        }
        for change in &self.volatile {
            let (table, rows) = match change {
                VolatileChange::Put { table, rows, .. }
                | VolatileChange::Delete { table, rows, .. } => (*table, *rows),
                VolatileChange::Clear { table } => (*table, 0),
            };
            if let Some(spec) = self.specs.get(table) {
                *all.entry(spec.name.clone()).or_default() += rows;
            }
        }
        all
    }

    /// Whether there is nothing to flush.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0
    }

    /// Memory that the rows take, in bytes.
    pub fn bytes(&self) -> usize {
        let columns = self.tables.iter().flat_map(|table| &table.columns);
        columns.map(column_bytes).sum::<usize>() + self.volatile_bytes
    }

    fn spec(&self, table: usize, kind: TableKind) -> Result<&TableSpec, RowError> {
        let refuse = |table: String, why: &str| RowError::Rows {
            table,
            why: why.to_owned(),
        };
        let spec = self
            .specs
            .get(table)
            .ok_or_else(|| refuse(format!("#{table}"), "no such table was declared"))?;
        match (kind, spec.kind) {
            (TableKind::Anchored, TableKind::Volatile) => Err(refuse(
                spec.name.clone(),
                "it is volatile: put and delete its rows by key",
            )),
            (TableKind::Volatile, TableKind::Anchored) => Err(refuse(
                spec.name.clone(),
                "it is anchored: its rows are appended by blocks and never changed",
            )),
            _ => Ok(spec),
        }
    }

    /// Appends rows of block `height` to an anchored table, one column for each that was declared. Heights never go back.
    pub fn append(
        &mut self,
        table: usize,
        height: u32,
        columns: &[Column],
    ) -> Result<(), RowError> {
        let spec = self.spec(table, TableKind::Anchored)?;
        let rows = check_columns(&spec.name, spec.columns.iter(), columns)?;
        let name = spec.name.clone();
        let refuse = |why: &str| RowError::Rows {
            table: name.clone(),
            why: why.to_owned(),
        };
        if self.cut {
            return Err(refuse("they were refused on purpose"));
        }
        let Some(target) = self.tables.get_mut(table).filter(|_| rows > 0) else {
            return Ok(());
        };
        if target
            .heights
            .last()
            .is_some_and(|(last, _)| *last > height)
        {
            return Err(refuse("rows of an earlier block than the last"));
        }
        let before = target.rows;
        let mut fits = true;
        for (all, more) in target.columns.iter_mut().zip(columns) {
            fits &= all.data.extend(&more.data);
            if let Some(nulls) = &mut all.nulls {
                match &more.nulls {
                    Some(more) => nulls.extend_from_slice(more),
                    None => nulls.resize(before + rows, 0),
                }
            }
        }
        if !fits {
            target.rows = before + rows;
            target.truncate(before);
            return Err(refuse("more than 4 GiB in one column before a flush"));
        }
        target.rows = before + rows;
        match target.heights.last_mut() {
            Some((last, end)) if *last == height => *end = target.rows,
            _ => target.heights.push((height, target.rows)),
        }
        Ok(())
    }

    /// Puts rows into a volatile table: new ones, or in place of those with the same key.
    pub fn put(&mut self, table: usize, columns: Vec<Column>) -> Result<(), RowError> {
        let spec = self.spec(table, TableKind::Volatile)?;
        let rows = check_columns(&spec.name, spec.columns.iter(), &columns)?;
        self.volatile_bytes += columns.iter().map(column_bytes).sum::<usize>();
        self.volatile.push(VolatileChange::Put {
            table,
            columns,
            rows,
        });
        Ok(())
    }

    /// Deletes rows of a volatile table by their keys: one column for each column of the key.
    pub fn delete(&mut self, table: usize, keys: Vec<Column>) -> Result<(), RowError> {
        let spec = self.spec(table, TableKind::Volatile)?;
        let positions = spec.key_positions();
        let specs: Vec<&ColumnSpec> = positions
            .iter()
            .filter_map(|position| spec.columns.get(*position))
            .collect();
        let rows = check_columns(&spec.name, specs.into_iter(), &keys)?;
        self.volatile_bytes += keys.iter().map(column_bytes).sum::<usize>();
        self.volatile
            .push(VolatileChange::Delete { table, keys, rows });
        Ok(())
    }

    /// Empties a volatile table.
    pub fn clear_table(&mut self, table: usize) -> Result<(), RowError> {
        self.spec(table, TableKind::Volatile)?;
        self.volatile.push(VolatileChange::Clear { table });
        Ok(())
    }

    /// Makes the open block fail with its first rows of an anchored table, see
    /// [`LaneState::cut_after`](super::LaneState::cut_after).
    pub fn cut(&mut self) {
        self.cut = true;
    }

    /// Marks where a block begins.
    pub fn begin_block(&mut self) {
        self.cut = false;
        self.mark = (
            self.tables.iter().map(|table| table.rows).collect(),
            self.volatile.len(),
            self.volatile_bytes,
        );
    }

    /// Closes the block: [`truncate_block`](Self::truncate_block) leaves its rows alone from now on.
    pub fn commit_block(&mut self) {
        self.begin_block();
    }

    /// Drops what came since [`begin_block`](Self::begin_block), unless it was committed: the rows of a block that was aborted.
    pub fn truncate_block(&mut self) {
        let (rows, changes, bytes) = &self.mark;
        for (table, rows) in self.tables.iter_mut().zip(rows) {
            table.truncate(*rows);
        }
        self.volatile.truncate(*changes);
        self.volatile_bytes = *bytes;
        self.cut = false;
    }

    /// Drops the rows of blocks above `height`, and every volatile change: what a rewind does to rows not flushed yet.
    pub fn truncate_above(&mut self, height: Option<u32>) {
        for table in &mut self.tables {
            let above = |(at, _): &(u32, usize)| height.is_none_or(|height| *at > height);
            let kept = table
                .heights
                .iter()
                .take_while(|run| !above(run))
                .last()
                .map_or(0, |(_, end)| *end);
            table.truncate(kept);
        }
        self.volatile.clear();
        self.volatile_bytes = 0;
        self.begin_block();
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        self.truncate_above(None);
    }

    /// Drops the volatile changes; the rows of blocks stay.
    pub(super) fn clear_volatile(&mut self) {
        self.volatile.clear();
        self.volatile_bytes = 0;
        self.begin_block();
    }
}

fn column_bytes(column: &Column) -> usize {
    column.data.bytes() + column.nulls.as_ref().map_or(0, Vec::len)
}
