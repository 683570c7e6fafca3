//! Rows of the tables that a plugin declares, for people to query with SQL.
//!
//! [`table!`](crate::table) declares a table and makes the type that collects its rows in columns and hands them to the
//! host in one call.

pub use crate::bindings::blockmill::plugin::rows::{Cells, Column};
pub use crate::bindings::exports::blockmill::plugin::processor::{
    Table as Declaration, TableColumn as DeclaredColumn, TableKind,
};
use crate::wire::Pieces;
use crate::{ColumnKind, Processor};

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::rows as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::rows as host;

/// Adds rows to an anchored table, which is named by its place in the descriptor.
pub fn append(table: u32, columns: &[Column]) {
    host::append(table, columns);
}

/// Adds rows to a volatile table, in place of those with the same key.
pub fn put(table: u32, columns: &[Column]) {
    host::put(table, columns);
}

/// Removes rows from a volatile table: `key` has the table's key columns.
pub fn delete(table: u32, key: &[Column]) {
    host::delete(table, key);
}

/// A table that [`table!`](crate::table) made.
pub trait Table {
    /// Its name.
    const NAME: &'static str;

    /// What the descriptor says of it.
    fn declaration() -> Declaration;
}

/// The place of a table in the descriptor of the plugin `P`. A table that is not there stops the plugin.
pub fn place<P: Processor, T: Table>() -> u32 {
    let tables = P::describe().tables;
    match tables.iter().position(|table| table.name == T::NAME) {
        Some(place) => place as u32,
        None => panic!("the descriptor does not declare the table `{}`", T::NAME),
    }
}

/// What a column holds.
pub trait Kind {
    /// What the declaration says.
    const KIND: ColumnKind;
    /// Whether a value may be missing.
    const NULLABLE: bool = false;
    /// What is put into a row.
    type Value<'a>;
    /// What the values are gathered in.
    type Buffer: Default;

    /// Adds a value.
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>);
    /// Adds a place for a value that is missing.
    fn push_nothing(buffer: &mut Self::Buffer);
    /// Makes the column, and leaves the buffer empty.
    fn column(buffer: &mut Self::Buffer) -> Column;
    /// Takes the column's memory back for further values.
    fn reuse(buffer: &mut Self::Buffer, column: Column);
}

macro_rules! kind {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $life:lifetime $value:ty, $buffer:ty, $cells:ident,
     |$to:ident, $from:ident| $push:expr, $nothing:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $name {}

        impl Kind for $name {
            const KIND: ColumnKind = ColumnKind::$kind;
            type Value<$life> = $value;
            type Buffer = $buffer;

            #[inline]
            fn push($to: &mut $buffer, $from: Self::Value<'_>) {
                $push;
            }
            #[inline]
            fn push_nothing(buffer: &mut $buffer) {
                Self::push(buffer, $nothing);
            }
            fn column(buffer: &mut $buffer) -> Column {
                Column { cells: Cells::$cells(std::mem::take(buffer)), nulls: Vec::new() }
            }
            fn reuse(buffer: &mut $buffer, column: Column) {
                if let Cells::$cells(mut values) = column.cells {
                    values.clear();
                    *buffer = values;
                }
            }
        }
    };
}

