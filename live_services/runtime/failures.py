"""Why a process of the runtime must end.

RuntimeFailure        ends the process; the supervisor starts it again
├── PromiseBroken     an output is earlier than the watermark its topic already carries
├── NotSaid           what takes the outputs of a chain failed on one
├── WrongShape        topics, inputs or committed offsets do not fit the service
├── SlowOpening       the states of a session were not built in time
├── SlowStep          a step that left the loop did not end in time
├── TaskFenced        another process took the task over
├── DayDiffers        a re-run says something else than what stands on the log
├── CommitTimedOut    Kafka did not finish a transaction in time
└── HistoryChanged    (`live_services.services.session_history`) features of the session stand on other bars now
"""


class RuntimeFailure(Exception):
    """The process must end; a restart runs the session again from its open and goes on where the commit stands."""


class PromiseBroken(RuntimeFailure):
    """An output is earlier than the watermark that its topic already carries."""


class NotSaid(RuntimeFailure):
    """What takes a chain's events failed on one: no service is to blame, and what of it was said is not known."""


class WrongShape(RuntimeFailure):
    """Topics, inputs or committed offsets do not fit the service."""


class SlowOpening(RuntimeFailure):
    """The states of a session were not built in time."""


class SlowStep(RuntimeFailure):
    """A step that left the loop did not end in time; of one that hangs in the loop the watchdog knows."""


class TaskFenced(RuntimeFailure):
    """Another process took the task over."""


class CommitTimedOut(RuntimeFailure):
    """Kafka did not finish a transaction in time."""


class DayDiffers(RuntimeFailure):
    """A re-run of the session says something else than what stands on the log."""
