"""Rules in force by oslo.policy: the defaults, and what the operator's file says instead."""

from __future__ import annotations

import logging

from oslo_config import cfg
from oslo_policy import policy as oslo

from askos.api.policy_rules import DEFAULTS
from askos.model.errors import SetupError
from askos.model.identity import Caller

_log = logging.getLogger(__name__)


class Engine:
    """One reading of a policy file."""

    def __init__(self, text: bytes, name: str) -> None:
        try:
            parsed = oslo.parse_file_contents(text)
        except (ValueError, UnicodeDecodeError) as error:
            raise SetupError(
                f"Cannot use the policy file {name}: it is not YAML ({' '.join(str(error).split())})."
            ) from error
        if not isinstance(parsed, dict) or not all(
            isinstance(key, str) and isinstance(value, str | list) for key, value in parsed.items()
        ):
            raise SetupError(f"Cannot use the policy file {name}: it must map names of rules to rules.")
        for unknown in sorted(parsed.keys() - DEFAULTS.keys()):
            _log.warning("the policy file %s has a rule %s, which only others of its rules can refer to", name, unknown)
        config = cfg.ConfigOpts()
        config([], project="askos", default_config_files=[], default_config_dirs=[])
        self._enforcer = oslo.Enforcer(config, rules={}, use_conf=False)
        self._enforcer.suppress_deprecation_warnings = True
        rules = oslo.Rules.from_dict({**DEFAULTS, **parsed})
        self._enforcer.set_rules(rules, overwrite=True, use_conf=False)
        if not self._enforcer.check_rules():
            raise SetupError(
                f"Cannot use the policy file {name}: a rule refers to one that does not exist, or to itself. The log "
                "has its name."
            )

    def allows(self, caller: Caller, rule: str, project_id: str) -> bool:
        """See `policy.Rules`."""
        credentials = {
            "user_id": caller.user_id,
            "project_id": caller.project_id,
            "roles": caller.roles,
            "is_admin": caller.is_admin,
        }
        target = {"project_id": project_id, "user_id": caller.user_id}
        return bool(self._enforcer.enforce(rule, target, credentials))
