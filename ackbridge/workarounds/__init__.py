"""Code that exists only because of how a library behaves today, and when it can be deleted.

`temporal_sdk.LenientPayloadConverter`
    temporalio 1.35: a payload that does not convert fails the workflow *task*, which the server
    retries for ever, or drops the signal. Delete `from_payloads` when the SDK fails the workflow.
    The SDK also builds a payload converter, with an empty cache of type adapters, at every
    activation. Delete `__new__` when it keeps one per worker.
`temporal_sdk.LightSandboxRunner`
    temporalio 1.35 enters the sandbox for every payload to ask for a serialization context.
    Delete `LightSandboxRunner` when the SDK asks only for converters that use contexts.
`temporal_sdk.BoundedShutdown`
    temporalio 1.35: `Worker.shutdown` sometimes never returns. Delete it when a release fixes
    that, and a hundred shutdowns under load have ended.
`temporal_sdk.exit_process`
    temporalio 1.35: threads of the SDK's core call into Python while the interpreter finalizes,
    which aborts the process. Delete it when the SDK ends its threads first.
`temporal_sdk.hold_results_during_queries`, `split_tasks`
    temporalio 1.35: a query that is answered while a local activity ends leaves a workflow task
    whose replay makes other commands: 11 of 150 workflows that were queried all the time on a busy
    worker, none of 450 with the former; the latter mends what happens nevertheless. Delete both
    when such histories replay.
`http_clients.CookielessClient`
    httpx 0.28 parses the cookies of every response, whatever the policy of the jar. Delete it
    when a client can be built without cookies.
`http_clients.LenientResponseHandler`
    aiohttp 3.14 refuses heads that other clients read: longer than a limit, with the same length
    twice, with framing on a 204. An error in the first bytes of a body hides its status, too.
    Delete it when the tests in `tests/unit/http/test_servers.py` pass without it.
`http_clients.without_own_retries`
    aiohttp 3.14 sends a GET, PUT or DELETE again by itself when a kept connection breaks, though it
    may have arrived. Delete it when a session has a setting for that.
`log_filters`
    opentelemetry-api 1.45 logs a traceback for each span in a coroutine that was garbage
    collected. Delete it when detaching during `GeneratorExit` is silent.

This package is below all that use it, so that every workaround is found, and removed, in one place.
"""
