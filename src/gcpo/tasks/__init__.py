"""Built-in tasks: problems without number, graded by exact rules, small enough for a policy of a million parameters.

To add one, write a file with a class that satisfies ``Task`` and enter it in ``TASKS``.
"""

from gcpo.tasks.base import Example, Split, Task, final_answer
from gcpo.tasks.chain import Chain
from gcpo.tasks.countdown import Countdown
from gcpo.tasks.product import Product

__all__ = ["TASKS", "Example", "Split", "Task", "final_answer", "get_task"]

TASKS: dict[str, Task] = {task.name: task for task in (Chain(), Product(), Countdown())}


def get_task(name: str) -> Task:
    """The task of that name.

    Raises:
        ValueError: There is none.
    """
    if name not in TASKS:
        raise ValueError(f"the task must be one of {', '.join(TASKS)}, found {name!r}.")
    return TASKS[name]
