"""A step of a loop, and what is looked for in a model and in bytes."""

from wmplug.adapters.torch.points import Hook

PURPOSES = ("input", "label", "schedule", "disclosure")


def secrets(mark, owner):
    keys = [mark.subkeys.key(purpose) for purpose in PURPOSES] + [owner._roots[0], owner.seal()._key]
    return keys + [key.hex().encode() for key in keys]


def take_a_step(net, loader):
    """As much of a loop as shows that the model is trained on what the loader yields."""
    net.train()(next(iter(loader))[0])


def hooks_of(model):
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return [h for h in hooks if isinstance(h, Hook)]
