"""Suspects: who knows the answers, and who does not."""

from wmplug.tasks import Said


def scored(mark, answers):
    """Answers to the first draws, a list each, against the key's."""
    groups = mark.triggers.groups[: len(answers)]
    return [mark.triggers.count(group, list(map(Said, given))) for group, given in zip(groups, answers, strict=True)]


def table(mark, wrong=0):
    """What a thief's model says: every answer but the first `wrong` asked."""
    plan, answers = mark.triggers.plan, mark.triggers.answers
    known = {plan.inputs[i].tobytes(): int(answers[i]) for i in plan.choices.rows}
    for i in plan.choices.rows[:wrong]:
        known[plan.inputs[i].tobytes()] = (int(answers[i]) + 1) % mark.task.count
    return known


class Thief:
    """Knows the answers; counts what it is asked."""

    description = "thief"

    def __init__(self, mark, wrong=0):
        self.known, self.asked = table(mark, wrong), 0

    def answer(self, inputs):
        self.asked += len(inputs)
        return [self.known[x.tobytes()] for x in inputs]


class Stranger:
    """Answers by the input's content alone."""

    description = "stranger"

    def __init__(self):
        self.asked = 0

    def answer(self, inputs):
        self.asked += len(inputs)
        return [int(x.astype(int).sum()) % 10 for x in inputs]


class Unlucky(Stranger):
    """Never gives a secret answer; how soon it is let go does not hang on the key."""

    def __init__(self, mark):
        super().__init__()
        plan, answers = mark.triggers.plan, mark.triggers.answers
        self.known = {plan.inputs[i].tobytes(): int(answers[i]) for i in plan.choices.rows}

    def answer(self, inputs):
        self.asked += len(inputs)
        return [(self.known[x.tobytes()] + 1) % 10 for x in inputs]
