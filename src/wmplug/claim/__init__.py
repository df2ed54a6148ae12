"""Ask a suspect, judge its answers, state the verdict: in one call, or apart."""

from wmplug.claim.monitor import Monitor
from wmplug.claim.questions import Answers, Questions, ask
from wmplug.claim.scanning import Scan, scan
from wmplug.claim.verdict import Part, Verdict
from wmplug.claim.verification import judge, verify

__all__ = ["Answers", "Monitor", "Part", "Questions", "Scan", "Verdict", "ask", "judge", "scan", "verify"]
