"""The ledger of a project, in Redis: what is in flight, what became of it, and what failed.

Everything in here may be lost. Encord is the source of truth: an agent task that is not done is still at its stage, and
after a flush the next sweep finds it. So nothing here is a lock on Encord, and no operation needs what an earlier one
wrote: a claim that is gone means "do not commit", a record that is gone means "not known". Calls that fail raise one
error, ``LedgerError``, and whoever meets it may go on without: the price is that work may be done twice, which Encord
then refuses once.

A **claim** says which message an agent task is in. The producer claims before it sends, in one script, so that of many
producers one gets each agent task. A claim lapses at its deadline and may then be taken by another message; as long as
nobody has, its own message may still renew it, so that one agent that takes longer than anybody thought is not run for
ever and never committed.

The **fencing token** tells deliveries of one message from each other. A broker redelivers what a worker seems to have
lost, and a worker that was only cut off comes back and would commit over it. Each delivery takes a token larger than
every one before (the server's microseconds, so that it grows across a flush too) and shows it before each commit: only
the newest still holds. Between that check and the commit some seconds pass, in which the claim is renewed, not locked;
what slips through is refused by Encord, for a move is possible only once.

A **crash** is a delivery that was begun and never ended. The delivery after it notes which agent task it is on, so the
next one can name the one that kills workers. The first crash of a message has nothing noted and is nobody's.

**Outcomes** and **failures** are records for people, bounded by age and by number. Outcomes of one message that are
alike are kept once, see ``alike``. The claims that they end stay where they are and lead to them, so what goes well
costs next to nothing. Every key expires, and all keys of a project are in one slot of a cluster, see ``keys``. An
operation is one round trip, unless its docstring says otherwise.
"""

from celery_agents.ledger.book import Ledger
from celery_agents.ledger.keys import DEFAULT_PREFIX
from celery_agents.ledger.part import Retention
from celery_agents.ledger.records import Record, Settlement
from celery_agents.ledger.replies import Claim, Claimed, Found, Held, Page, Standing, Takeover

__all__ = [
    "DEFAULT_PREFIX",
    "Claim",
    "Claimed",
    "Found",
    "Held",
    "Ledger",
    "Page",
    "Record",
    "Retention",
    "Settlement",
    "Standing",
    "Takeover",
]
