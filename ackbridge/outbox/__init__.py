"""Start calls inside a service's own transaction, in its PostgreSQL or SQLite.

from ackbridge import outbox

with Session(engine) as session, session.begin():
    session.add(order)
    outbox.enqueue(session, request)

`ackbridge relay` starts what is committed.
"""

from .insert import enqueue as enqueue
from .insert import enqueue_async as enqueue_async
from .table import create as create
from .table import ddl as ddl
from .table import outbox_table as outbox_table
