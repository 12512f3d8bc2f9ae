-- Rollouts that wait until somebody at the device has agreed, and devices that agree by themselves
-- (JSON: who said so, why, since when).

ALTER TABLE rollouts ADD COLUMN confirm INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN auto_confirm TEXT;
