"""Where Askos answers differently from what Zun answered, call by call, and why: `docs/zun-differences.md` for readers.

A call is "conversation: name". What differs is told by the words that the comparison uses, as a pattern that fits the
whole of each; a difference of a call that is not here is a failure, and so is an entry that has no difference any more.
"""

from __future__ import annotations

from typing import NamedTuple


class Known(NamedTuple):
    """Differences of the calls whose "conversation: name" fits the pattern `calls`. `what` fits each difference."""

    calls: str
    what: str
    why: str
    always: bool = True
    """False: whether it is seen depends on how far a work in the background has come."""


NOT_SAID: dict[str, str] = {
    "containers-lifecycle: wrong state: (force )?delete .*a Paused container.*":
        "An owner can always delete; what comes after needs the container.",
    "containers-create-list: follow next.*": "The links are of that cloud; test_api_list follows those of this one.",
}  # fmt: skip
"""Calls that are not made, by a pattern of "conversation: name", and why."""

_NO_IMAGE_SERVICE = "The cloud of these tests has no image service; tests/acceptance has one."
_AT_ONCE = (
    "What can be known to be wrong is refused at once; with Zun the container ends in Error, or nothing comes of it."
)
_HOST = "The made-up host reads no archives; tests of the loops have the real one."
_NEVER_500 = "A mistake of the caller's, or a host that is away, is no mistake of the server's."

KNOWN: list[Known] = [
    # -- everywhere
    Known(".*", "status is (400|404|405|409|503), not 500", _NEVER_500),
    Known(".*", r"header openstack-api-version is container [\d.]+, not None",
          "Zun leaves its version headers out of some refusals; they are always right."),
    Known(".*", r"header allow is [A-Z, ]+, not [A-Z, ]+",
          "Zun names the methods of the whole controller, Askos those of the path."),
    Known(".*: unknown zone(: wait)?", "status is 40[04], not 20[02]", _AT_ONCE),
    Known("containers-create-list: runtime unknown, as admin", "status is 400, not 202", _AT_ONCE),
    Known("availability-zones: list, limit", "status is 200, not 500", "Parameters of lists mean nothing here."),
    Known("availability-zones: show|services: unknown verb", "status is 404, not 405", "There is no such path."),
    # -- discovery
    Known("discovery: version out of range .*", "status is 406, not None", "As meant: Zun closes the connection."),
    Known("discovery: .* content type", "status is 415, not None", "As meant: Zun closes the connection."),
    Known("discovery: version header: two services", "status is 200, not 406", "The container element counts."),
    # -- capsules
    Known("capsules: POST to a capsule", "status is 405, not 404", "There is a capsule, it just takes no POST."),
    Known("capsules: cpu as string", "status is 202, not 500", "It says what it means."),
    Known("capsules: volume not mounted", r"\.errors\[0\]\.code is 'container.schema-validation-error', not .*",
          "One answer names everything that is wrong in a template."),
    Known("capsules: mount of an unknown volume", "status is 400, not 202", "It could never start."),
    Known("capsules: unknown volume id", "status is 400, not 404", "One answer names everything that is wrong."),
    Known("capsules: containers list does not show it", r"\.containers is empty",
          "The recorded list held containers of other tests."),
    # -- creating
    Known("containers-create-list: image from glance by name, not there.*", "status is 40[04], not 20[02]",
          _NO_IMAGE_SERVICE),
    Known("containers-create-list: run in the body", "status is 400, not 202",
          "Unknown fields are refused, and this one belongs into the query."),
    Known('containers-create-list: create .*"(exposed_ports|nets|hostname|mounts|command)".*', "status is 400, not 202",
          _AT_ONCE),
    Known("containers-create-list: outcome of the last create.*", "status is 404, not 200",
          "It was refused here, so there is nothing to show."),
    Known('containers-create-list: create .*"name": "a".*|containers-lifecycle: PATCH {"name": "x"}',
          "status is 20[02], not 400", "Nothing speaks against names of one character."),
    Known('containers-create-list: create .*"no", "MaximumRetryCount".*|containers-create-list: outcome .*',
          r"\.restart_policy\.\w+ is missing", "The policy no is shown as none was given: {}."),
    Known("containers-create-list: (list|page) .*", r"\.containers\[\d+\]\.restart_policy\.\w+ is too (much|little)",
          "The recorded lists were cut to three containers, none of which has a policy."),
    Known("containers-create-list: .*", r"\.(containers\[\d+\]\.)?command is empty",
          "A container without command shows [] before its image is known."),
    # -- inside
    Known("containers-exec-logs-archive: execute.command=sh.*", "status is 200, not 400",
          "A semicolon does not end a parameter."),
    Known("containers-exec-logs-archive: execute.command=sleep.20", "status is 200, not 409",
          "The made-up host answers at once; Zun gave up after ten seconds."),
    Known("containers-exec-logs-archive: execute_resize, unknown exec", r"\.errors\[0\]\.code is .*-remote'",
          "There is no second program whose error it would be."),
    Known("containers-exec-logs-archive: attach with a parameter", "status is 400, not 200",
          "Unknown parameters are refused."),
    Known("containers-exec-logs-archive: put_archive, not base64", "status is 400, not 200",
          "Zun drops what is no base64, and unpacks the rest."),
    Known("containers-exec-logs-archive: put_archive(, not a tar| at 1.24, base64)", "status is 200, not 500", _HOST),
    Known("containers-exec-logs-archive: commit, body", "status is 202, not 400",
          "Parameters are taken from the body too, as for every other action."),
    Known("containers-exec-logs-archive: action commit .*", r"\.events is empty",
          "The made-up host sends no image, so that it goes on.", always=False),
    Known("containers-exec-logs-archive: (run from the committed image.*|wait for fromsnap|its log)",
          "status is 40[04], not 20[02]", "The made-up host sends no image; tests/acceptance has a real one.", always=False),
    # -- networks and volumes
    Known("containers-networks-security-groups: network_attach, address outside", "status is 400, not 200", _AT_ONCE),
    Known("containers-networks-security-groups: network_(attach|detach), parameter in the body",
          "status is 20[02], not 400",
          "Parameters are taken from the body too, as for every other action."),
    Known("containers-volumes: (the row it leaves.*|its owner deletes.*|an administrator deletes it)",
          "status is 404, not (200|204|409)", "A create that was refused leaves nothing."),
    # -- administration
    Known("images: show as member", "status is 403, not 400", "They may not look at images of hosts at all."),
    Known("images: (show, unknown|show after it|delete, unknown)", "status is 404, not 400", "Nothing is there."),
    Known("images: search .*", "status is 200, not 500", "Zun's lab had no route to the registry."),
    Known("networks: create again", "status is 409, not 500", "It is a conflict."),
    Known("containers-networks-security-groups: create a network", "status is 200, not 500",
          "Zun had lost track of the engine's networks."),
    Known("containers-networks-security-groups: create, unknown id", r"\.errors\[0\]\.code is .*-remote'",
          "There is no second program whose error it would be."),
    Known("quotas: usages.*", r"\.(memory|disk|containers)\.in_use is int, not float", "Whole numbers are written so."),
    Known("quotas: resize_container over the limit", "status is 403, not 202", "A quota holds for every way to grow."),
    Known("services: logs of it", "status is 200, not 400", "It has written nothing."),
    Known("services: (force )?delete while down", "status is 204, not 500",
          "It is deleted, and its host makes it true when it is back."),
]  # fmt: skip
