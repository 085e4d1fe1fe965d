"""The job process: jobs that the domain deferred, and jobs by the clock.

Jobs are plain functions in their noun's file, idempotent, named `module:function`. This file knows
which there are and hands each what it needs.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import structlog
from procrastinate import App, PsycopgConnector, RetryStrategy

from api.clock import utc_now
from api.services import Services, open_services
from api.settings import Settings
from wallet import fulfilment
from wallet.admission import admissions

EVERY_FIVE_SECONDS = "* * * * * */5"
EVERY_TEN_SECONDS = "* * * * * */10"
RETRY = RetryStrategy(max_attempts=20, exponential_wait=3)
JOBS_AT_ONCE = 4
STOP_SECONDS = 10.0

log = structlog.get_logger()

Job = Callable[..., Awaitable[Any]]

JOBS: dict[str, Job] = {
    f"{job.__module__}:{job.__name__}": job
    for job in (
        fulfilment.query_attempt,
        fulfilment.try_refund,
    )
}


async def work(settings: Settings) -> None:
    """Run jobs until the process is told to stop."""
    async with open_services(settings, utc_now) as services:
        app = make_app(services)
        async with app.open_async():
            log.info("worker_ready")
            await app.run_worker_async(
                concurrency=JOBS_AT_ONCE,
                delete_jobs="successful",
                fetch_job_polling_interval=1.0,
                shutdown_graceful_timeout=STOP_SECONDS,
            )


def make_app(services: Services) -> App:
    """Return the job queue's application with every job of ours."""
    options = " ".join(f"-c {name}={value}" for name, value in services.db.settings.items())
    app = App(
        connector=PsycopgConnector(
            conninfo=services.db.dsn, kwargs={"options": options}, min_size=1, max_size=6
        )
    )
    for name, job in JOBS.items():
        app.task(name=name, retry=RETRY)(_handed(job, services))

    @app.periodic(cron=EVERY_TEN_SECONDS, periodic_id="void")
    @app.task(name="wallet.admission.admissions:void_waiting", queueing_lock="void")
    async def void_waiting(timestamp: int) -> None:  # noqa: ARG001  # the queue passes it
        async with services.db.begin() as session:
            await admissions.void_waiting(session, now=services.clock())

    @app.periodic(cron=EVERY_FIVE_SECONDS, periodic_id="poll")
    @app.task(name="wallet.fulfilment:poll", queueing_lock="poll")
    async def poll(timestamp: int) -> None:  # noqa: ARG001  # the queue passes it
        await fulfilment.poll(services.cashier, now=services.clock())

    return app


def _handed(job: Job, services: Services) -> Callable[..., Awaitable[None]]:
    async def run(**arguments: str | int) -> None:
        ids = {
            name: UUID(str(value)) if name.endswith("_id") else value
            for name, value in arguments.items()
        }
        await job(services.cashier, now=services.clock(), **ids)

    return run
