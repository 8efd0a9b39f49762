from __future__ import annotations

import json
from collections.abc import Sequence

from lightning_zoo.batch import counted
from lightning_zoo.cli import new_parser

MARKS = {"ok": "ok  ", "warn": "warn", "fail": "FAIL"}


def run(args: Sequence[str], *, debug: bool) -> int:
    """Look over this machine."""
    parser = new_parser(
        "doctor",
        "Look over this machine before a long run: versions, devices, memory, disks,\n"
        "decoders, a small network of each task, two ranks. Takes a few seconds.",
        "The exit status is 1 where something fails; a warning alone leaves it 0.\n"
        "Keys and passwords are not looked at.",
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")
    options = parser.parse_args(list(args))

    from lightning_zoo.doctor import Finding, check_machine

    def tell(finding: Finding) -> None:
        print(f"{MARKS[finding.status]}  {finding.subject:<22}  {finding.found}", flush=True)
        if finding.fix:
            print(f"{'':<6}{'':<22}  fix: {finding.fix}", flush=True)

    checkup = check_machine(None if options.json else tell, debug=debug)
    if options.json:
        print(json.dumps(checkup.as_json()))
    else:
        count = {s: sum(f.status == s for f in checkup.findings) for s in MARKS}
        warnings, failures = counted(count["warn"], "warning"), counted(count["fail"], "failure")
        print(f"\n{count['ok']} in order, {warnings}, {failures}")
    return 0 if checkup.ok else 1
