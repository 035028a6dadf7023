-- The champion before this one, and since when it is not: microseconds since 1970.
ALTER TABLE models ADD COLUMN former BIGINT;
ALTER TABLE models ADD COLUMN former_since BIGINT;

-- JSON: the request keys that always get the version.
ALTER TABLE traffic ADD COLUMN pinned TEXT NOT NULL DEFAULT '[]';

-- Rollouts that are under way. What they decide is in the history; what they rest on is here.
CREATE TABLE rollouts (
    model TEXT PRIMARY KEY REFERENCES models (name),
    -- The place of its start in the history, which tells it from the model's other rollouts.
    number BIGINT NOT NULL,
    started BIGINT NOT NULL,
    champion BIGINT NOT NULL,
    -- JSON: version numbers.
    candidates TEXT NOT NULL,
    paused BIGINT NOT NULL,
    -- JSON that crate rollout reads.
    plan TEXT NOT NULL,
    report TEXT NOT NULL,
    -- Raised with every write of the report: whoever decided by an older one is refused.
    revision BIGINT NOT NULL
);

-- What servers measured and no report has taken in yet.
CREATE TABLE measurements (
    rollout BIGINT NOT NULL,
    server TEXT NOT NULL,
    number BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (rollout, server, number)
);

-- What came back about an answer, and no server has claimed yet.
CREATE TABLE feedback (
    rollout BIGINT NOT NULL,
    -- Made up by whoever took it, so that taking it twice is taking it once.
    id TEXT NOT NULL,
    request TEXT NOT NULL,
    body TEXT NOT NULL,
    received BIGINT NOT NULL,
    PRIMARY KEY (rollout, id)
);
CREATE INDEX feedback_received ON feedback (rollout, received);

-- Who may do what only one should do at a time.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    holder TEXT NOT NULL,
    until BIGINT NOT NULL
);

-- What each server last said of itself.
CREATE TABLE servers (
    id TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    seen BIGINT NOT NULL,
    -- JSON: the versions that it holds.
    holds TEXT NOT NULL
);
