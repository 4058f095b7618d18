"""What the log of a results folder says was published, for scripts."""

import json
from pathlib import Path


def events(results):
    """Every event of the log, oldest first: its name and its fields. Torn lines are passed over."""
    for segment in sorted((Path(results) / "store/log").glob("[0-9]*.jsonl")):
        for line in segment.read_text(errors="replace").splitlines():
            try:
                event = json.loads(line)["event"]
            except (json.JSONDecodeError, KeyError):
                continue
            yield from event.items()


def published(results):
    """A record per publication: key, kind, detail, model, seconds, cpu_seconds."""
    made = [fields for name, fields in events(results) if name in ("published", "found")]
    return [{"key": f["key"], **f["record"], "cpu_seconds": f["record"]["cpu-seconds"]} for f in made]
