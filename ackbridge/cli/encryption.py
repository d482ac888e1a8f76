"""encrypt-again: the ledger's rows, after a rotation of keys."""

from __future__ import annotations

from collections import Counter

from ackbridge.errors import ConfigurationError
from ackbridge.ledger.ledger import Ledger
from ackbridge.ledger.reencryption import compact
from ackbridge.security.encryption import load_encryption
from ackbridge.settings import environment, load_settings
from ackbridge.terminal import output

from .connections import with_ledger
from .options import Json


def encrypt_again(json_output: Json = False) -> None:
    """Encrypt the ledger's rows with the first of `ACKBRIDGE_ENCRYPTION_KEYS`.

    Rows in plain, too. Older keys can go afterwards, once the engine's retention is over as well.
    """
    encryption = load_encryption(environment())
    if encryption is None:
        raise ConfigurationError("ACKBRIDGE_ENCRYPTION_KEYS: there is no key to encrypt with")

    async def rewrite(ledger: Ledger) -> Counter[str]:
        rewritten: Counter[str] = Counter()
        async for table, rows in ledger.reencryption.run():
            rewritten[table] += rows
        return rewritten

    rewritten = with_ledger(rewrite)
    compact(load_settings().ledger_url)
    if json_output:
        output.print_json(dict(rewritten))
        return
    rows = [(table, str(count)) for table, count in sorted(rewritten.items())]
    title = f"encrypted with the key {encryption.key_id}"
    output.console.print(output.table(title, ("table", "rows"), rows))
