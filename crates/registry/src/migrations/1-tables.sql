-- Both databases read this file, so it keeps to what they share. Numbers are BIGINT, times are
-- microseconds since 1970.

-- One row. Every change begins by updating it, which puts all changes in one order.
CREATE TABLE registry (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    -- Also in the object store, so that a store never meets another's database.
    id TEXT NOT NULL,
    -- The number of the last record of the history.
    sequence BIGINT NOT NULL,
    -- The time of that record.
    time BIGINT NOT NULL,
    -- The last generation that was given to a blob.
    generation BIGINT NOT NULL
);
INSERT INTO registry (one, id, sequence, time, generation) VALUES (1, '', 0, 0, 0);

CREATE TABLE models (
    name TEXT PRIMARY KEY,
    -- How many versions it ever had.
    versions BIGINT NOT NULL
);

CREATE TABLE versions (
    model TEXT NOT NULL REFERENCES models (name),
    number BIGINT NOT NULL,
    stage TEXT NOT NULL CHECK (stage IN ('active', 'archived', 'deleted', 'purged')),
    -- When it came to this stage.
    moved BIGINT NOT NULL,
    published BIGINT NOT NULL,
    who TEXT NOT NULL,
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    -- JSON: the manifest, lineage and metadata.
    description TEXT NOT NULL,
    PRIMARY KEY (model, number)
);

-- The files of every version that is not purged.
CREATE TABLE files (
    model TEXT NOT NULL,
    number BIGINT NOT NULL,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('model', 'attachment')),
    digest TEXT NOT NULL,
    size BIGINT NOT NULL,
    PRIMARY KEY (model, number, name),
    FOREIGN KEY (model, number) REFERENCES versions (model, number)
);
CREATE INDEX files_digest ON files (digest);

CREATE TABLE aliases (
    model TEXT NOT NULL,
    alias TEXT NOT NULL,
    number BIGINT NOT NULL,
    PRIMARY KEY (model, alias),
    FOREIGN KEY (model, number) REFERENCES versions (model, number)
);

-- Explicit splits of the traffic.
CREATE TABLE traffic (
    model TEXT NOT NULL,
    number BIGINT NOT NULL,
    place BIGINT NOT NULL,
    share BIGINT NOT NULL,
    shadow BIGINT NOT NULL,
    PRIMARY KEY (model, number),
    FOREIGN KEY (model, number) REFERENCES versions (model, number)
);

-- What is, may be, or is about to be no longer in the object store. A generation is never used
-- twice: removing an old object cannot hit one that came later.
CREATE TABLE blobs (
    digest TEXT NOT NULL,
    generation BIGINT NOT NULL,
    size BIGINT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'stored', 'doomed')),
    -- When somebody last said that it will be needed.
    touched BIGINT NOT NULL,
    -- The upload in parts that is under way, as the store calls it.
    upload TEXT,
    PRIMARY KEY (digest, generation)
);
CREATE UNIQUE INDEX blobs_live ON blobs (digest) WHERE state <> 'doomed';

-- The parts that have arrived of an upload that is under way.
CREATE TABLE parts (
    digest TEXT NOT NULL,
    generation BIGINT NOT NULL,
    part BIGINT NOT NULL,
    checksum TEXT NOT NULL,
    content TEXT NOT NULL,
    PRIMARY KEY (digest, generation, part)
);

CREATE TABLE history (
    sequence BIGINT PRIMARY KEY,
    time BIGINT NOT NULL,
    model TEXT NOT NULL,
    event TEXT NOT NULL,
    who TEXT NOT NULL,
    reason TEXT NOT NULL,
    evidence TEXT
);
CREATE INDEX history_model ON history (model, sequence);
