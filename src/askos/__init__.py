"""Askos: a serverless container cloud.

The folders are rings, and imports point inwards: `model` (what things are), `plan` (pure decisions), `ports`
(Protocols the core owns), `loops` (level-triggered reconcilers), `adapters` (one folder per outside thing),
`api` (wire formats), `programs` (wiring), `client` and `cli`. See docs/architecture.md.
"""

__version__ = "0.1.0"
