-- Which of a plugin's two sets of data is current, and what made each of them. A plugin has a second set while it is made
-- anew beside the one that serves, and afterwards, until the next time, so that one can go back.
CREATE TABLE blockmill_plugin (
    plugin              TEXT PRIMARY KEY NOT NULL,
    slot                INTEGER NOT NULL CHECK (slot IN (0, 1)),
    state_version       INTEGER NOT NULL,
    sha256              TEXT NOT NULL,      -- of the component that made it last
    previous_sha256     TEXT,               -- of the component before it
    other_state_version INTEGER,            -- of the second set; null: there is none
    other_whole         INTEGER NOT NULL,   -- 0 while the second set is being made
    set_aside           TEXT                -- of a component that was taken back, and is not to be loaded again by itself
) WITHOUT ROWID;
