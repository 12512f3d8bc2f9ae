-- Rollouts of several releases that run together, and of releases older than what runs.

ALTER TABLE rollouts ADD COLUMN allow_downgrade INTEGER NOT NULL DEFAULT 0;

-- What devices that are assigned `module` by this rollout get beside it, in this order.
CREATE TABLE rollout_also (
    rollout  INTEGER NOT NULL REFERENCES rollouts (id) ON DELETE CASCADE,
    module   INTEGER NOT NULL REFERENCES modules (id),
    position INTEGER NOT NULL,
    also     INTEGER NOT NULL REFERENCES modules (id),
    PRIMARY KEY (rollout, module, position)
) STRICT, WITHOUT ROWID;
