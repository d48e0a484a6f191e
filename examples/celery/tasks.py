"""Celery: a report that is made once, however often it is asked for and whichever worker process takes the task.

Run it with ``celery -A tasks worker`` in this directory.
"""

import atexit
import os
from pathlib import Path

from celery import Celery
from celery.signals import worker_process_shutdown
from pydantic import BaseModel

import storeconf.sync
from storeconf.sync import lock, typed

registry = storeconf.sync.load(Path(__file__).with_name("storeconf.yaml"))  # before the workers fork
atexit.register(registry.close)

messages = os.environ.get("MESSAGES", "messages")  # a directory, in place of a broker
Path(messages).mkdir(parents=True, exist_ok=True)
app = Celery("tasks", broker="filesystem://", backend=f"file://{messages}")
app.conf.broker_transport_options = dict.fromkeys(("data_folder_in", "data_folder_out", "control_folder"), messages)


@worker_process_shutdown.connect
def close(**_: object) -> None:
    registry.close()


class Report(BaseModel):
    month: str
    made_by: int
    token: int


@app.task(name="report")
def report(month: str) -> dict[str, int | str]:
    reports = typed(registry["reports"], Report)
    with lock(registry["reports"], month) as held:  # a broker may deliver a task twice
        made = reports.get(month)
        if made is None:
            made = Report(month=month, made_by=os.getpid(), token=held.token)
            held.check()
            reports.set(month, made)
    return made.model_dump() | {"worker": os.getpid(), "asked": registry["counters"].increment(month)}
