"""`askos env`."""

from __future__ import annotations

import os

import click

from askos.cli import base, output
from askos.cli.base import Globals
from askos.client import connection, credentials
from askos.client.connection import Cloud

MISLEADING = (
    "OS_CLOUD",
    "OS_TOKEN",
    "OS_AUTH_TYPE",
    "OS_PROJECT_ID",
    "OS_USER_ID",
    "OS_USER_DOMAIN_NAME",
    "OS_PROJECT_DOMAIN_NAME",
    "OS_APPLICATION_CREDENTIAL_ID",
    "OS_APPLICATION_CREDENTIAL_SECRET",
    "OS_TENANT_NAME",
    "OS_SYSTEM_SCOPE",
    "OS_CACERT",
)
"""Variables that, when left over in a shell, would lead clients elsewhere."""


@click.command(
    cls=base.Command, examples=['eval "$(askos env)"', "askos env --clouds > ~/.config/openstack/clouds.yaml"]
)
@click.option("--clouds", is_flag=True, help="Print a clouds.yaml instead.")
@click.option("--unset", is_flag=True, help="Print the lines that take the variables away again.")
@click.pass_obj
def env(globals_: Globals, clouds: bool, unset: bool) -> None:
    """Print the variables with which any OpenStack client reaches the cloud.

    That is the local cloud, or the one given with --os-cloud. The output holds the password.
    """
    if unset:
        output.write(f"unset {' '.join(names())}\n")
        return
    if globals_.os_cloud:
        cloud = connection.resolve(globals_.os_cloud, globals_.data)
    else:
        cloud = connection.local_cloud(connection.data_folder(globals_.data))
    if clouds:
        output.write(credentials.clouds_yaml(document(cloud)))
        return
    wanted = variables(cloud)
    leftover = [name for name in MISLEADING if name in os.environ and name not in wanted]
    output.write(f"unset {' '.join(leftover)}\n" if leftover else "")
    output.write(credentials.export_lines(wanted))


def names() -> list[str]:
    """All variables that `askos env` may set."""
    every = credentials.environment("", "", "", "", "")
    return sorted({*every, *MISLEADING})


def variables(cloud: Cloud) -> dict[str, str]:
    """The OS_* variables of a cloud, whatever its kind of login."""
    found = credentials.environment(cloud.auth_url, cloud.username, cloud.password, "", cloud.cacert or None)
    del found["OS_PROJECT_NAME"], found["OS_USER_DOMAIN_ID"], found["OS_PROJECT_DOMAIN_ID"]
    if cloud.credential_id:
        for name in ("OS_USERNAME", "OS_PASSWORD"):
            del found[name]
        found["OS_AUTH_TYPE"] = "v3applicationcredential"
        found["OS_APPLICATION_CREDENTIAL_ID"] = cloud.credential_id
        found["OS_APPLICATION_CREDENTIAL_SECRET"] = cloud.credential_secret
    else:
        found[f"OS_USER_DOMAIN_{cloud.user_domain[0].upper()}"] = cloud.user_domain[1]
        if cloud.project:
            found[f"OS_PROJECT_{cloud.project[0].upper()}"] = cloud.project[1]
            found[f"OS_PROJECT_DOMAIN_{cloud.project_domain[0].upper()}"] = cloud.project_domain[1]
    found["OS_REGION_NAME"] = cloud.region
    found["OS_INTERFACE"] = cloud.interface
    return {name: value for name, value in found.items() if value}


def document(cloud: Cloud) -> dict[str, object]:
    """The same as a clouds.yaml document."""
    settings = {name.removeprefix("OS_").lower(): value for name, value in variables(cloud).items()}
    outer = (
        "region_name",
        "interface",
        "identity_api_version",
        "container_api_version",
        "cacert",
        "auth_type",
    )
    entry: dict[str, object] = {"auth": {key: value for key, value in settings.items() if key not in outer}}
    entry |= {key: settings[key] for key in outer if key in settings}
    if cloud.endpoint:
        entry["container_endpoint_override"] = cloud.endpoint
    return {"clouds": {credentials.CLOUD_NAME: entry}}
