"""Check this machine, and print a page for a bug report: `python -m flows.doctor` (`make doctor`).

Each line is ok or wrong, and a wrong line has its remedy. The page holds no secrets: passwords and
tokens are masked, the home folder is ~. It is made for broken machines: it needs only Python, and a
check that fails or hangs does not stop the others.
"""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator

from flows import checks, service_checks
from flows.checks import Finding
from tasks.tracking import servers

SECONDS = 7.0  # for all checks together, side by side
Check = Callable[[], Iterator[Finding]]
CHECKS: tuple[Check, ...] = (
    checks.check_machine,
    checks.check_packages,
    checks.check_settings,
    checks.check_git,
    checks.check_params,
    service_checks.check_prefect,
    service_checks.check_prefect_settings,
    service_checks.check_mlflow,
    service_checks.check_ports,
)


def examine() -> list[Finding]:
    """Return the findings of all checks, which run side by side."""
    found: dict[Check, list[Finding]] = {check: [] for check in CHECKS}
    threads = {
        check: threading.Thread(target=_run_check, args=(check, found[check]), daemon=True)
        for check in CHECKS
    }
    for thread in threads.values():
        thread.start()
    deadline = time.monotonic() + SECONDS
    for check, thread in threads.items():
        thread.join(max(0.0, deadline - time.monotonic()))
        if thread.is_alive():
            late = Finding(name_check(check), f"not known within {SECONDS:.0f} s", known=False)
            found[check] = [*found[check], late]
    return [finding for check in CHECKS for finding in found[check]]


def _run_check(check: Check, found: list[Finding]) -> None:
    try:
        for finding in check():
            found.append(finding)
    except Exception as error:  # on a broken machine the error belongs on the page
        said = f"{type(error).__name__}: {error}"
        found.append(Finding(name_check(check), said, "put this page into a bug report"))


def name_check(check: Check) -> str:
    """Return the subject of a check."""
    return getattr(check, "__name__", "").removeprefix("check_").replace("_", " ")


def show(finding: Finding) -> str:
    """Return a line of the page, without secrets."""
    word = "wrong" if finding.remedy else "ok" if finding.known else "?"
    lines = [f"{word:<6} {finding.name:<20} {finding.said}"]
    lines += [f"{'':<6} → {finding.remedy}"] if finding.remedy else []
    text = servers.mask_secrets("\n".join(lines))
    home = os.environ.get("HOME", "").rstrip("/")
    if not home:
        return text
    return re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)


def main() -> None:
    """Print the page, and exit with 1 if something is wrong."""
    findings = examine()
    print("\n".join(map(show, findings)))
    wrong = sum(bool(finding.remedy) for finding in findings)
    print(f"\nwrong: {wrong}; the arrows show the remedies" if wrong else "\nnothing is wrong")
    sys.stdout.flush()
    os._exit(1 if wrong else 0)  # does not wait for a check that hangs


if __name__ == "__main__":
    main()
