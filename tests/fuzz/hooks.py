"""What schemathesis needs to be told of Askos; it loads this module by the variable SCHEMATHESIS_HOOKS.

Made-up ids are those of nothing, and a 404 proves little: most requests are led to things that are there, whose ids
`world.py` has written into the file named by ASKOS_FUZZ_WORLD. Answers without an end are made to end.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from pathlib import Path
from typing import Any

import schemathesis

_WORLD: dict[str, list[str]] = json.loads(Path(os.environ["ASKOS_FUZZ_WORLD"]).read_text())
_REAL = 0.7
"""How many of the requests go to what is there."""
_DOOMED = 0.1
"""How many of the deletes do: else there would soon be nothing left."""
_CHOICE = random.Random(int(os.environ["ASKOS_FUZZ_SEED"]))


@schemathesis.hook
def before_call(_context: schemathesis.HookContext, case: schemathesis.Case, **_kwargs: Any) -> None:
    """Put ids that are there into the path, and an end to what has none."""
    segments = case.operation.path.split("/")
    for before, segment in itertools.pairwise(segments):
        share = _DOOMED if case.method == "DELETE" else _REAL
        known = _WORLD.get(before)
        if known and segment.startswith("{") and _CHOICE.random() < share:
            case.path_parameters[segment[1:-1]] = _CHOICE.choice(known)
    query = case.query
    if not isinstance(query, dict):
        return
    if "watch" in query:
        query["timeoutSeconds"] = "0"
    if segments[-1] == "logs":
        query.pop("follow", None)
