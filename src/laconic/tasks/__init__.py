"""Questions with answers that can be scored.

``text/``: retrieval from documents; ``scenes/``: questions about drawn images; ``public/``: benchmarks from their files.
"""

from laconic.tasks.registry import find_task, list_tasks
from laconic.tasks.task import Judged, Sample, Task, Turn, about_image

__all__ = ["Judged", "Sample", "Task", "Turn", "about_image", "find_task", "list_tasks"]
