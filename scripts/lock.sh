#!/usr/bin/env bash
# Writes the two lock files anew from pyproject.toml: pinned versions with hashes, and no registry address.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=${UV:-uv}
common=(--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet --python-version 3.11)
"$uv" pip compile pyproject.toml --extra build "${common[@]}" "$@" -o requirements.lock
"$uv" pip compile pyproject.toml --extra build --extra dev -c requirements.lock "${common[@]}" "$@" -o requirements-dev.lock
