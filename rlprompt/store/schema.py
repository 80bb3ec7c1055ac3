"""The tables of a study's store."""

from rlprompt.store.database import Schema

# Formats 1 to 10 came before the first release.
STUDY = Schema(
    format=11,
    script="""
    CREATE TABLE study (spec TEXT NOT NULL);
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL,
        owner TEXT NOT NULL DEFAULT '',
        beat INTEGER NOT NULL DEFAULT 0,
        used INTEGER NOT NULL DEFAULT 0,
        n_prompts INTEGER NOT NULL DEFAULT 0,
        best_reward REAL,
        seconds REAL NOT NULL DEFAULT 0,
        strayed INTEGER,
        error TEXT NOT NULL DEFAULT '',
        result TEXT
    );
    -- What prompts earned on train. For people are `texts`, of prompts that are tokens, as JSON,
    -- NULL where none is. `examples` are places in train, as JSON, NULL for all.
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        prompts TEXT NOT NULL,
        texts TEXT,
        digests BLOB NOT NULL,
        examples TEXT,
        rewards BLOB NOT NULL,
        gradients BLOB,
        outputs BLOB,
        judge_tokens INTEGER NOT NULL,
        seconds REAL NOT NULL
    );
    -- Who was given which. `completed` are mean rewards over all of train of the prompts that this
    -- answer completed, NaN for others; NULL for answers on all. `cost` is in rows, of one prompt.
    CREATE TABLE evaluations (
        run INTEGER NOT NULL REFERENCES runs,
        position INTEGER NOT NULL,
        answer INTEGER NOT NULL REFERENCES answers,
        completed BLOB,
        cost INTEGER NOT NULL,
        PRIMARY KEY (run, position)
    ) WITHOUT ROWID;
    CREATE TABLE scores (
        key BLOB PRIMARY KEY,
        split TEXT NOT NULL,
        at TEXT NOT NULL,
        seconds REAL NOT NULL,
        rewards BLOB NOT NULL,
        metrics BLOB NOT NULL,
        answers BLOB
    ) WITHOUT ROWID;
    CREATE TABLE hidden (key BLOB PRIMARY KEY, vectors BLOB NOT NULL, seconds REAL);
    CREATE TABLE documents (name TEXT PRIMARY KEY, content TEXT NOT NULL);
    -- Requests that a server answered, and the tokens that it counted for each, NULL where it does
    -- not say; `model` is the digest of a fingerprint.
    CREATE TABLE requests (
        key BLOB PRIMARY KEY,
        model TEXT NOT NULL,
        answer TEXT NOT NULL,
        tokens_in INTEGER,
        tokens_out INTEGER
    ) WITHOUT ROWID;
    -- Requests to what proposes prompts, answered: a list of text, tokens read, tokens written.
    CREATE TABLE writings (
        key BLOB PRIMARY KEY,
        answers BLOB NOT NULL,
        seconds REAL NOT NULL
    )
    """,
    advice=(
        "run the study again with this version (--restart starts in a new folder), or read it with "
        "the version that wrote it"
    ),
    later=(("hidden", "seconds", "REAL"),),
)
