"""A thread that writes during training; it runs its jobs in order and keeps their errors until it is
asked.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor


class BackgroundWriter:
    """Runs jobs on one thread; after a job fails, later ones are skipped until `finish` has raised its error.

    No job may call a collective: ranks would meet in them in another order than in their steps.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        self._jobs: list[Future[None]] = []
        self.is_in_a_hurry = False
        """Set when the process is about to end: jobs then wait for others no longer than they must."""

    @property
    def is_busy(self) -> bool:
        """Whether a job has not ended yet."""
        return any(not job.done() for job in self._jobs)

    @property
    def has_failed(self) -> bool:
        """Whether a job has failed whose error `finish` has not raised yet."""
        return any(job.done() and job.exception() is not None for job in self._jobs)

    def add(self, job: Callable[[], None]) -> None:
        """Runs `job` after the earlier ones, unless one of them fails."""
        before = list(self._jobs)

        def after_others() -> None:
            if all(earlier.exception() is None for earlier in before):
                job()

        self._jobs.append(self._thread.submit(after_others))

    def finish(self) -> None:
        """Waits for every job; raises what the first failing one raised, once."""
        jobs, self._jobs = self._jobs, []
        errors = [error for job in jobs if (error := job.exception()) is not None]
        if errors:
            raise errors[0]