kind!(
    /// A whole number with a sign.
    Integer, Integer, 'v i64, Vec<i64>, Integers, |to, value| to.push(value), 0);
kind!(
    /// An integer number of sat.
    Amount, Amount, 'v u64, Vec<i64>, Integers, |to, value| to.push(value as i64), 0);
kind!(
    /// An integer number of unix seconds.
    Time, Time, 'v u64, Vec<i64>, Integers, |to, value| to.push(value as i64), 0);
kind!(
    /// Yes or no.
    Boolean, Boolean, 'v bool, Vec<i64>, Integers, |to, value| to.push(i64::from(value)), false);
kind!(
    /// A number with a fraction.
    Real, Real, 'v f64, Vec<f64>, Reals, |to, value| to.push(value), 0.0);
kind!(
    /// Text.
    Text, Text, 'v &'v str, Pieces, Texts, |to, value| to.push(value.as_bytes()), "");
kind!(
    /// Any bytes.
    Bytes, Bytes, 'v &'v [u8], Pieces, Blobs, |to, value| to.push(value), &[]);
kind!(
    /// 32 bytes, given in internal order, shown in display order.
    Hash, Hash, 'v &'v [u8; 32], Vec<u8>, Hashes, |to, value| to.extend_from_slice(value), &[0; 32]);

/// A value that may be missing.
#[derive(Clone, Copy, Debug)]
pub struct Nullable<K>(std::marker::PhantomData<K>);

impl<K: Kind> Kind for Nullable<K> {
    const KIND: ColumnKind = K::KIND;
    const NULLABLE: bool = true;
    type Value<'a> = Option<K::Value<'a>>;
    type Buffer = (K::Buffer, Vec<u8>);

    #[inline]
    fn push(buffer: &mut Self::Buffer, value: Self::Value<'_>) {
        match value {
            Some(value) => {
                K::push(&mut buffer.0, value);
                buffer.1.push(0);
            }
            None => Self::push_nothing(buffer),
        }
    }
    fn push_nothing(buffer: &mut Self::Buffer) {
        K::push_nothing(&mut buffer.0);
        buffer.1.push(1);
    }
    fn column(buffer: &mut Self::Buffer) -> Column {
        let mut column = K::column(&mut buffer.0);
        column.nulls = std::mem::take(&mut buffer.1);
        column
    }
    fn reuse(buffer: &mut Self::Buffer, mut column: Column) {
        buffer.1 = std::mem::take(&mut column.nulls);
        buffer.1.clear();
        K::reuse(&mut buffer.0, column);
    }
}

/// Declares a table and the type that writes its rows.
///
/// ```
/// use blockmill_sdk::prelude::*;
/// use blockmill_sdk::rows::{Amount, Hash, Integer, Nullable};
///
/// blockmill_sdk::table! {
///     /// One row a transaction.
///     pub table Payments of Payment: Anchored "payment" {
///         position: Integer,
///         txid: Hash,
///         fee: Nullable<Amount>,
///     }
///     key [position];
///     indexes [[txid]];
/// }
///
/// fn write(payments: &mut Payments, block: &Block) {
///     for tx in block.transactions() {
///         payments.push(Payment { position: tx.position() as i64, txid: tx.txid(), fee: tx.fee() });
///     }
///     payments.flush();
/// }
/// ```
///
/// `Payments::of::<Plugin>()` makes the writer, `Descriptor::table::<Payments>()` declares the table.
#[macro_export]
macro_rules! table {
    (
        $(#[$doc:meta])*
        $vis:vis table $table:ident of $row:ident: $kind:ident $name:literal {
            $($(#[$column_doc:meta])* $column:ident: $of:ty),+ $(,)?
        }
        key [$($key:ident),* $(,)?];
        indexes [$([$($index:ident),+ $(,)?]),* $(,)?];
    ) => {
        $(#[$doc])*
        $vis struct $table {
            __place: u32,
            __rows: usize,
            $($column: <$of as $crate::rows::Kind>::Buffer,)+
        }

        #[doc = concat!("A row of the table `", $name, "`.")]
        $vis struct $row<'a> {
            $(
                $(#[$column_doc])*
                #[doc = concat!("The column `", stringify!($column), "`.")]
                pub $column: <$of as $crate::rows::Kind>::Value<'a>,
            )+
        }

        #[allow(dead_code)]
        impl $table {
            /// A writer of this table for the plugin `P`, whose descriptor declares it.
            $vis fn of<P: $crate::Processor>() -> Self {
                $table {
                    __place: $crate::rows::place::<P, Self>(),
                    __rows: 0,
                    $($column: ::std::default::Default::default(),)+
                }
            }

            /// Adds a row to those that the next `flush` hands over.
            #[inline]
            $vis fn push(&mut self, row: $row<'_>) {
                self.__rows += 1;
                $(<$of as $crate::rows::Kind>::push(&mut self.$column, row.$column);)+
            }

            /// Forgets the rows that were pushed since the last `flush`.
            $vis fn clear(&mut self) {
                self.__rows = 0;
                $(
                    let column = <$of as $crate::rows::Kind>::column(&mut self.$column);
                    <$of as $crate::rows::Kind>::reuse(&mut self.$column, column);
                )+
            }

            /// Hands the rows over to the host: appended to an anchored table, put into a volatile one.
            $vis fn flush(&mut self) {
                if self.__rows == 0 {
                    return;
                }
                self.__rows = 0;
                let columns = [$(<$of as $crate::rows::Kind>::column(&mut self.$column)),+];
                match $crate::rows::TableKind::$kind {
                    $crate::rows::TableKind::Anchored => $crate::rows::append(self.__place, &columns),
                    $crate::rows::TableKind::Volatile => $crate::rows::put(self.__place, &columns),
                }
                let [$($column),+] = columns;
                $(<$of as $crate::rows::Kind>::reuse(&mut self.$column, $column);)+
            }

            /// Removes rows of a volatile table: `key` has its key columns, in order.
            $vis fn delete(&self, key: &[$crate::rows::Column]) {
                $crate::rows::delete(self.__place, key);
            }
        }

        impl $crate::rows::Table for $table {
            const NAME: &'static str = $name;

            fn declaration() -> $crate::rows::Declaration {
                $crate::rows::Declaration {
                    name: $name.into(),
                    kind: $crate::rows::TableKind::$kind,
                    columns: ::std::vec![$(
                        $crate::rows::DeclaredColumn {
                            name: stringify!($column).into(),
                            kind: <$of as $crate::rows::Kind>::KIND,
                            nullable: <$of as $crate::rows::Kind>::NULLABLE,
                        }
                    ),+],
                    key: ::std::vec![$(stringify!($key).into()),*],
                    indexes: ::std::vec![$(::std::vec![$(stringify!($index).into()),+]),*],
                }
            }
        }
    };
}

impl Column {
    /// Whole numbers, sat, unix seconds, or 0 and 1.
    pub fn integers(values: Vec<i64>) -> Self {
        Column {
            cells: Cells::Integers(values),
            nulls: Vec::new(),
        }
    }

    /// Hashes of 32 bytes side by side, internal order.
    pub fn hashes(values: Vec<u8>) -> Self {
        Column {
            cells: Cells::Hashes(values),
            nulls: Vec::new(),
        }
    }

    /// Texts.
    pub fn texts(values: Pieces) -> Self {
        Column {
            cells: Cells::Texts(values),
            nulls: Vec::new(),
        }
    }
}
