"""Flask: a cached function, a rate limit, results of jobs and a lock, for all threads and worker processes."""

import atexit
import time
from pathlib import Path

from flask import Flask, Response, request
from pydantic import BaseModel

import storeconf.sync
from storeconf import StoreLockBusyError
from storeconf.sync import cached, lock, typed

registry = storeconf.sync.load(Path(__file__).with_name("storeconf.yaml"))
atexit.register(registry.close)
app = Flask(__name__)


class Job(BaseModel):
    month: str
    rows: int


@cached("prices", registry)
def price(sku: str) -> int:
    registry["counters"].increment("asked")  # in place of a database
    time.sleep(0.05)
    return len(sku) * 100


@app.before_request
def limit() -> Response | None:
    caller = f"{request.remote_addr}:{int(time.time() // 3600)}"
    used = registry["counters"].increment(caller, expires_in=7200)
    return None if used <= 1000 else Response("slow down", status=429)


@app.get("/price/<sku>")
def show(sku: str) -> dict[str, int]:
    return {"cents": price(sku)}


@app.delete("/price/<sku>")
def forget(sku: str) -> str:
    return "forgotten" if price.invalidate(sku) else "not there"


@app.post("/report/<month>")
def report(month: str) -> Response | dict[str, object]:
    try:
        with lock(registry["jobs"], month, wait=0) as held:
            held.check()  # before each step that needs the lock
            job = Job(month=month, rows=held.token)
            typed(registry["jobs"], Job).set(month, job)
            return job.model_dump()
    except StoreLockBusyError:
        return Response("somebody else does it", status=409)
