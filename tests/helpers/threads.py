"""Work in threads that really runs at once."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def in_threads(*works):
    """What each function returns, in a thread of its own; all of them run at once."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [each.result() for each in [pool.submit(torch.no_grad()(work)) for work in works]]


@contextmanager
def meeting(module, passes):
    """While open, two threads wait for each other inside `module` in their first passes, so that their calls overlap."""
    barrier, done = threading.Barrier(2, timeout=60), threading.local()

    def meet(module, args):
        done.passes = getattr(done, "passes", 0) + 1
        if done.passes <= passes:
            barrier.wait()

    handle = module.register_forward_pre_hook(meet)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def staying(module, work):
    """While open, `work` runs in another thread and stays inside `module`; leaving waits until it has returned."""
    entered, leave = threading.Event(), threading.Event()

    def stay(module, args):
        entered.set()
        leave.wait(60)

    handle = module.register_forward_pre_hook(stay)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(torch.no_grad()(work))
        try:
            assert entered.wait(60)
            yield
        finally:
            leave.set()
            handle.remove()
        running.result()
