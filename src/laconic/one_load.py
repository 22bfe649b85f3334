"""`ONE_LOAD`: models are loaded one at a time in a process."""

from __future__ import annotations

import threading

# While `from_pretrained` runs, it replaces `PreTrainedModel.tie_weights` and the functions of `torch.nn.init`; at the end it
# puts back what it found. Two threads inside it put back each other's: from then on no weights are tied in any thread, and
# every model that ties them fails ("Cannot copy out of meta tensor"). Nothing that waits for another lock may run inside.
ONE_LOAD = threading.RLock()
