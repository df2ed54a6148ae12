"""Ask a suspect, judge its answers, state the verdict."""
