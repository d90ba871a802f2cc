"""The command ``dmod``, and ``python -m dmod``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from dmod.doctor import BAD, as_dicts, examine, report

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 1 if the doctor finds something that must be mended."""
    parser = argparse.ArgumentParser(prog="dmod", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    doctor = commands.add_parser("doctor", help="what this machine has for dmod, and what is slow or missing")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    arguments = parser.parse_args(argv)
    findings = examine()
    print(json.dumps(as_dicts(findings), indent=1) if arguments.json else report(findings))
    return int(any(finding.status == BAD for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
