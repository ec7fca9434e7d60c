"""Connections: S3 by the Airflow connection that the settings name, and the keys of services.

In: `PERANK_AWS_CONN_ID`. Out: this process reaches S3 by that connection. Its secrets stay in
memory: they are in no environment, file, log or XCom. The key of a service that an arm asks is
handed over in this process's environment, where its ranker looks for it.
"""

import os
from contextlib import suppress
from typing import Any

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from perank_tasks.errors import ConfigError
from perank_tasks.settings import Settings


def reach_storage() -> None:
    """Have this process reach S3 by the settings' connection; without one, nothing changes.

    Raises:
        ConfigError: there is no such connection, or Amazon's provider is not installed.
    """
    conn_id = Settings.from_environment().aws_conn_id
    if conn_id is None:
        return
    try:
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
    except ImportError as error:
        raise ConfigError(
            f"PERANK_AWS_CONN_ID names the connection {conn_id!r}, and apache-airflow-providers-"
            "amazon, which reads it, is not installed: pip install 'perank[cluster]'."
        ) from error
    from perank_tasks.artifacts.storage.s3_client import Access, use_access

    try:
        Connection.get(conn_id)  # the hook would take the standard chain instead, in silence
    except AirflowNotFoundException:
        raise ConfigError(
            f"PERANK_AWS_CONN_ID names the connection {conn_id!r}, which Airflow does not have. "
            "Add it with the type aws, or unset the variable."
        ) from None
    hook = AwsBaseHook(aws_conn_id=conn_id, client_type="s3")
    endpoint = hook.conn_config.get_service_endpoint_url(service_name="s3")
    use_access(Access(hook.get_session(), endpoint, hook.config, hook.verify))


def hand_over_keys(planned: Any) -> None:
    """Put the keys that a night's arms name into this process's environment.

    The variable `RERANK_KEY` gets the password of the connection `rerank_key`. One that is set
    stays as it is; where there is no such connection, the arm's ranker says what it lacks.
    """
    for arm in getattr(planned, "arms", ()):
        variable = arm.options.get("key_variable")
        if variable and variable not in os.environ:
            with suppress(AirflowNotFoundException):
                os.environ[variable] = Connection.get(variable.lower()).password or ""
