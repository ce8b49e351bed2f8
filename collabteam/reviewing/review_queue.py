"""The seam of review queues: one class chooses crops for a person to verify."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from collabteam.registry import Registry
from collabteam.settings import seams

if TYPE_CHECKING:  # listing the queues needs neither Arrow nor NumPy
    import numpy as np
    from numpy.typing import NDArray

    from collabteam.catalog import Catalog, CropIndex
    from collabteam.catalog.annotations import Answers
    from collabteam.events import Listener
    from collabteam.settings import ReviewConfig


@dataclass(frozen=True)
class ReviewState:
    """The state of a review that a queue works on.

    Attributes:
        catalog: The camera.
        index: Its N crops.
        answers: All answers of reviewers so far.
        config: Has the sizes of draws and the seed.
    """

    catalog: Catalog
    index: CropIndex
    answers: Answers
    config: ReviewConfig


@dataclass(frozen=True)
class QueuedCrops:
    """Crops to verify, in the order in which they are shown.

    Attributes:
        rows: Shape ``(Q,)``: row numbers of the catalog's index, each once.
        suggested: Q suggested labels, ``""`` for none.
        next: The command to run when all crops are verified.
        round: The round whose team gave the suggestions, -1 for none.
        since: For the purpose ``audit``, the number of events in the log when the audit began;
            these events do not count.
    """

    rows: NDArray[np.int64]
    suggested: Sequence[str]
    next: str
    round: int = -1
    since: int = 0


class ReviewQueue(ABC):
    """Chooses crops for a person to verify.

    A queue is one module of ``collabteam.reviewing.queues``, or a class of another package that
    ``queue=package.module:Class`` or an entry point of the group ``collabteam.review_queue`` names.

    Attributes:
        title: Its title on the review page.
        purpose: The purpose of the answers, one of ``collabteam.catalog.records.REVIEW_PURPOSES``:
            ``seed`` labels a crop; ``unsure`` also has it train from the next round on; ``test``
            is for the frozen test set and ``audit`` for an audit: both accept answers only for
            crops of the queue, and an audit counts only its own answers; ``conflict`` shows the
            answers of others and resolves the conflict.
        preselects: Whether a page starts with the suggestion as the answer for all its crops, which
            one key confirms. Without, crops of the same suggestion only stand together, and each
            needs an answer: for suggestions that are often wrong.
        position: Queues are listed in ascending order of this number, then of their names.
    """

    title: ClassVar[str]
    purpose: ClassVar[str]
    preselects: ClassVar[bool] = True
    position: ClassVar[int] = 100

    def prepare(self, catalog: Catalog, config: ReviewConfig, listener: Listener) -> None:
        """Draw the crops that the queue needs, unless they are drawn already.

        Args:
            catalog: The camera.
            config: The sizes of the draws.
            listener: For warnings.

        Raises:
            UserError: There is nothing to draw from, or another command holds the camera.
        """
        return

    @abstractmethod
    def crops(self, state: ReviewState) -> QueuedCrops:
        """Return the current crops of the queue.

        Verified crops stay if they count as done. This draws and writes nothing; a queue that was
        never prepared may be empty.

        Raises:
            UserError: A file that an earlier command wrote is damaged.
        """

    def membership_changed(
        self, state: ReviewState, queued: Container[int], rows: list[int]
    ) -> bool:
        """Return whether new answers bring crops into the queue or remove them from it.

        Args:
            state: The state with the new answers.
            queued: Row numbers of the queue's crops.
            rows: Row numbers of the crops that were answered.
        """
        return False

    @abstractmethod
    def why_empty(self, camera: str) -> str:
        """Say why the queue may have no crops, and which command adds some.

        Args:
            camera: The camera's name.
        """


REVIEW_QUEUES: Registry[ReviewQueue] = seams.REVIEW_QUEUES
"""All review queues."""


def load_queues(chosen: str = "") -> dict[str, ReviewQueue]:
    """Load the queues of a review session, by name, in the order in which they are listed.

    Args:
        chosen: A queue to add, which may be ``package.module:Class``; ``""`` adds none.

    Raises:
        UserError: A queue cannot be loaded.
    """
    names = dict.fromkeys([*REVIEW_QUEUES.names(), *([chosen] if chosen else [])])
    queues = {name: REVIEW_QUEUES.load(name)() for name in names}
    return dict(sorted(queues.items(), key=lambda item: (item[1].position, item[0])))
