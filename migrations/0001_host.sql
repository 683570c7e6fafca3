-- The host's own tables. What begins with blockmill_ belongs to the host; every other table belongs to a plugin.

-- The last block of each plugin whose rows are here. Written in the transaction that writes the rows.
CREATE TABLE blockmill_cursor (
    plugin TEXT PRIMARY KEY NOT NULL,
    height INTEGER NOT NULL,
    hash   BLOB NOT NULL CHECK (length(hash) = 32)  -- display order, as in every table
) WITHOUT ROWID;

-- The cursors that a plugin's rows were at lately, so that two stores on different branches find where they agree.
CREATE TABLE blockmill_history (
    plugin TEXT NOT NULL,
    height INTEGER NOT NULL,
    hash   BLOB NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (plugin, height)
) WITHOUT ROWID;

-- The tables that plugins declared, and their shape.
CREATE TABLE blockmill_table (
    name   TEXT PRIMARY KEY NOT NULL,
    plugin TEXT NOT NULL,
    kind   TEXT NOT NULL CHECK (kind IN ('anchored', 'volatile')),
    spec   TEXT NOT NULL
) WITHOUT ROWID;
