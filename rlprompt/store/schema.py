"""The tables of a study's store, one script a version of its schema."""

# Script i takes schema version i to i + 1. Never change one that was released: add the next.
MIGRATIONS = (
    """
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
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        key BLOB NOT NULL UNIQUE,
        prompts TEXT NOT NULL,
        digests BLOB NOT NULL,
        rewards BLOB NOT NULL,
        gradients BLOB,
        seconds REAL NOT NULL
    );
    CREATE TABLE evaluations (
        run INTEGER NOT NULL REFERENCES runs,
        position INTEGER NOT NULL,
        answer INTEGER NOT NULL REFERENCES answers,
        PRIMARY KEY (run, position)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE scores (
        key BLOB PRIMARY KEY,
        split TEXT NOT NULL,
        scores TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    """
    ALTER TABLE answers ADD COLUMN outputs BLOB;
    CREATE TABLE hidden (key BLOB PRIMARY KEY, vectors BLOB NOT NULL)
    """,
    """
    DROP TABLE scores;
    CREATE TABLE scores (
        key BLOB PRIMARY KEY,
        split TEXT NOT NULL,
        at TEXT NOT NULL,
        seconds REAL NOT NULL,
        rewards BLOB NOT NULL,
        metrics BLOB NOT NULL,
        answers BLOB
    ) WITHOUT ROWID
    """,
    "CREATE TABLE documents (name TEXT PRIMARY KEY, content TEXT NOT NULL)",
    # Places of the train examples, as JSON, and the mean rewards over all of them of the prompts
    # that this answer completed, NaN for others; both NULL for answers on all.
    """
    ALTER TABLE answers ADD COLUMN examples TEXT;
    ALTER TABLE evaluations ADD COLUMN completed BLOB
    """,
    # Rows that one prompt of the answer was charged; NULL from before that was kept (`charged`).
    "ALTER TABLE evaluations ADD COLUMN cost INTEGER",
    # Requests that a server answered, and the tokens that it counted for each, NULL where it does
    # not say; `model` is the digest of a fingerprint.
    """
    CREATE TABLE requests (
        key BLOB PRIMARY KEY,
        model TEXT NOT NULL,
        answer TEXT NOT NULL,
        tokens_in INTEGER,
        tokens_out INTEGER
    ) WITHOUT ROWID
    """,
    # Requests to what proposes prompts, answered: a list of text, tokens read, tokens written.
    """
    CREATE TABLE writings (
        key BLOB PRIMARY KEY,
        answers BLOB NOT NULL,
        seconds REAL NOT NULL
    )
    """,
    # Texts of prompts that are tokens, as JSON, for people; NULL where none is or it was not kept.
    "ALTER TABLE answers ADD COLUMN texts TEXT",
)
