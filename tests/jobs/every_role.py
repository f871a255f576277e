"""The records with the methods of every role, for tests in which one process plays all of them."""

from jobs.queue.claimed_videos import ClaimedVideos
from jobs.queue.enqueue import VideoQueue
from jobs.queue.recover import LostVideos
from jobs.storage.janitor import ExpiredVideos


class EveryRole(VideoQueue, ClaimedVideos, LostVideos, ExpiredVideos):
    pass
