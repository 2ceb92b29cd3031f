"""How bytes get from a reader to a writer: sets of runs, the pump, its rate, and the journal of what has landed."""

from snapferry.transfer.extents import BadExtents, Extents
from snapferry.transfer.journal import FileJournal, JournalFailed, NoJournal
from snapferry.transfer.pump import Copied, ReaderFault, pump
from snapferry.transfer.throttle import RateLimiter

__all__ = [
    "BadExtents",
    "Copied",
    "Extents",
    "FileJournal",
    "JournalFailed",
    "NoJournal",
    "RateLimiter",
    "ReaderFault",
    "pump",
]
