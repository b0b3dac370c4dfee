"""The page of a run of chaos.py."""

from __future__ import annotations

from typing import Any

PAGE = """# Killed {kills:,} times

`make chaos`: four clients send sums and histograms of 40 features over gRPC, two of them deltas and two cumulative
totals, one request in ten twice, to a processor that is killed (SIGKILL) again and again. Checkpoints are written
every 150 ms or 400 kB, models are evaluated every 40 ms, what is shown is exported every 100 ms, and one request in
four has a metric that is to be passed on. Seed {seed}, {seconds:,} s, Python {python}, SQLite {sqlite}, {date}.

After each kill a copy of the data directory must pass SQLite's `integrity_check`, and opened it must hold, of each
client, exactly the requests that were acknowledged and all or nothing of the one that was not. {comparisons:,}
comparisons of all counts of a client were made; **none differed**, or there would be no page. {acknowledged:,} requests
with {values:,} values were acknowledged, {twice:,} were sent twice. All {passed:,} metrics to be passed on have arrived
in the end, {again:,} of them more than once (they were sent twice, or the processor died before it had noted them).

| the moment was chosen | kills |
|---|--:|
{ways}

What the processor was doing when it died, as it noted itself in a shared file that outlives it (several of its threads
may be at something at once, so these are more than kills):

| doing | kills |
|---|--:|
{stages}

| requests that were not acknowledged: what the directory held after the kill, what the client did then | |
|---|--:|
{flying}

Processors are forked from one that has imported all modules, so that the start is that of the processor and not that of
Python; importing touches no data.
"""


def make_page(document: dict[str, Any]) -> str:
    requests = document["requests"]
    return PAGE.format(
        kills=document["kills"],
        seed=document["seed"],
        seconds=document["seconds"],
        python=document["python"],
        sqlite=document["sqlite"],
        date=document["date"],
        comparisons=document["comparisons of all counts of a client"],
        acknowledged=requests["acknowledged"],
        twice=requests["sent twice"],
        passed=document["passed on"]["acknowledged, and arrived"],
        again=document["passed on"]["arrived more than once"],
        values=document["values acknowledged"],
        ways=_rows(document["ways"]),
        stages=_rows(document["stages"]),
        flying=_rows(requests["on their way when it was killed"]),
    )


def _rows(counts: dict[str, int]) -> str:
    return "\n".join(f"| {name} | {count:,} |" for name, count in counts.items())
