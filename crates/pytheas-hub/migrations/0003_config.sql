-- Settings of the apps on devices; a device is in one group at most.

ALTER TABLE devices ADD COLUMN grp TEXT;

-- Each change of a layer (`all`, `group:NAME`, `device:ID`) with the whole layer after it; the newest
-- row of a layer counts.
CREATE TABLE config_revisions (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    layer    TEXT    NOT NULL,
    settings TEXT    NOT NULL,
    author   TEXT    NOT NULL,
    note     TEXT    NOT NULL,
    at_ms    INTEGER NOT NULL
) STRICT;
CREATE INDEX config_revisions_layer ON config_revisions (layer, id);
