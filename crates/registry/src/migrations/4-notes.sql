-- Whether somebody said that there will be versions of this name.
ALTER TABLE models ADD COLUMN announced BIGINT NOT NULL DEFAULT 0;

-- What people write about models and versions after they are published.
CREATE TABLE notes (
    model TEXT NOT NULL REFERENCES models (name),
    -- 0: about the model itself.
    number BIGINT NOT NULL,
    key TEXT NOT NULL,
    value TEXT NOT NULL,
    PRIMARY KEY (model, number, key)
);
