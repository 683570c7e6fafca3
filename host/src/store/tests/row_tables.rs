//! row_tables
